package stream

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
	"github.com/srodi/ebpf-server/internal/event"
)

var testOptions = Options{Events: 50_000, End: time.Date(2026, 11, 21, 15, 17, 23, 0, time.UTC), Span: 7 * 24 * time.Hour, Seed: 1}

func forEach(o Options, limit int, do func(event.Row)) {
	s := New(o)
	for batches := s.Next(limit); batches != nil; batches = s.Next(limit) {
		for _, b := range batches {
			for i := range b.Len() {
				do(event.Row{Batch: b, Index: i})
			}
		}
	}
}

func text(r event.Row, column string) string {
	i, ok := r.Batch.Type.Column(column)
	if !ok {
		return ""
	}
	value, _ := r.AppendText(nil, i)
	return string(value)
}

// TestSameEvents checks that the size of the batches changes nothing but them.
func TestSameEvents(t *testing.T) {
	lines := func(limit int) (lines []string) {
		forEach(testOptions, limit, func(r event.Row) { lines = append(lines, string(r.AppendJSON(nil))) })
		slices.Sort(lines)
		return lines
	}
	one, two := lines(1024), lines(77)
	if !slices.Equal(one, two) {
		t.Errorf("streams with the same seed differ")
	}
	if n := len(slices.Compact(one)); n != int(testOptions.Events) {
		t.Errorf("%d different events, want %d", n, testOptions.Events)
	}
}

func TestPlanted(t *testing.T) {
	for _, events := range []int64{MinEvents, 50_000} {
		o := testOptions
		o.Events = events
		p := o.Planted()
		pid, daemon, ip, failures := 0, 0, 0, 0
		forEach(o, 1024, func(r event.Row) {
			if n, ok := r.Int(event.PID); ok && n == p.PID {
				pid++
			} else if ok && n == p.Daemon {
				daemon++
			}
			if text(r, "destination_ip") == p.IP.String() {
				ip++
			}
			if at := r.Time(); text(r, "state") == "failed" && text(r, "command") == p.Command && at >= p.FailSince.UnixNano() && at < p.FailUntil.UnixNano() {
				failures++
			}
		})
		if pid != p.PIDEvents || daemon != p.PIDEvents || ip != p.IPEvents || failures < p.MinFailures {
			t.Errorf("%d events: %d and %d of the planted processes (want %d), %d to the planted address (want %d), %d failures (want %d)",
				events, pid, daemon, p.PIDEvents, ip, p.IPEvents, failures, p.MinFailures)
		}
	}
}

// TestShape checks what the benchmark promises of the stream.
func TestShape(t *testing.T) {
	count := make(map[string]int)
	ips, commands := make(map[string]bool), make(map[string]bool)
	hours := make(map[int64]int)
	opened := make(map[string]bool)
	late, newest, last := 0, int64(0), int64(0)
	forEach(testOptions, 1024, func(r event.Row) {
		at := r.Time()
		if at < testOptions.Begin().UnixNano() || at >= testOptions.End.UnixNano() {
			t.Fatalf("event at %v", time.Unix(0, at).UTC())
		}
		if r.Batch.Type == packetdrop.Type {
			count["drop"]++
			return
		}
		if last = max(last, at); at < newest-int64(10*time.Minute) {
			late++
		}
		newest = last
		state, id := text(r, "state"), text(r, "connection_id")
		count[state]++
		switch {
		case state == "established":
			opened[id] = true
		case state == "closed" && !opened[id]:
			t.Fatalf("connection %s closed before it was established", id)
		}
		ips[text(r, "destination_ip")], commands[text(r, "command")] = true, true
		hours[at/int64(time.Hour)]++
	})
	n := float64(testOptions.Events)
	near := func(name string, got, want, tolerance float64) {
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s: %.3f, want about %.3f", name, got, want)
		}
	}
	near("drops", float64(count["drop"])/n, 0.15, 0.0001)
	near("failed", float64(count["failed"])/n/0.85, 0.02, 0.004)
	near("closed for each established", float64(count["closed"])/float64(count["established"]), 1, 0.01)
	near("commands", float64(len(commands)), 200, 5)
	if len(ips) < 3000 {
		t.Errorf("%d destinations", len(ips))
	}
	if late > 0 {
		t.Errorf("%d connection events come more than ten minutes late", late)
	}
	busy, quiet := 0, math.MaxInt
	for _, n := range hours {
		busy, quiet = max(busy, n), min(quiet, n)
	}
	if busy < 4*quiet {
		t.Errorf("%d events in the busiest hour, %d in the quietest", busy, quiet)
	}
}

// TestDictionaries checks what Batch promises of a batch, which sheet writes itself.
func TestDictionaries(t *testing.T) {
	s := New(testOptions)
	for batches := s.Next(1000); batches != nil; batches = s.Next(1000) {
		total := 0
		for _, b := range batches {
			total += b.Len()
			for i, v := range b.Columns {
				seen := slices.Sorted(slices.Values(v.Dict))
				if len(slices.Compact(seen)) != len(v.Dict) {
					t.Fatalf("%s: %s has a value twice", b.Type.Name, b.Type.Columns[i].Name)
				}
				if b.Type.Columns[i].Kind == event.KindIP {
					for _, raw := range v.Dict {
						if ip, ok := netip.AddrFromSlice([]byte(raw)); !ok || ip.Is4In6() {
							t.Fatalf("%q is no address", raw)
						}
					}
				}
			}
		}
		if total > 1000 {
			t.Fatalf("%d events in batches of 1000", total)
		}
	}
}

func BenchmarkStream(b *testing.B) {
	o := testOptions
	o.Events = 10_000_000
	s := New(o)
	events := 0
	for b.Loop() {
		for _, made := range s.Next(1024) {
			events += made.Len()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}
