package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

func at(nanoseconds int64) time.Time { return begin.Add(time.Duration(nanoseconds)) }

func TestOrder(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	// Drops come before flows of the same time, by name; within a type
	// the order in which they came counts, whatever chunk or batch they are in.
	s.Append(flow(at(5), 1))
	s.Append(flow(at(5), 2))
	flush(t, s)
	s.Append(drop(at(5), 3))
	s.Append(flow(at(4), 4))
	s.Append(flow(at(5), 5))
	flush(t, s)
	s.Append(flow(at(6), 6))
	s.Append(flow(at(5), 7))
	s.Append(drop(at(6), 8))
	want := []int64{4, 3, 1, 2, 5, 7, 8, 6}
	wantNumbers(t, s, query.Events{Ascending: true}, want...)
	slices.Reverse(want)
	wantNumbers(t, s, query.Events{}, want...)
	wantNumbers(t, s, query.Events{Types: []*event.Type{dropType, dropType}}, 8, 3)
}

func TestWindowAndFilters(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	for i := range int64(20) {
		s.Append(flow(begin.Add(time.Duration(i)*20*time.Minute), i))
		if i == 12 {
			flush(t, s)
		}
	}
	window := query.Window{Since: begin.Add(20 * time.Minute), Until: begin.Add(300 * time.Minute)}
	wantNumbers(t, s, query.Events{Window: window, Ascending: true}, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
	wantNumbers(t, s, query.Events{Window: window, Filters: query.Filters{{Column: "command", Values: []string{"curl"}}}}, 12, 9, 6, 3)
	wantNumbers(t, s, query.Events{Filters: query.Filters{{Column: "pid", Values: []string{"5", "15"}}}}, 15, 5)
	wantNumbers(t, s, query.Events{Filters: query.Filters{{Column: "reason", Values: []string{"NO_SOCKET"}}}})
	wantNumbers(t, s, query.Events{Window: query.Window{Since: window.Until, Until: window.Until}})
}

func TestPages(t *testing.T) {
	for _, ascending := range []bool{true, false} {
		t.Run(fmt.Sprint("ascending ", ascending), func(t *testing.T) {
			s := openTest(t, Options{Path: testPath(t)})
			r := rand.New(rand.NewPCG(5, 6))
			for i := range int64(300) {
				s.Append(flow(begin.Add(time.Duration(r.Int64N(20))*10*time.Minute), i)) // many of one time
				if r.IntN(20) == 0 {
					flush(t, s)
				}
			}
			q := query.Events{Types: testTypes, Ascending: ascending, Filters: query.Filters{{Column: "state", Values: []string{"open"}}}}
			want := numbers(t, s, q)
			var got []int64
			for q.Limit = 7; ; {
				list, p := page(t, s, q)
				got = append(got, list...)
				if p.Next == nil {
					break
				}
				if len(list) != q.Limit {
					t.Fatalf("a page with a next one has %d events", len(list))
				}
				cursor, err := query.ParseCursor(p.Next.String())
				if err != nil {
					t.Fatal(err)
				}
				q.Cursor = cursor
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages are %v, want %v", got, want)
			}
			q.Cursor, q.Limit = nil, len(want)
			if _, p := page(t, s, q); p.Next != nil {
				t.Error("there is a next page after the last event")
			}
		})
	}
}

func TestCursorOfAnotherQuestion(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	s.Append(flow(at(1), 1))
	s.Append(flow(at(2), 2))
	_, p := page(t, s, query.Events{Limit: 1})
	_, err := s.Events(context.Background(), query.Events{Types: testTypes, Cursor: p.Next, Ascending: true}, nil)
	var param *query.ParamError
	if !errors.As(err, &param) || param.Name != "cursor" {
		t.Errorf("error is %v", err)
	}
}

// Pages from a store that is appended to, flushed and opened again between any
// two of them give each event that was there at the beginning once, and when
// oldest come first the new ones at the end too.
func TestPagesOfAGrowingStore(t *testing.T) {
	for _, ascending := range []bool{true, false} {
		t.Run(fmt.Sprint("ascending ", ascending), func(t *testing.T) {
			path := testPath(t)
			s := openTest(t, Options{Path: path})
			r := rand.New(rand.NewPCG(7, 8))
			var last int64
			grow := func(n int, from, until int64) {
				for range n {
					last++
					s.Append(flow(begin.Add(time.Duration(from+r.Int64N(until-from))*time.Second), last))
				}
			}
			grow(500, 0, 100)
			q := query.Events{Types: testTypes, Ascending: ascending, Limit: 9}
			var got []int64
			for more := true; more; {
				list, p := page(t, s, q)
				got = append(got, list...)
				more, q.Cursor = p.Next != nil, p.Next
				switch r.IntN(4) {
				case 0:
					flush(t, s)
				case 1:
					closeTest(t, s)
					s = openTest(t, Options{Path: path})
				case 2:
					if last < 700 {
						grow(20, 99, 120) // some of them at the time of events that were delivered
					}
				}
			}
			slices.Sort(got)
			if slices.Equal(slices.Compact(slices.Clone(got)), got) == false {
				t.Error("an event was delivered twice")
			}
			want := int64(500)
			if ascending {
				want = last
			}
			if n := int64(len(got)); n < want || got[499] != 500 {
				t.Errorf("%d events delivered, want %d", n, want)
			}
		})
	}
}

// While batches are appended and flushed, every read must give what is there
// without holes and without repeats.
func TestReadsDuringFlushes(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	const batches, size = 300, 20
	stop := make(chan struct{})
	var flushes sync.WaitGroup
	flushes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.Flush(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var appends sync.WaitGroup
	appends.Go(func() {
		for i := range int64(batches) {
			b := event.NewBatch(flowType, size)
			for k := range int64(size) {
				addFlow(b, begin.UnixNano()+i*size+k, i*size+k)
			}
			s.Append(b)
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	seen := 0
	for seen < batches*size && !t.Failed() {
		list := numbers(t, s, query.Events{Types: []*event.Type{flowType}, Ascending: true})
		for i, n := range list {
			if n != int64(i) {
				t.Fatalf("event %d is number %d", i, n)
			}
		}
		if len(list) < seen {
			t.Fatalf("%d events were there and now %d are", seen, len(list))
		}
		seen = len(list)
		sum, err := s.Summary(context.Background(), query.Summary{Type: flowType, Window: query.Window{Since: begin, Until: begin.Add(time.Hour)}})
		if err != nil {
			t.Fatal(err)
		}
		if sum.Count < int64(seen) || sum.Count%size != 0 {
			t.Fatalf("summary counts %d events after %d were seen", sum.Count, seen)
		}
	}
	appends.Wait()
	close(stop)
	flushes.Wait()
}

func TestEventsStop(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	s.Append(flow(at(1), 1))
	s.Append(flow(at(2), 2))
	full := errors.New("full")
	if _, err := s.Events(context.Background(), query.Events{Types: testTypes}, func(event.Row) error { return full }); !errors.Is(err, full) {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Events(ctx, query.Events{Types: testTypes}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if _, err := s.Summary(ctx, query.Summary{Type: flowType, Window: query.Window{Since: begin, Until: at(5)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// A reader that is in no hurry does not keep the store from being written to:
// yield can even do it itself.
func TestYieldMayWrite(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	for i := range int64(10) {
		s.Append(flow(at(i), i))
	}
	flush(t, s)
	n := 0
	_, err := s.Events(context.Background(), query.Events{Types: testTypes}, func(event.Row) error {
		n++
		s.Append(drop(at(100), 1))
		return s.Flush()
	})
	if err != nil || n != 10 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestMoreEventsThanAStep(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	const n = 2*stepRows + 1000
	for part := range int64(4) {
		b := event.NewBatch(flowType, n/4)
		for i := range int64(n / 4) {
			addFlow(b, begin.UnixNano()+(i*4+part)/10, i*4+part) // ten of each time, spread over four batches
		}
		s.Append(b)
		if part == 1 {
			flush(t, s)
		}
	}
	list := numbers(t, s, query.Events{Types: []*event.Type{flowType}})
	if len(list) != n {
		t.Fatalf("%d events, want %d", len(list), n)
	}
	slices.Sort(list)
	for i, number := range list {
		if number != int64(i) {
			t.Fatalf("event %d is number %d", i, number)
		}
	}
}
