package connection

import (
	"testing"
	"unsafe"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/event"
)

// recordsOfFew are ends of connections of a few processes, taking turns.
func recordsOfFew() [][]byte {
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
	return records
}

// Events whose texts the batch has already take no memory but their rows'.
func TestDecodeAllocatesNothing(t *testing.T) {
	decoder, records := newDecoder(bpftest.NewHost(t)), recordsOfFew()
	const rounds = 100
	batch := event.NewBatch(Type, (rounds+2)*len(records)) // AllocsPerRun begins with a round that it does not count
	decode := func() {
		for _, record := range records {
			if err := decoder.Decode(record, batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	decode()
	if n := testing.AllocsPerRun(rounds, decode); n != 0 {
		t.Errorf("%v allocations for %d events", n, len(records))
	}
	last := event.Row{Batch: batch, Index: batch.Len() - 1}
	command, _ := last.String(event.Command)
	duration, known := last.Int(columns.duration)
	if batch.Len() != (rounds+2)*len(records) || command != "h" || duration != 0 || !known {
		t.Errorf("%d events, the last of command %q and %d ns (%v)", batch.Len(), command, duration, known)
	}
}

// BenchmarkDecode decodes the events of a few processes, taking turns.
func BenchmarkDecode(b *testing.B) {
	decoder, records := newDecoder(bpftest.NewHost(b)), recordsOfFew()
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
