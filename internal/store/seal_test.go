package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// sealAll turns all rows into blocks.
func sealAll(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Seal(context.Background(), true, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.view(func(v *view) error {
		for name := range s.types {
			if err := forEachHour(v.tx, name, func(hour int64, _ hourRecord) error { return fmt.Errorf("hour %d has rows", hour) }); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// blocksOf returns how many blocks and segments a type has.
func blocksOf(t testing.TB, s *Store, typeName string) (blocks, segments int) {
	t.Helper()
	if err := s.view(func(v *view) error {
		return forEachSegment(v.tx, typeName, func(_ segment, r segmentRecord) error {
			segments++
			blocks += int(r.blocks)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return blocks, segments
}

// randomEvents makes batches of flows and drops over some days, many of the
// same time, and not in order.
func randomEvents(r *rand.Rand, n int, over time.Duration) (batches []*event.Batch) {
	for made := 0; made < n; {
		flows, drops := event.NewBatch(flowType, 0), event.NewBatch(dropType, 0)
		at := r.Int64N(int64(over))
		for range 1 + r.IntN(60) {
			late := begin.UnixNano() + at - r.Int64N(int64(time.Minute))/7*7
			if r.IntN(3) == 0 {
				late = begin.UnixNano() + at // the same time for many
			}
			if r.IntN(4) == 0 {
				drops.AppendRows(drop(time.Unix(0, late), int64(made)), nil)
			} else {
				addFlow(flows, late, int64(made))
			}
			made++
		}
		batches = append(batches, flows, drops)
	}
	return batches
}

// An hour of the past to which a flush has just brought events is not sealed, however soon
// somebody looks after the flush is in the file.
func TestSealingWaitsForLateEvents(t *testing.T) {
	c := newClock()
	var s *Store
	var once sync.Once // closing flushes too
	sealed := make(chan error, 1)
	s = openTest(t, Options{Path: testPath(t), now: c.now, Flushed: func(time.Duration, error) {
		once.Do(func() {
			go func() { sealed <- s.seal(context.Background(), false, nil) }()
			for deadline := time.Now().Add(time.Second); len(sealed) == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // one that finds work waits for this flush
			}
		})
	}})
	c.set(begin.Add(5 * time.Hour))
	s.Append(flow(begin, 1))
	flush(t, s)
	if err := <-sealed; err != nil {
		t.Fatal(err)
	}
	if hours := hoursOf(t, s, flowType.Name); len(hours) != 1 {
		t.Errorf("hours with rows: %v", hours)
	}
	c.set(begin.Add(6 * time.Hour))
	if err := s.seal(context.Background(), false, nil); err != nil {
		t.Fatal(err)
	}
	if hours := hoursOf(t, s, flowType.Name); len(hours) != 0 {
		t.Errorf("hours with rows after a while: %v", hours)
	}
}

// An hour with more different values than are counted has its blocks and no rollup: what is
// asked of it is counted from its events.
func TestSealTooManyValues(t *testing.T) {
	const n = 1<<20 + 1
	s := openTest(t, Options{Path: testPath(t)})
	b := event.NewBatch(flowType, n)
	for i := range int64(n) {
		b.Append(begin.UnixNano() + i)
		b.SetString(event.Command, fmt.Sprint(i))
	}
	events := s.sequence(b)
	defer s.forgetSequence(events)
	hour := hourOfType{flowType.Name, hourOf(begin.UnixNano())}
	made := s.newSealed(hour)
	if err := s.encodeSealed(made, events, n); err != nil {
		t.Fatal(err)
	}
	if made.count != nil || len(made.blocks) < n/block.MaxRows {
		t.Errorf("counted %v, %d blocks", made.count != nil, len(made.blocks))
	}
	if err := s.update(func(tx *bbolt.Tx) error { return s.putSealed(tx, made) }); err != nil {
		t.Fatal(err)
	}
	q := query.Summary{Type: flowType, Window: query.Window{Since: hourStart(hour.hour), Until: hourStart(hour.hour + 1)}}
	if got := summarise(t, s, q); got.Count != n {
		t.Errorf("%d events", got.Count)
	}
}

func randomWindow(r *rand.Rand, over time.Duration) query.Window {
	at := func() time.Time {
		offset := time.Duration(r.Int64N(int64(over)))
		if r.IntN(2) == 0 {
			offset = offset.Truncate(time.Hour)
		}
		return begin.Add(offset)
	}
	w := query.Window{Since: at(), Until: at()}
	if w.Until.Before(w.Since) {
		w.Since, w.Until = w.Until, w.Since
	}
	switch r.IntN(6) {
	case 0:
		w.Since = time.Time{}
	case 1:
		w.Until = time.Time{}
	}
	return w
}

func randomFilters(r *rand.Rand) (f query.Filters) {
	if r.IntN(3) == 0 {
		f = append(f, query.Filter{Column: "command", Values: []string{"curl", "no such"}})
	}
	switch r.IntN(5) {
	case 0:
		f = append(f, query.Filter{Column: "pid", Values: []string{fmt.Sprint(r.IntN(3000))}})
	case 1:
		f = append(f, query.Filter{Column: "address", Values: []string{fmt.Sprintf("10.0.0.%d", r.IntN(6))}})
	case 2:
		f = append(f, query.Filter{Column: "address", Values: []string{"10.0.0.0/31"}})
	}
	if r.IntN(3) == 0 {
		f = append(f, randomFilter(r))
	}
	return f
}

// answers asks many random questions, and returns what was asked and answered.
func answers(t *testing.T, s *Store, seed uint64, over time.Duration) (list []string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	for range 60 {
		q := query.Events{Types: testTypes[r.IntN(2):], Window: randomWindow(r, over), Filters: randomFilters(r), Ascending: r.IntN(2) == 0, Limit: []int{0, 1, 7, 100}[r.IntN(4)]}
		text := fmt.Sprint(q.Window, q.Filters, q.Ascending, q.Limit)
		for pages := 0; pages < 4; pages++ {
			rows := []string{}
			p, err := s.Events(context.Background(), q, func(row event.Row) error {
				rows = append(rows, string(row.AppendJSON(nil)))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprint("\n", rows)
			if q.Cursor = p.Next; p.Next == nil {
				break
			}
		}
		list = append(list, text)
	}
	for range 60 {
		q := query.Summary{Type: flowType, Window: randomWindow(r, over), Filters: randomFilters(r)}
		switch r.IntN(3) {
		case 0:
			q.Lists, q.Distinct = []string{"command", "address"}, []string{"address"}
		case 1:
			q.GroupBy = [][]string{{"command"}, {"address"}, {"pid"}, {"command", "address"}}[r.IntN(4)]
		}
		q.Interval = []time.Duration{0, time.Minute * 30, time.Hour, 5 * time.Hour, 24 * time.Hour}[r.IntN(5)]
		result, err := s.Summary(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprint(q.Window, q.Filters, q.GroupBy, q.Interval, string(text)))
	}
	return list
}

func compareAnswers(t *testing.T, when string, got, want []string) {
	t.Helper()
	wrong := 0
	for i := range want {
		if got[i] != want[i] {
			if wrong++; wrong < 3 {
				t.Errorf("%s: got\n%.3000s\nwant\n%.3000s", when, got[i], want[i])
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d of %d answers are others", when, wrong, len(want))
	}
}

// Answers are the same from memory, rows and blocks, and from all at once.
func TestAnswersBeforeAndAfterSealing(t *testing.T) {
	const over = 50 * time.Hour
	c := newClock()
	path := testPath(t)
	s := openTest(t, Options{Path: path, now: c.now})
	c.set(begin.Add(80 * time.Hour))
	r := rand.New(rand.NewPCG(3, 4))
	batches := randomEvents(r, 6000, over)
	memory := openTest(t, Options{Path: testPath(t), now: c.now})
	late := 3 * len(batches) / 4
	for i, b := range batches {
		memory.Append(b)
		if s.Append(b); i < late && i%20 == 0 {
			flush(t, s)
		}
	}
	want := answers(t, memory, 1, over)
	compareAnswers(t, "rows and memory", answers(t, s, 1, over), want)
	sealAll(t, s)
	compareAnswers(t, "blocks", answers(t, s, 1, over), want)
	if blocks, segments := blocksOf(t, s, "flow"); blocks == 0 || segments == 0 {
		t.Errorf("%d blocks in %d segments", blocks, segments)
	}
	for i, b := range randomEvents(r, 2000, over) {
		memory.Append(b)
		if s.Append(b); i%30 == 0 {
			flush(t, s)
		}
		if i == 40 {
			sealAll(t, s)
		}
	}
	want = answers(t, memory, 2, over)
	compareAnswers(t, "blocks, rows and memory", answers(t, s, 2, over), want)
	sealAll(t, s)
	compareAnswers(t, "more blocks", answers(t, s, 2, over), want)
	closeTest(t, s)
	s = openTest(t, Options{Path: path, now: c.now})
	compareAnswers(t, "after a restart", answers(t, s, 2, over), want)
}

// A page that was begun before sealing goes on after it.
func TestPagingWhileSealing(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	r := rand.New(rand.NewPCG(5, 6))
	for i, b := range randomEvents(r, 3000, 5*time.Hour) {
		if s.Append(b); i%10 == 0 {
			flush(t, s)
		}
	}
	for _, ascending := range []bool{true, false} {
		want := texts(t, s, query.Events{Types: testTypes, Ascending: ascending})
		var got []string
		q := query.Events{Types: testTypes, Ascending: ascending, Limit: 200}
		for page := 0; ; page++ {
			p, err := s.Events(context.Background(), q, func(row event.Row) error {
				got = append(got, string(row.AppendJSON(nil)))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if q.Cursor = p.Next; p.Next == nil {
				break
			}
			if due, err := s.dueHours(true); err != nil {
				t.Fatal(err)
			} else if len(due) > 0 { // one hour after the other
				if err := s.sealHour(context.Background(), due[page%len(due)], true); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("ascending %v: %d events, want %d, or another order", ascending, len(got), len(want))
		}
		s.Append(flow(begin, 1)) // for the other order
		flush(t, s)
	}
}

// Filters let the same events through whether these are rows or blocks: rows are
// looked at one by one, blocks are searched by their dictionaries.
func TestFiltersOfRowsAndBlocks(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	for i := range int64(300) {
		s.Append(flow(minute(int(i)), i))
	}
	flush(t, s)
	c.set(minute(72 * 60))
	filters := map[string]query.Filters{
		"address":              {{Column: "address", Values: []string{"10.0.0.1"}}},
		"addresses":            {{Column: "address", Values: []string{"10.0.0.1", "10.0.0.3"}}},
		"network":              {{Column: "address", Values: []string{"10.0.0.2/31"}}},
		"address and network":  {{Column: "address", Values: []string{"10.0.0.1", "10.0.0.2/31"}}},
		"pid":                  {{Column: "pid", Values: []string{"7", "299"}}},
		"command and state":    {{Column: "command", Values: []string{"curl"}}, {Column: "state", Values: []string{"closed"}}},
		"id":                   {{Column: "flow_id", Values: []string{"boot-b", "boot-c"}}},
		"number":               {{Column: "sent", Values: []string{"900"}}},
		"nothing of that kind": {{Column: "address", Values: []string{"::1"}}},
	}
	found := func() map[string][]int64 {
		all := make(map[string][]int64)
		for name, f := range filters {
			all[name] = numbers(t, s, query.Events{Types: []*event.Type{flowType}, Filters: f, Window: minutes(5, 290), Ascending: true})
		}
		return all
	}
	rows := found()
	sealAll(t, s)
	for name, blocks := range found() {
		if !slices.Equal(blocks, rows[name]) {
			t.Errorf("%s: %v in blocks, %v in rows", name, blocks, rows[name])
		}
		if (len(blocks) == 0) != (name == "nothing of that kind") {
			t.Errorf("%s: %d events", name, len(blocks))
		}
	}
}
