package packetdrop

import (
	"testing"
	"unsafe"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/event"
)

// recordsOfFew are drops of packets of a few processes, taking turns.
func recordsOfFew() [][]byte {
	records := make([][]byte, 64)
	for i := range records {
		record := packetDropPacketDropEvent{Tally: packetDropTally{FirstNs: uint64(i), LastNs: uint64(i), Count: 1, Length: 60, SourcePort: uint16(i)}}
		d := &record.Drop
		// Behind all symbols: in the last one, where they are not hidden.
		d.Location, d.Reason, d.Netns, d.EtherType, d.IpProtocol, d.Known = ^uint64(i%3), uint32(2+i%5), 4026531840, 0x0800, 6, 15
		d.Attribution, d.Uid, d.CgroupId = uint8(i%4), uint32(i%2), uint64(i%4)
		d.Process.Pid, d.Command[0], d.Interface[0] = uint32(i%8), int8('a'+i%8), int8('i')
		d.Source.Ip[15], d.Destination.Ip[15], d.DestinationPort = byte(i), 1, 443
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
	attribution, _ := last.String(columns.attribution)
	if length, _ := last.Int(columns.length); batch.Len() != (rounds+2)*len(records) || command != "h" || attribution != "connection" || length != 60 {
		t.Errorf("%d events, the last of command %q by %q with %d bytes", batch.Len(), command, attribution, length)
	}
}

// BenchmarkDecode decodes the drops of a few processes, taking turns.
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
