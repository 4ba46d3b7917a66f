package connection

import (
	"testing"
	"unsafe"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/event"
)

// BenchmarkDecode decodes the events of a few processes, taking turns.
func BenchmarkDecode(b *testing.B) {
	decoder := newDecoder(bpftest.NewHost(b))
	records := make([][]byte, 64)
	for i := range records {
		record := connectionEndEvent{Event: connectionConnectionEvent{TimeNs: uint64(i), State: 3, Known: 15}}
		e := &record.Event
		e.Facts.Cookie, e.Facts.Direction, e.Facts.Protocol, e.Facts.Attribution = uint64(i), 1, 6, 1
		e.Facts.Owner.Process.Pid, e.Facts.Owner.Uid, e.Facts.Owner.CgroupId = uint32(i%8), uint32(i%2), uint64(i%4)
		e.Facts.Owner.Command[0] = int8('a' + i%8)
		e.Facts.Ends.Local.Ip[15], e.Facts.Ends.Remote.Ip[15], e.Facts.Ends.LocalPort, e.Facts.Ends.RemotePort = 1, byte(i), uint16(i), 443
		records[i] = unsafe.Slice((*byte)(unsafe.Pointer(&record)), unsafe.Sizeof(record))
	}
	var batch *event.Batch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%8192 == 0 {
			batch = event.NewBatch(Type, 8192)
			batch.PrepareAhead(64)
		}
		if err := decoder.Decode(records[i%len(records)], batch); err != nil {
			b.Fatal(err)
		}
	}
}
