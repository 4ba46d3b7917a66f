package store

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// exported are the pieces of an export.
type exported struct {
	events map[string][]string // by type, as they are printed
	blocks int                 // that were handed out as they are
	pieces int
}

func (e *exported) add(t *testing.T, p query.Piece) {
	t.Helper()
	b := p.Batch
	if e.pieces++; b == nil {
		e.blocks++
		opened, err := block.Open(p.Block, p.Type)
		if err == nil {
			b, err = opened.Read(allColumns(p.Type))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() != p.Rows || p.Rows > block.MaxRows || b.Len() == 0 {
		t.Errorf("piece of %d events says %d", b.Len(), p.Rows)
	}
	for i := range b.Len() {
		e.events[p.Type.Name] = append(e.events[p.Type.Name], string(event.Row{Batch: b, Index: i}.AppendJSON(nil)))
	}
}

func export(t *testing.T, s *Store, q query.Events) exported {
	t.Helper()
	e := exported{events: map[string][]string{}}
	err := s.Pieces(context.Background(), q, func(p query.Piece) error {
		e.add(t, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// checkExport compares an export with what Events says, and returns it.
func checkExport(t *testing.T, when string, s *Store, q query.Events) exported {
	t.Helper()
	got := export(t, s, q)
	for _, typ := range q.Types {
		q.Types, q.Ascending = []*event.Type{typ}, true
		if want := texts(t, s, q); !slices.Equal(got.events[typ.Name], want) {
			t.Errorf("%s: %s: %d events exported, want %d, or another order (%v, %v)", when, typ.Name, len(got.events[typ.Name]), len(want), q.Window, q.Filters)
		}
	}
	return got
}

// Whatever is asked for, and wherever it is, an export has the events that
// Events gives, in the same order.
func TestExport(t *testing.T) {
	const over = 80 * time.Hour
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	c.set(begin.Add(over))
	r := rand.New(rand.NewPCG(11, 12))
	check := func(when string) (blocks int) {
		t.Helper()
		for range 30 {
			checkExport(t, when, s, query.Events{Types: testTypes, Window: randomWindow(r, over), Filters: randomFilters(r)})
		}
		return checkExport(t, when, s, query.Events{Types: testTypes}).blocks
	}
	add := func(n int, over time.Duration) {
		for i, b := range randomEvents(r, n, over) {
			if s.Append(b); i%20 == 0 {
				flush(t, s)
			}
		}
	}
	add(4000, over)
	if n := check("rows and memory"); n != 0 {
		t.Errorf("%d blocks", n)
	}
	sealAll(t, s)
	sealed := check("blocks")
	if blocks, _ := blocksOf(t, s, "flow"); sealed < blocks {
		t.Errorf("%d blocks are handed out as they are, %d of flows are there", sealed, blocks)
	}
	add(500, over/4) // late
	if n := check("late rows"); n == 0 || n >= sealed {
		t.Errorf("%d of %d blocks", n, sealed)
	}
	sealAll(t, s)
	check("late blocks")
	c.set(begin.Add(200 * time.Hour))
	if err := s.Seal(context.Background(), false, nil); err != nil {
		t.Fatal(err)
	}
	if n := check("joined days"); n == 0 {
		t.Error("no block is handed out as it is")
	}
	add(200, over)
	check("late events of joined days")
}

// What is hidden by retention is not exported, what is pinned is.
func TestExportWhatIsVisible(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	c.set(begin.Add(10 * time.Hour))
	for i := range int64(500) {
		s.Append(flow(begin.Add(time.Duration(i)*time.Minute), i))
	}
	sealAll(t, s)
	if _, err := s.AddPin(begin.Add(90*time.Minute), begin.Add(4*time.Hour), ""); err != nil {
		t.Fatal(err)
	}
	all := query.Events{Types: []*event.Type{flowType}}
	s.SetLimits(Limits{MaxAge: map[string]time.Duration{"flow": 4*time.Hour + 30*time.Minute}})
	if e := checkExport(t, "hidden", s, all); e.blocks != 2+3 {
		t.Errorf("%d blocks, want those of hours 2, 3 and 6 to 8", e.blocks)
	}
	if err := s.retain(); err != nil {
		t.Fatal(err)
	}
	checkExport(t, "removed", s, all)
}

// A block that was written under another declaration is decoded.
func TestExportOfAnotherDeclaration(t *testing.T) {
	path, c := testPath(t), newClock()
	c.set(begin.Add(30 * time.Hour))
	s := openTest(t, Options{Path: path, now: c.now})
	s.Append(spread(0, 3000, 500))
	sealAll(t, s)
	want := checkExport(t, "before", s, query.Events{Types: testTypes})
	closeTest(t, s)
	for name, test := range map[string]struct {
		change func(columns []event.Column) []event.Column
		whole  bool
	}{
		"a column more": {func(columns []event.Column) []event.Column {
			return append(columns, event.Column{Name: "received", Kind: event.KindInt, Description: "Bytes received."})
		}, true},
		"a column less": {func(columns []event.Column) []event.Column { return columns[:3] }, false},
		"another kind": {func(columns []event.Column) []event.Column {
			columns[2].Kind, columns[2].Sum = event.KindString, false
			return columns
		}, false},
	} {
		other := *flowType
		other.Columns = test.change(slices.Clone(flowType.Columns[len(event.Common()):]))
		changed := event.MustType(other)
		s := openTest(t, Options{Path: path, now: c.now, Types: []*event.Type{changed}})
		got := checkExport(t, name, s, query.Events{Types: []*event.Type{changed}})
		if test.whole != (got.blocks == want.blocks) || !test.whole && got.blocks != 0 || len(got.events["flow"]) != 3000 {
			t.Errorf("%s: %d of %d blocks, %d events", name, got.blocks, want.blocks, len(got.events["flow"]))
		}
		closeTest(t, s)
	}
}

// A damaged block is left out, and noted.
func TestExportOfADamagedBlock(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	for i := range int64(6) {
		s.Append(flow(minute(int(i)*30), i))
	}
	c.set(minute(300))
	sealAll(t, s)
	if err := s.update(func(tx *bbolt.Tx) error {
		own := blockBucket(tx, "flow", segment{hourOf(minute(60).UnixNano()), 1}, 2)
		value := bytes.Clone(own.Get(keyBlock))
		value[len(value)/2] ^= 4
		return own.Put(keyBlock, value)
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Options{Path: path, now: c.now, ReadOnly: true})
	got := export(t, s, query.Events{Types: []*event.Type{flowType}, Window: minutes(0, 300)})
	if got.blocks != 2 || len(got.events["flow"]) != 4 {
		t.Errorf("%d blocks, %d events", got.blocks, len(got.events["flow"]))
	}
	want := []query.Gap{{From: minute(60), Until: minute(90).Add(1), Type: "flow", Reason: query.GapDamaged}}
	if got := s.Damaged(); !slices.Equal(got, want) {
		t.Errorf("damaged is %+v, want %+v", got, want)
	}
	if err := s.Close(); err != nil { // Check would tell of the damage
		t.Fatal(err)
	}
}

// An export of a store that goes on has each event that was there at the
// beginning once, and hinders nobody: yield can itself write.
func TestExportOfAGrowingStore(t *testing.T) {
	const over = 100 * time.Hour
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	c.set(begin.Add(over))
	r := rand.New(rand.NewPCG(13, 14))
	for i, b := range randomEvents(r, 6000, over) {
		if s.Append(b); i%30 == 0 {
			flush(t, s)
		}
		if i == 60 {
			sealAll(t, s)
		}
	}
	want := map[string][]string{}
	for _, typ := range testTypes {
		want[typ.Name] = texts(t, s, query.Events{Types: []*event.Type{typ}, Ascending: true})
	}
	later := int64(1_000_000) // the numbers of events that come meanwhile
	got := exported{events: map[string][]string{}}
	err := s.Pieces(context.Background(), query.Events{Types: testTypes}, func(p query.Piece) error {
		got.add(t, p)
		switch got.pieces {
		case 2:
			flush(t, s)
		case 4:
			sealAll(t, s)
		case 6:
			c.set(begin.Add(300 * time.Hour))
			return s.Seal(context.Background(), false, nil) // joins days
		case 3, 5, 8:
			s.Append(flow(begin.Add(time.Duration(r.Int64N(int64(over)))), later))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, events := range got.events {
		if !slices.IsSortedFunc(events, func(a, b string) int { return strings.Compare(timeOf(t, a), timeOf(t, b)) }) {
			t.Errorf("%s: not in order of time", name)
		}
		events = slices.DeleteFunc(events, func(text string) bool { return strings.Contains(text, `"pid":1000000`) })
		slices.Sort(events)
		if slices.Sort(want[name]); !slices.Equal(events, want[name]) {
			t.Errorf("%s: %d events, want %d, or others", name, len(events), len(want[name]))
		}
	}
	if got.blocks == 0 {
		t.Error("no block is handed out as it is")
	}
}

// timeOf returns the time of an event with all digits.
func timeOf(t *testing.T, text string) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, strings.Split(text, `"`)[3])
	if err != nil {
		t.Fatal(err)
	}
	return at.Format("2006-01-02T15:04:05.000000000")
}

// The blocks of a day are joined while it is exported.
func TestExportOfADayThatIsJoined(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	c.set(begin.Add(10 * time.Hour))
	s.Append(spread(0, 900, 100))
	sealAll(t, s)
	want := texts(t, s, query.Events{Types: []*event.Type{flowType}, Ascending: true})
	got := exported{events: map[string][]string{}}
	err := s.Pieces(context.Background(), query.Events{Types: []*event.Type{flowType}}, func(p query.Piece) error {
		if got.add(t, p); got.pieces > 2 {
			return nil
		}
		c.set(begin.Add(100 * time.Hour))
		return s.Seal(context.Background(), false, nil)
	})
	if err != nil || !slices.Equal(got.events["flow"], want) || got.blocks != 1 || got.pieces != 2 {
		t.Errorf("%d events in %d pieces, %d of them blocks; %v", len(got.events["flow"]), got.pieces, got.blocks, err)
	}
}

// What is not a block is handed out in pieces too, also in the midst of one time.
func TestExportInPieces(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t), now: newClock().now})
	for i := range int64(4) {
		s.Append(spread(i*40_000, 40_000, 1_000_000)) // fifty of each time
		flush(t, s)
	}
	if e := checkExport(t, "rows", s, query.Events{Types: testTypes}); e.pieces != 3 {
		t.Errorf("%d pieces", e.pieces)
	}
}

func TestExportEnds(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	s.Append(flow(at(1), 1))
	sealAll(t, s)
	s.Append(flow(at(2), 2))
	full := errors.New("disk is full")
	if err := s.Pieces(context.Background(), query.Events{Types: testTypes}, func(query.Piece) error { return full }); !errors.Is(err, full) {
		t.Errorf("error is %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Pieces(ended, query.Events{Types: testTypes}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}
