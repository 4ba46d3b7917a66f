package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// connectionType is as wide as the real one.
var connectionType = event.MustType(event.Type{
	Name: "connection", Collection: "connections", Summary: "Connections.",
	Breakdown: "state", Top: []string{"command", "destination_ip"},
	Life: &event.Life{
		ID: "connection_id", Begins: event.Mark{Column: "state", Values: []string{"established"}}, Ends: event.Mark{Column: "state", Values: []string{"closed"}},
	},
	Columns: []event.Column{
		{Name: "connection_id", Kind: event.KindID, Description: "."},
		{Name: "state", Kind: event.KindString, Values: []string{"established", "failed", "closed"}, Description: "."},
		{Name: "direction", Kind: event.KindString, Description: "."},
		{Name: "protocol", Kind: event.KindString, Description: "."},
		{Name: "source_ip", Kind: event.KindIP, Distinct: true, Description: "."},
		{Name: "source_port", Kind: event.KindInt, Description: "."},
		{Name: "destination_ip", Kind: event.KindIP, Distinct: true, Description: "."},
		{Name: "destination_port", Kind: event.KindInt, Distinct: true, Description: "."},
		{Name: "return_code", Kind: event.KindInt, Description: "."},
		{Name: "error", Kind: event.KindString, Description: "."},
		{Name: "duration_ns", Kind: event.KindInt, Description: "."},
		{Name: "bytes_sent", Kind: event.KindInt, Sum: true, Description: "."},
		{Name: "bytes_received", Kind: event.KindInt, Sum: true, Description: "."},
		{Name: "retransmits", Kind: event.KindInt, Sum: true, Description: "."},
		{Name: "rtt_us", Kind: event.KindInt, Description: "."},
		{Name: "attribution", Kind: event.KindString, Description: "."},
	},
})

const benchBatchSize = 1024

// benchBatch makes a batch as a monitor hands it over: 300 processes and 2,000
// addresses, every second event a closed connection with its figures.
func benchBatch(r *rand.Rand, first int64) *event.Batch {
	b := event.NewBatch(connectionType, benchBatchSize)
	setInt := func(column string, n int64) { b.SetInt(connectionType.MustColumn(column), n) }
	setString := func(column, s string) { b.SetString(connectionType.MustColumn(column), s) }
	setIP := func(column string, ip [4]byte) { b.SetIP(connectionType.MustColumn(column), netip.AddrFrom4(ip)) }
	for i := first; i < first+benchBatchSize; i++ {
		process := r.Int64N(300)
		b.Append(begin.UnixNano() + i*1000 + r.Int64N(5000))
		setInt("pid", 1000+process*17)
		setString("command", fmt.Sprintf("worker-%d", process%40))
		setInt("uid", process%7)
		setInt("cgroup_id", 5000+process%20)
		setInt("netns", 4026531840)
		b.SetID(connectionType.MustColumn("connection_id"), "3f4e7c0a", i/2)
		setString("direction", "outbound")
		setString("protocol", "tcp")
		setIP("source_ip", [4]byte{10, 0, 0, 7})
		setInt("source_port", 32768+r.Int64N(28000))
		setIP("destination_ip", [4]byte{192, 168, byte(r.IntN(8)), byte(r.IntN(250))})
		setInt("destination_port", []int64{443, 80, 5432, 6379}[r.IntN(4)])
		setInt("return_code", 0)
		setString("attribution", "connect")
		if i%2 == 0 {
			setString("state", "established")
			continue
		}
		setString("state", "closed")
		setInt("duration_ns", r.Int64N(1e9))
		setInt("bytes_sent", r.Int64N(2000))
		setInt("bytes_received", r.Int64N(50000))
		setInt("retransmits", 0)
		setInt("rtt_us", 100+r.Int64N(1000))
	}
	return b
}

func benchBatches(events int64) (batches []*event.Batch) {
	r := rand.New(rand.NewPCG(1, 1))
	for first := int64(0); first < events; first += benchBatchSize {
		batches = append(batches, benchBatch(r, first))
	}
	return batches
}

func openBench(b *testing.B) *Store {
	return openTest(b, Options{Path: filepath.Join(b.TempDir(), "events.db"), Types: []*event.Type{connectionType}})
}

// BenchmarkAppend is the part of ingest that a monitor waits for.
func BenchmarkAppend(b *testing.B) {
	s := openBench(b)
	batch := benchBatches(1)[0]
	for b.Loop() {
		s.Append(batch)
		s.mu.Lock()
		s.pending = newPart(s.pending.number, s.pending.since)
		s.mu.Unlock()
	}
	b.ReportMetric(float64(b.N)*float64(batch.Len())/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAppendFlush writes a million events for each operation, flushed as
// a running store does it: when many are pending.
func BenchmarkAppendFlush(b *testing.B) {
	const events = 1 << 20
	batches := benchBatches(events)
	var bytes int64
	for b.Loop() {
		s := openBench(b)
		for _, batch := range batches {
			s.Append(batch)
			if s.pending.rows >= flushRows {
				flush(b, s)
			}
		}
		flush(b, s)
		bytes = typeStatus(s, "connection").Bytes
	}
	b.ReportMetric(float64(b.N)*events/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(bytes)/events, "bytes/event")
}

func benchStore(b *testing.B, events int64) *Store {
	s := openBench(b)
	for _, batch := range benchBatches(events) {
		s.Append(batch)
		if s.pending.rows >= flushRows {
			flush(b, s)
		}
	}
	flush(b, s)
	return s
}

func BenchmarkSummary1M(b *testing.B) {
	s := benchStore(b, 1<<20)
	window := query.Window{Since: begin, Until: begin.Add(time.Hour)}
	for name, q := range map[string]query.Summary{
		"top":      {Top: 10},
		"filtered": {Top: 10, Filters: query.Filters{{Column: "pid", Values: []string{"1017"}}}},
		"grouped":  {Top: 10, GroupBy: []string{"command", "destination_ip"}, Interval: time.Second},
	} {
		b.Run(name, func(b *testing.B) {
			q.Type, q.Window = connectionType, window
			for b.Loop() {
				if _, err := s.Summary(context.Background(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEvents1M(b *testing.B) {
	s := benchStore(b, 1<<20)
	for name, q := range map[string]query.Events{
		"newest100": {Limit: 100},
		"filtered":  {Filters: query.Filters{{Column: "pid", Values: []string{"1017"}}}},
		"all":       {},
	} {
		b.Run(name, func(b *testing.B) {
			q.Types = []*event.Type{connectionType}
			n := 0
			for b.Loop() {
				if _, err := s.Events(context.Background(), q, func(event.Row) error { n++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/float64(b.N), "events")
		})
	}
}

// BenchmarkFilters1M counts, so that finding the events is what takes the time.
func BenchmarkFilters1M(b *testing.B) {
	s := benchStore(b, 1<<20)
	sealAll(b, s)
	for _, f := range []query.Filter{
		{Column: "pid", Values: []string{"1017"}},
		{Column: "pid", Values: []string{"1017"}, Op: query.NotEqual},
		{Column: "command", Values: []string{"worker-1*"}},
		{Column: "command", Values: []string{"worker-1*"}, Op: query.NotEqual},
		{Column: "duration_ns", Values: []string{"999000000"}, Op: query.Greater},
		{Column: "bytes_sent", Values: []string{"1000"}, Op: query.Less},
		{Column: "destination_ip", Values: []string{"192.168.0.0/24"}},
		{Column: "duration_ns", Op: query.Absent},
	} {
		b.Run(f.Column+string(f.Op)+strings.Join(f.Values, ","), func(b *testing.B) {
			q := query.Summary{Type: connectionType, Window: query.Window{Since: begin, Until: begin.Add(59 * time.Minute)}, Filters: query.Filters{f}, Sums: []string{}}
			var count int64
			for b.Loop() {
				r, err := s.Summary(context.Background(), q)
				if err != nil {
					b.Fatal(err)
				}
				count = r.Count
			}
			b.ReportMetric(float64(count), "events")
		})
	}
}

// BenchmarkOpenHour asks about an hour that is not sealed yet, and has as many rows as it
// can have: 91 of each 5 seconds, in 720 chunks.
func BenchmarkOpenHour(b *testing.B) {
	const chunks, rows = 720, 91
	s := openBench(b)
	batches := benchBatches(chunks * rows)
	all := event.NewBatch(connectionType, 0)
	for _, batch := range batches {
		all.AppendRows(batch, nil)
	}
	step := time.Hour / (chunks * rows)
	for chunk := range chunks {
		some := event.NewBatch(connectionType, rows)
		some.AppendRows(all, allRows((chunk + 1) * rows)[chunk*rows:])
		for i := range some.Columns[event.Time].Ints {
			some.Columns[event.Time].Ints[i] = begin.Add(time.Duration(chunk*rows+i) * step).UnixNano()
		}
		s.Append(some)
		flush(b, s)
	}
	end := begin.Add(time.Hour)
	hour, minute := query.Window{Since: begin, Until: end}, query.Window{Since: end.Add(-time.Minute), Until: end}
	pid := query.Filters{{Column: "pid", Values: []string{"1017"}}}
	types := []*event.Type{connectionType}
	for _, ask := range []struct {
		name string
		do   func() error
	}{
		{"minute", summaryOf(s, query.Summary{Window: minute, GroupBy: []string{"command"}, Top: 10})},
		{"hour", summaryOf(s, query.Summary{Window: hour, GroupBy: []string{"command"}, Top: 10})},
		{"hourOfPid", summaryOf(s, query.Summary{Window: hour, Filters: pid, Top: 10})},
		{"newest100", eventsOf(s, query.Events{Types: types, Limit: 100})},
		{"newest100OfPid", eventsOf(s, query.Events{Types: types, Limit: 100, Filters: pid})},
		{"allOfPid", eventsOf(s, query.Events{Types: types, Filters: pid})},
		{"at", func() error {
			_, err := s.At(context.Background(), query.At{Type: connectionType, Time: end, Limit: 100}, func(query.Open) error { return nil })
			return err
		}},
	} {
		b.Run(ask.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := ask.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func summaryOf(s *Store, q query.Summary) func() error {
	q.Type = connectionType
	return func() error {
		_, err := s.Summary(context.Background(), q)
		return err
	}
}

func eventsOf(s *Store, q query.Events) func() error {
	return func() error {
		_, err := s.Events(context.Background(), q, func(event.Row) error { return nil })
		return err
	}
}
