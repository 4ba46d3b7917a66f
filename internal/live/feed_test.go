package live

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

var flowType = event.MustType(event.Type{
	Name: "flow", Collection: "flows", Summary: "Flows.", Breakdown: "state",
	Columns: []event.Column{{Name: "state", Kind: event.KindString, Description: "State."}},
})

// batch has events with these pids.
func batch(pids ...int64) *event.Batch {
	b := event.NewBatch(flowType, len(pids))
	for _, pid := range pids {
		b.Append(pid)
		b.SetInt(event.PID, pid)
	}
	return b
}

// clock is a time that goes on by a second whenever it is asked for.
type clock struct{ t time.Time }

func (c *clock) now() time.Time {
	c.t = c.t.Add(time.Second)
	return c.t
}

func newClock() *clock { return &clock{time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)} }

// follow takes what there is behind a position: pids, and 0 for what was missed.
func follow(f *Feed, at query.Position) (pids []int64, missed []*query.Missed, end query.Position) {
	for {
		a, wait := f.Next(at)
		switch {
		case wait != nil:
			return pids, missed, at
		case a.Missed != nil:
			pids, missed = append(pids, 0), append(missed, a.Missed)
		default:
			pids = append(pids, a.Batch.Columns[event.PID].Ints[a.Row:]...)
		}
		at = a.Last
	}
}

func TestFollow(t *testing.T) {
	f := newFeed(1<<20, newClock().now)
	start := f.Now()
	f.Append(batch(1, 2, 3))
	f.Append(batch())
	f.Append(batch(4, 5))
	if pids, _, _ := follow(f, start); !slices.Equal(pids, []int64{1, 2, 3, 4, 5}) {
		t.Errorf("from the start: %v", pids)
	}
	a, _ := f.Next(start)
	second := query.Position{Number: a.First.Number + 1, Time: a.First.Time}
	parsed, err := query.ParsePosition(second.String())
	if err != nil || parsed != second {
		t.Fatalf("%v as text is %v, %v", second, parsed, err)
	}
	pids, _, end := follow(f, parsed)
	if !slices.Equal(pids, []int64{3, 4, 5}) || end != f.Now() {
		t.Errorf("from within a batch: %v to %v", pids, end)
	}
	_, wait := f.Next(end)
	f.Append(batch(6))
	select {
	case <-wait:
	default:
		t.Error("who waits is not woken")
	}
	if pids, _, _ := follow(f, end); !slices.Equal(pids, []int64{6}) {
		t.Errorf("after waiting: %v", pids)
	}
}

func TestMissed(t *testing.T) {
	clock := newClock()
	f := newFeed(3*batch(1, 2).Size(), clock.now)
	start := f.Now()
	var ends []query.Position
	for n := range int64(5) {
		f.Append(batch(10*n+1, 10*n+2))
		ends = append(ends, f.Now())
	}
	second := time.Unix(0, ends[1].Time).UTC()
	tests := []struct {
		name string
		at   query.Position
		pids []int64
		want *query.Missed
	}{
		{"from the start", start, []int64{0, 21, 22, 31, 32, 41, 42}, &query.Missed{Count: 4, Since: time.Unix(0, start.Time).UTC(), Until: second}},
		{"one batch too late", ends[0], []int64{0, 21, 22, 31, 32, 41, 42}, &query.Missed{Count: 2, Since: time.Unix(0, ends[0].Time).UTC(), Until: second}},
		{"just in time", ends[1], []int64{21, 22, 31, 32, 41, 42}, nil},
		{"an earlier run", query.Position{Number: 3, Time: start.Time - 1}, []int64{0, 21, 22, 31, 32, 41, 42}, &query.Missed{Since: time.Unix(0, start.Time-1).UTC(), Until: second}},
		{"a number that is not yet", query.Position{Number: 11, Time: ends[4].Time}, []int64{0, 21, 22, 31, 32, 41, 42}, &query.Missed{Until: second}},
		{"of another time", query.Position{Number: 7, Time: ends[4].Time}, []int64{0, 21, 22, 31, 32, 41, 42}, &query.Missed{Until: second}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pids, missed, _ := follow(f, test.at)
			if !slices.Equal(pids, test.pids) {
				t.Errorf("got %v, want %v", pids, test.pids)
			}
			if (test.want != nil) != (len(missed) == 1) || test.want != nil && *missed[0] != *test.want {
				t.Errorf("missed %+v, want %+v", missed, test.want)
			}
		})
	}
}

// A batch that is larger than all that may be held is held all the same, alone.
func TestLargeBatch(t *testing.T) {
	f := newFeed(1, newClock().now)
	f.Append(batch(1))
	at := f.Now()
	f.Append(batch(2, 3))
	if pids, _, _ := follow(f, at); !slices.Equal(pids, []int64{2, 3}) || len(f.held) != 1 {
		t.Errorf("got %v, %d batches held", pids, len(f.held))
	}
}

// Whoever follows while events come gets each once, or is told how many not.
func TestConcurrentFollowers(t *testing.T) {
	const events = 20_000
	f := newFeed(64<<10, time.Now)
	start := f.Now()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			at, got, missed, before := start, int64(0), int64(0), int64(0)
			for got+missed < events {
				a, wait := f.Next(at)
				switch {
				case wait != nil:
					<-wait
					continue
				case a.Missed != nil:
					missed += a.Missed.Count
				default:
					for _, pid := range a.Batch.Columns[event.PID].Ints[a.Row:] {
						if pid <= before {
							t.Errorf("%d comes after %d", pid, before)
						}
						before = pid
						got++
					}
				}
				at = a.Last
			}
			if got+missed != events {
				t.Errorf("%d events and %d missed, want %d", got, missed, events)
			}
		})
	}
	for n := int64(1); n <= events; n += 2 {
		f.Append(batch(n, n+1))
	}
	group.Wait()
}

func TestParsePosition(t *testing.T) {
	for _, text := range []string{"", "1", "-", "1-", "-1", "1-x", "1--1", "-1-1", "99999999999999999999-1", "1-2-3", " 1-2"} {
		if p, err := query.ParsePosition(text); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, followers := range []int{0, 20} {
		b.Run(fmt.Sprintf("%d followers", followers), func(b *testing.B) {
			f := NewFeed()
			stop := make(chan struct{})
			var group sync.WaitGroup
			for range followers {
				group.Go(func() {
					at := f.Now()
					for {
						a, wait := f.Next(at)
						if wait != nil {
							select {
							case <-wait:
								continue
							case <-stop:
								return
							}
						}
						at = a.Last
					}
				})
			}
			some := batch(make([]int64, 1024)...)
			for b.Loop() {
				f.Append(some)
			}
			close(stop)
			group.Wait()
		})
	}
}
