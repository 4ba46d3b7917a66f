package transfer_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
	"github.com/srodi/ebpf-server/internal/transfer"
)

func perSecond(b *testing.B, events int) {
	b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

const benchEvents = 400_000

func benchStore(b *testing.B) *store.Store {
	b.Helper()
	s := open(b, "bench.db")
	r := rand.New(rand.NewPCG(3, 4))
	for hour := range 8 {
		for _, batch := range events(r, begin.Add(time.Duration(hour)*time.Hour), time.Hour, benchEvents/8) {
			if err := s.AppendWait(context.Background(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Seal(context.Background(), true, nil); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkExport(b *testing.B) {
	s := benchStore(b)
	cut := query.Window{Since: begin.Add(time.Nanosecond)}
	filters, err := query.ParseFilters(types, map[string][]string{"address": {"0.0.0.0/0", "::/0"}})
	if err != nil {
		b.Fatal(err)
	}
	for name, q := range map[string]query.Events{"all": {Types: types}, "window": {Types: types, Window: cut}, "filter": {Types: types, Filters: filters}} {
		for _, f := range format.Names {
			b.Run(fmt.Sprint(f, " ", name), func(b *testing.B) {
				for b.Loop() {
					if err := transfer.Export(context.Background(), transfer.File{Store: s, Query: q}, io.Discard, f, types, func(int64) {}); err != nil {
						b.Fatal(err)
					}
				}
				perSecond(b, benchEvents)
			})
		}
	}
}

// BenchmarkImport reads twice, as an import does, and stores blocks.
func BenchmarkImport(b *testing.B) {
	s := benchStore(b)
	for _, name := range []string{format.NDJSON, format.Parquet} {
		data := export(b, transfer.File{Store: s, Query: query.Events{Types: types}}, name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := importInto(b, open(b, "to.db"), data, false); err != nil {
					b.Fatal(err)
				}
			}
			perSecond(b, benchEvents)
		})
	}
}
