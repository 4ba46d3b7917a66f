package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// told is an event of a call, as a monitor tells of it in a run.
type told struct {
	call
	run int
}

// ledger is what a test knows of all calls, by going through all events that were
// told: of runs, of restarts and crashes in between, and of late ones.
type ledger struct {
	t       *testing.T
	r       *rand.Rand
	clock   *clock
	s       *Store
	options Options
	runs    []span           // the last one is still going on
	boots   []string         // of the runs
	open    map[int64]bool   // really
	seen    map[int64]string // the boot in which each was seen to begin
	born    map[int64]time.Time
	told    []told
	late    []told // that happened, and are told later
	next    int64
	late10  int // so many of ten come late
}

func (l *ledger) now() time.Time { return l.clock.now() }

// begin opens the file and begins a run, which tells of what it finds.
func (l *ledger) begin(boot string) {
	l.t.Helper()
	l.s = openTest(l.t, l.options)
	if err := l.s.beginRun(Run{BootID: boot, Types: []string{"call"}}); err != nil {
		l.t.Fatal(err)
	}
	if n := len(l.boots); n > 0 && l.boots[n-1] != boot {
		clear(l.open)
	}
	l.runs, l.boots = append(l.runs, span{l.now().UnixNano(), allTime.until}), append(l.boots, boot)
	for _, id := range slices.Sorted(maps.Keys(l.open)) {
		l.tell(told{call{at: l.now().Add(-time.Millisecond), id: id, state: "begun", found: true}, len(l.runs) - 1})
	}
	flush(l.t, l.s)
}

func (l *ledger) tell(events ...told) {
	for _, e := range events {
		l.s.Append(calls(callType, e.call))
		l.told = append(l.told, e)
	}
}

// pass lets time go by: calls begin and end, and some of that is told late.
func (l *ledger) pass(d time.Duration, n int) {
	from, run := l.now(), len(l.runs)-1
	happened := l.late
	l.late = nil
	for range n {
		at := from.Add(time.Duration(l.r.Int64N(int64(d))))
		id := l.next
		l.next++
		l.born[id] = at
		l.seen[id] = l.boots[run]
		happened = append(happened, told{call{at: at, id: id, state: "begun"}, run})
		if lasts := time.Duration(l.r.ExpFloat64() * float64([]time.Duration{time.Minute, 2 * time.Hour, 30 * time.Hour}[l.r.IntN(3)])); at.Add(lasts).Before(from.Add(d)) {
			happened = append(happened, told{call{at: at.Add(lasts), id: id, state: "over"}, run})
		} else {
			l.open[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.open)) {
		if l.born[id].Before(from) && l.r.IntN(40) == 0 {
			happened = append(happened, told{call{at: from.Add(time.Duration(l.r.Int64N(int64(d)))), id: id, state: "over"}, run})
			delete(l.open, id)
		}
	}
	l.clock.set(from.Add(d))
	slices.SortFunc(happened, func(a, b told) int { return a.at.Compare(b.at) })
	waiting := map[int64]bool{} // an end is not told before its beginning
	for _, e := range happened {
		if waiting[e.id] || l.r.IntN(10) < l.late10 {
			waiting[e.id] = true
			l.late = append(l.late, e)
		} else {
			l.tell(e)
		}
	}
}

// end ends the run: by a crash it loses nothing that was told, and its end is the
// last sign of life.
func (l *ledger) end(crash bool) {
	l.t.Helper()
	l.tell(l.late...)
	l.late = nil
	l.runs[len(l.runs)-1].until = l.now().UnixNano()
	if crash {
		flush(l.t, l.s)
		kill(l.t, l.s)
		return
	}
	if err := l.s.SetRecorded(nil); err != nil {
		l.t.Fatal(err)
	}
	closeTest(l.t, l.s)
}

// at returns what was open at a moment, with the ages, by all that was told.
func (l *ledger) at(moment int64) (ages map[int64]time.Duration, asOf int64, running bool) {
	run := -1
	for i, r := range l.runs {
		if r.from <= moment {
			run = i
		}
	}
	if run < 0 {
		return nil, moment, false
	}
	asOf = min(moment, l.runs[run].until)
	ages = map[int64]time.Duration{}
	for _, e := range l.told {
		if e.run != run || e.at.UnixNano() > asOf {
			continue
		}
		if e.state == "over" {
			ages[e.id] = -2 // and stays so, whichever was told first
		} else if ages[e.id] != -2 {
			ages[e.id] = -1
			if l.seen[e.id] == l.boots[run] {
				ages[e.id] = time.Unix(0, asOf).Sub(l.born[e.id])
			}
		}
	}
	maps.DeleteFunc(ages, func(_ int64, age time.Duration) bool { return age == -2 })
	return ages, asOf, asOf == moment
}

// shown are the times of which answers show events.
func (l *ledger) shown() (spans []span) {
	l.t.Helper()
	err := l.s.view(func(v *view) (err error) {
		spans, err = v.visible("call", span{begin.Add(-time.Hour).UnixNano(), l.now().UnixNano() + 1})
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return spans
}

// compare asks for many moments, and wants all other answers to know nothing of
// what was carried over.
func (l *ledger) compare(what string) {
	l.t.Helper()
	spans := l.shown()
	moments := []int64{l.now().UnixNano()}
	for _, in := range spans {
		moments = append(moments, in.from, in.until-1)
		for range 3 {
			moments = append(moments, in.from+l.r.Int64N(in.until-in.from))
		}
	}
	for _, moment := range moments {
		want, asOf, running := l.at(moment)
		pids, ages, answer := openAt(l.t, l.s, query.At{Time: time.Unix(0, moment)})
		name := fmt.Sprintf("%s, at %v, %v ago", what, time.Unix(0, moment).UTC().Format(time.DateTime), l.now().Sub(time.Unix(0, moment)))
		got := map[int64]time.Duration{}
		for i, pid := range pids {
			got[pid] = ages[i]
		}
		if !maps.Equal(got, want) || answer.Total != len(want) || want != nil && answer.AsOf.UnixNano() != asOf {
			l.t.Fatalf("%s: %d open as of %v, total %d, want %d\n%s", name, len(got), answer.AsOf, answer.Total, len(want), difference(got, want))
		}
		if running != answer.Coverage.Complete {
			l.t.Fatalf("%s: coverage %+v", name, answer.Coverage)
		}
	}
	events := 0
	for _, e := range l.told {
		if slices.ContainsFunc(spans, func(in span) bool { return in.overlaps(e.at.UnixNano(), e.at.UnixNano()) }) {
			events++
		}
	}
	types, exported := []*event.Type{callType}, 0
	if err := l.s.Pieces(context.Background(), query.Events{Types: types}, func(p query.Piece) error { exported += p.Rows; return nil }); err != nil {
		l.t.Fatal(err)
	}
	summary := summarise(l.t, l.s, query.Summary{Type: callType, Window: query.Window{Since: begin.Add(-time.Hour)}})
	if shown := len(numbers(l.t, l.s, query.Events{Types: types})); shown != events || exported != events || summary.Count != int64(events) {
		l.t.Fatalf("%s: %d events are shown, %d exported and %d counted, want %d", what, shown, exported, summary.Count, events)
	}
	l.compareStories(what)
}

func difference(got, want map[int64]time.Duration) (text string) {
	for id, age := range got {
		if wanted, ok := want[id]; !ok || age != wanted {
			text += fmt.Sprintf("got %d of age %v, want %v, %v\n", id, age, wanted, ok)
		}
	}
	for id, age := range want {
		if _, ok := got[id]; !ok {
			text += fmt.Sprintf("want %d of age %v\n", id, age)
		}
	}
	return text
}

// checkCarried wants nothing there that no answer needs, where nothing is pinned.
func (l *ledger) checkCarried(what string) {
	l.t.Helper()
	var removed int64
	if err := l.s.view(func(v *view) error { removed = v.storedRemoved("call"); return nil }); err != nil {
		l.t.Fatal(err)
	}
	carried, err := l.s.carriedEvents(callType, allTime, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	last := map[int64]int{} // run
	for i := carried.Len() - 1; i >= 0; i-- {
		row := event.Row{Batch: carried, Index: i}
		id, _ := row.Int(event.PID)
		run, _ := slices.BinarySearchFunc(l.runs, row.Time()+int64(time.Millisecond)+1, func(r span, at int64) int { return cmp.Compare(r.from, at) })
		later := last[id]
		last[id] = max(last[id], run)
		if over := slices.ContainsFunc(l.told, func(e told) bool {
			return e.id == id && e.run == run-1 && e.state == "over" && e.at.UnixNano() < removed
		}); over {
			l.t.Fatalf("%s: %d is carried over and had ended", what, id)
		}
		if run < len(l.runs) && l.runs[run].from <= removed && (callType.Life.Found.Has(row) || later <= run) {
			l.t.Fatalf("%s: %d is carried over in run %d, which is removed", what, id, run)
		}
	}
}

// compareStories wants each story of what is open now to begin with its beginning.
func (l *ledger) compareStories(what string) {
	l.t.Helper()
	want, _, _ := l.at(l.now().UnixNano())
	ids := slices.Sorted(maps.Keys(want))
	for _, id := range ids[:min(2, len(ids))] {
		var rows []event.Row
		_, err := l.s.Story(context.Background(), query.Story{Type: callType, ID: event.FormatID("boot", id), Limit: 1000}, func(r event.Row) error {
			rows = append(rows, r)
			return nil
		})
		if err != nil || want[id] >= 0 && rows[0].Time() != l.born[id].UnixNano() || !slices.IsSortedFunc(rows, func(a, b event.Row) int { return cmp.Compare(a.Time(), b.Time()) }) {
			l.t.Fatalf("%s: the story of %d begins with %v, want %v (%v)", what, id, rows, l.born[id], err)
		}
	}
}

func newLedger(t *testing.T, seed uint64, limits Limits) *ledger {
	c := newClock()
	l := &ledger{
		t: t, r: rand.New(rand.NewPCG(seed, 5)), clock: c, open: map[int64]bool{}, seen: map[int64]string{}, born: map[int64]time.Time{},
		options: Options{Path: testPath(t), Types: lifeTypes, now: c.now, Limits: limits},
	}
	for id := range int64(20) { // that were there before
		l.open[id] = true
		l.next = id + 1
	}
	return l
}

// What was open at any moment that can be asked for is what one sees who goes
// through all events that ever were, whatever retention has removed meanwhile.
func TestAtAfterRetention(t *testing.T) {
	byAge, bySize := Limits{MaxAge: map[string]time.Duration{"call": 9 * time.Hour}}, Limits{MaxSize: map[string]int64{"call": 25_000}}
	for name, test := range map[string]struct {
		limits       Limits
		restarts     int // one in so many steps
		late10, pins int
	}{
		"one run":            {byAge, 0, 0, 0},
		"restarts":           {byAge, 6, 0, 0},
		"late events":        {byAge, 12, 4, 0},
		"pins":               {byAge, 0, 0, 5},
		"pins and restarts":  {byAge, 6, 3, 5},
		"by size":            {bySize, 8, 1, 0},
		"by size, with pins": {bySize, 8, 1, 7},
	} {
		t.Run(name, func(t *testing.T) {
			// With a fourth seed what is open by size takes more than its share of the
			// limit, and ages are forgotten as they should be.
			for seed := range uint64(min(kills(t, 1), 3)) {
				l := newLedger(t, seed, test.limits)
				l.late10 = test.late10
				l.begin("boot")
				var pins []string
				for step := range 16 {
					l.pass(time.Duration(1+l.r.IntN(200))*time.Minute, 80)
					what := fmt.Sprintf("seed %d, step %d", seed, step)
					switch l.r.IntN(3) {
					case 0:
						flush(t, l.s)
					case 1:
						if err := l.s.Seal(context.Background(), l.r.IntN(2) == 0, nil); err != nil {
							t.Fatal(err)
						}
					}
					if step%4 == 0 {
						l.compare(what + " before retention")
					}
					retain(t, l.s)
					l.compare(what)
					if test.pins == 0 && test.late10 == 0 {
						l.checkCarried(what)
					}
					if test.pins > 0 && l.r.IntN(test.pins) == 0 {
						since := l.now().Add(-time.Duration(l.r.IntN(6*60)) * time.Minute)
						p, err := l.s.AddPin(since, since.Add(time.Duration(1+l.r.IntN(120))*time.Minute), "")
						if err != nil {
							t.Fatal(err)
						}
						pins = append(pins, p.ID)
					}
					if test.pins > 0 && len(pins) > 0 && l.r.IntN(2*test.pins) == 0 {
						i := l.r.IntN(len(pins))
						if err := l.s.RemovePin(pins[i]); err != nil {
							t.Fatal(err)
						}
						pins = slices.Delete(pins, i, i+1)
						l.compare(what + " without a pin")
					}
					if test.restarts > 0 && l.r.IntN(test.restarts) == 0 {
						l.end(l.r.IntN(2) == 0)
						l.clock.set(l.now().Add(time.Duration(1+l.r.IntN(90)) * time.Minute))
						l.begin("boot")
						l.compare(what + " after a restart")
					}
				}
				if found, err := l.s.carriedEvents(callType, allTime, nil); err != nil || found.Len() < 50 {
					t.Errorf("only %d events are carried over, %v", found.Len(), err)
				}
				l.end(false)
			}
		})
	}
}
