package store

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// lastingType is connectionType with a life.
var lastingType = event.MustType(event.Type{
	Name: "connection", Collection: "connections", Summary: "Connections.", Breakdown: "state", Top: connectionType.Top,
	Life: &event.Life{
		ID: "connection_id", Begins: event.Mark{Column: "state", Values: []string{"established"}}, Ends: event.Mark{Column: "state", Values: []string{"closed"}},
	},
	Columns: connectionType.Columns[len(event.Common()):],
})

// busyHour returns the events of an hour with 60,000 connections, of which every
// sixth ends an hour later and the others soon; and of some more that last.
func busyHour(t *event.Type, hour, lasting int) (batches []*event.Batch) {
	const n = 60_000
	r := rand.New(rand.NewPCG(uint64(hour), 1))
	start := begin.Add(time.Duration(hour) * time.Hour)
	var all []call
	for i := range n + lasting {
		id := int64(hour)<<32 + int64(i)
		at := start.Add(time.Duration(r.Int64N(int64(59 * time.Minute))))
		all = append(all, call{at: at, id: id, state: "established"})
		switch {
		case i%6 == 0 && i < n:
			all = append(all, call{at: at.Add(time.Hour), id: id, state: "closed"})
		case i < n:
			all = append(all, call{at: at.Add(time.Duration(r.Int64N(int64(30 * time.Second)))), id: id, state: "closed"})
		}
	}
	id, state := t.MustColumn("connection_id"), t.MustColumn("state")
	for len(all) > 0 {
		some := all[:min(benchBatchSize, len(all))]
		all = all[len(some):]
		b := event.NewBatch(t, len(some))
		b.AppendRows(benchBatch(r, 0), allRows(len(some)))
		b.Columns[state].Dict = []string{"closed", "established"}
		for row, c := range some {
			b.Columns[event.Time].Ints[row], b.Columns[id].Ints[row], b.Columns[state].Codes[row] = c.at.UnixNano(), c.id, 1
			if c.state == "established" {
				b.Columns[state].Codes[row] = 2
			}
		}
		batches = append(batches, b)
	}
	return batches
}

// processorTime is what this process has used: others use the machine, too.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkRetainHours removes hours of 60,000 connections, of which 10,000 are open
// at its end. With a life these are carried over, also beside others that last.
func BenchmarkRetainHours(b *testing.B) {
	const hours = 6
	for _, test := range []struct {
		name    string
		of      *event.Type
		lasting int
	}{{"without", connectionType, 0}, {"open=10000", lastingType, 0}, {"open=110000", lastingType, 100_000}} {
		b.Run(test.name, func(b *testing.B) {
			c := newClock()
			s := openTest(b, Options{Path: testPath(b), Types: []*event.Type{test.of}, now: c.now})
			if err := s.beginRun(Run{BootID: "boot", Types: []string{"connection"}}); err != nil {
				b.Fatal(err)
			}
			for hour := range hours {
				c.set(begin.Add(time.Duration(hour+1) * time.Hour))
				for _, batch := range busyHour(test.of, hour, test.lasting*max(0, 1-hour)) {
					if err := s.AppendWait(context.Background(), batch); err != nil {
						b.Fatal(err)
					}
				}
			}
			c.set(begin.Add((hours + 1) * time.Hour))
			sealAll(b, s)
			measure := func(unit string, n int, do func() error) {
				began := processorTime(b)
				if err := do(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64((processorTime(b)-began).Microseconds())/1000/float64(n), unit)
			}
			at := func() error {
				_, err := s.At(context.Background(), query.At{Type: test.of, Limit: 100}, func(query.Open) error { return nil })
				return err
			}
			if test.of.Life == nil {
				at = func() error { return nil }
			}
			measure("cpu-ms/at-before", 1, at)
			s.SetLimits(Limits{MaxAge: map[string]time.Duration{"connection": 90 * time.Minute}})
			measure("cpu-ms/hour", hours-1, s.retain) // the last one stays
			measure("cpu-ms/at-after", 1, at)
			st, err := s.Storage(false)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(st.Types[0].Bytes.Carried), "carried-B")
			b.ReportMetric(0, "ns/op")
		})
	}
}
