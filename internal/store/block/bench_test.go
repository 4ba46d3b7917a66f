package block_test

import (
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

func encode(tb testing.TB, b *event.Batch) []byte {
	tb.Helper()
	e, err := block.NewEncoder()
	if err != nil {
		tb.Fatal(err)
	}
	data, err := e.Append(nil, b)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func perEvent(b *testing.B, events int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(events), "ns/event")
}

func BenchmarkEncode(b *testing.B) {
	batch := newHost(1).batch(60_000)
	e, err := block.NewEncoder()
	if err != nil {
		b.Fatal(err)
	}
	var data []byte
	b.ReportAllocs()
	for b.Loop() {
		if data, err = e.Append(data[:0], batch); err != nil {
			b.Fatal(err)
		}
	}
	perEvent(b, batch.Len())
	b.ReportMetric(float64(len(data))/float64(batch.Len()), "B/event")
}

func BenchmarkOpen(b *testing.B) {
	data := encode(b, newHost(1).batch(60_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := block.Open(data, connectionType); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	data := encode(b, newHost(1).batch(60_000))
	for name, columns := range map[string][]int{
		"pid":                {event.PID},
		"destination_ip":     {colDestinationIP},
		"command_bytes_sent": {event.Command, colSent},
		"connection_id":      {colID},
		"source_port":        {colSourcePort},
		"all":                columnsOf(connectionType),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := open(b, data, connectionType).Read(columns); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/60_000/float64(len(columns)), "ns/event/column")
		})
	}
}

func BenchmarkReadRows(b *testing.B) {
	data := encode(b, newHost(1).batch(60_000))
	for name, rows := range map[string][]int32{"1": {33_333}, "94": spread(94, 60_000), "94 together": spread(94, 94)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := open(b, data, connectionType).ReadRows(columnsOf(connectionType), rows); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// spread returns n rows of many.
func spread(n, of int) []int32 {
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(i * of / n)
	}
	return rows
}
