package format_test

import (
	"io"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// BenchmarkDerivedParquet writes blocks with their derived fields.
func BenchmarkDerivedParquet(b *testing.B) {
	encoder, err := block.NewEncoder()
	if err != nil {
		b.Fatal(err)
	}
	whole, err := encoder.Append(nil, packets(0, block.MaxRows))
	if err != nil {
		b.Fatal(err)
	}
	w, err := format.NewParquetWriter(io.Discard, []*event.Type{packetType})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := w.Block(packetType, whole); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/block.MaxRows, "ns/event")
}
