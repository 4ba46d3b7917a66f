package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

var (
	flowType = event.MustType(event.Type{
		Name: "flow", Collection: "flows", Summary: "Flows.",
		Breakdown: "state", Top: []string{"command", "address"},
		Derived: []event.Derived{{
			Column: event.Column{Name: "peer", Kind: event.KindString, Description: "State and address; of those with an address."}, From: []string{"state", "address"},
			Append: func(dst []byte, row event.Row, from []int) ([]byte, bool) {
				dst, _ = row.AppendText(dst, from[0])
				return row.AppendText(append(dst, '@'), from[1])
			},
		}},
		Columns: []event.Column{
			{Name: "state", Kind: event.KindString, Description: "State.", Values: []string{"open", "closed"}},
			{Name: "address", Kind: event.KindIP, Description: "Address.", Distinct: true},
			{Name: "sent", Kind: event.KindInt, Description: "Bytes sent.", Sum: true},
			{Name: "flow_id", Kind: event.KindID, Description: "Id."},
		},
	})
	dropType = event.MustType(event.Type{
		Name: "drop", Collection: "drops", Summary: "Drops.", Breakdown: "reason",
		Columns: []event.Column{{Name: "reason", Kind: event.KindString, Description: "Reason."}},
	})
	testTypes = []*event.Type{flowType, dropType}

	colState   = flowType.MustColumn("state")
	colAddress = flowType.MustColumn("address")
	colSent    = flowType.MustColumn("sent")
	colFlowID  = flowType.MustColumn("flow_id")
)

// begin is when the time of these tests begins.
var begin = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: begin} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func testPath(t testing.TB) string { return filepath.Join(t.TempDir(), "events.db") }

// openTest opens a store that flushes only when told to. Unless the test has
// closed it, it is checked and closed at the end.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Types == nil {
		o.Types = testTypes
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = time.Hour
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTest(t, s) })
	return s
}

func closeTest(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return
	}
	if err := s.Flush(); err != nil && !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	if err := s.Check(nil); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func start(t testing.TB, s *Store, types ...string) {
	t.Helper()
	if err := s.Start(Run{BootID: "boot", Types: types}); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// flow makes a batch of one flow; its number, which is the pid, tells it from others.
func flow(at time.Time, number int64) *event.Batch {
	b := event.NewBatch(flowType, 1)
	addFlow(b, at.UnixNano(), number)
	return b
}

func addFlow(b *event.Batch, at, number int64) {
	b.Append(at)
	b.SetInt(event.PID, number)
	b.SetString(event.Command, []string{"curl", "ssh", "nc"}[number%3])
	b.SetString(colState, []string{"open", "closed"}[number%2])
	if number%4 != 0 {
		b.SetIP(colAddress, netip.AddrFrom4([4]byte{10, 0, 0, byte(number % 5)}))
	}
	if number%2 != 0 {
		b.SetInt(colSent, number*100)
		b.SetID(colFlowID, "boot", number)
	}
}

func drop(at time.Time, number int64) *event.Batch {
	b := event.NewBatch(dropType, 1)
	b.Append(at.UnixNano())
	b.SetInt(event.PID, number)
	b.SetString(dropType.MustColumn("reason"), "NO_SOCKET")
	return b
}

// numbers returns the pids of the events that a query finds.
func numbers(t testing.TB, s *Store, q query.Events) []int64 {
	t.Helper()
	list, _ := page(t, s, q)
	return list
}

func page(t testing.TB, s *Store, q query.Events) ([]int64, query.Page) {
	t.Helper()
	if q.Types == nil {
		q.Types = testTypes
	}
	list := []int64{}
	p, err := s.Events(context.Background(), q, func(r event.Row) error {
		n, _ := r.Int(event.PID)
		list = append(list, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, p
}

func wantNumbers(t testing.TB, s *Store, q query.Events, want ...int64) {
	t.Helper()
	if got := numbers(t, s, q); !slices.Equal(got, want) {
		t.Errorf("got events %v, want %v", got, want)
	}
}

func texts(t testing.TB, s *Store, q query.Events) []string {
	t.Helper()
	var list []string
	_, err := s.Events(context.Background(), q, func(r event.Row) error {
		list = append(list, string(r.AppendJSON(nil)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEventsAreThereBeforeAndAfterFlushAndRestart(t *testing.T) {
	path := testPath(t)
	s := openTest(t, Options{Path: path})
	r := rand.New(rand.NewPCG(1, 1))
	var want []string
	b := event.NewBatch(flowType, 0)
	for i := range int64(2000) {
		if addFlow(b, begin.UnixNano()+r.Int64N(int64(5*time.Hour)), i); r.IntN(50) == 0 {
			s.Append(b)
			b = event.NewBatch(flowType, 0)
		}
	}
	s.Append(b)
	q := query.Events{Types: testTypes, Ascending: true}
	want = texts(t, s, q)
	if len(want) != 2000 || !slices.IsSorted(want) {
		t.Fatalf("%d events, sorted: %v", len(want), slices.IsSorted(want))
	}
	flush(t, s)
	if got := texts(t, s, q); !slices.Equal(got, want) {
		t.Error("a flush changed the events")
	}
	closeTest(t, s)
	s = openTest(t, Options{Path: path})
	if got := texts(t, s, q); !slices.Equal(got, want) {
		t.Error("a restart changed the events")
	}
	q.Ascending = false
	slices.Reverse(want)
	if got := texts(t, s, q); !slices.Equal(got, want) {
		t.Error("newest first is not the reverse of oldest first")
	}
}

func TestLateAndFarEvents(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	b := event.NewBatch(flowType, 0)
	times := []time.Time{begin, time.Unix(0, 1), begin.Add(-48 * time.Hour), time.Unix(-3601, 0), begin.Add(1000 * time.Hour)}
	for i, at := range times {
		addFlow(b, at.UnixNano(), int64(i))
	}
	s.Append(b)
	for range 2 { // from memory and from the file
		wantNumbers(t, s, query.Events{Ascending: true}, 3, 1, 2, 0, 4)
		wantNumbers(t, s, query.Events{Ascending: true, Window: query.Window{Since: begin.Add(-49 * time.Hour), Until: begin}}, 2)
		flush(t, s)
	}
}

func TestAppendRefuses(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t), Types: []*event.Type{flowType}})
	s.Append(event.NewBatch(flowType, 0))
	s.Append(drop(begin, 1))
	wantNumbers(t, s, query.Events{})
	if lost := lostOf(s, "drop"); lost["write_failed"] != 1 {
		t.Errorf("lost is %v", lost)
	}
	closeTest(t, s)
	s.Append(flow(begin, 1))
	if err := s.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("Flush after Close: %v", err)
	}
	if _, err := s.Events(context.Background(), query.Events{Types: testTypes}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Events after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// lostOf returns what was lost of a type since the store was opened.
func lostOf(s *Store, typeName string) map[string]int64 { return typeStatus(s, typeName).Lost }

func typeStatus(s *Store, typeName string) query.TypeStatus {
	for _, t := range s.Status().Types {
		if t.Name == typeName {
			return t
		}
	}
	return query.TypeStatus{}
}

func TestLoopFlushesByItself(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t), FlushInterval: time.Millisecond})
	start(t, s, "flow")
	s.Append(flow(begin, 1))
	waitFor(t, func() bool { return s.Status().Pending == 0 })
	wantNumbers(t, s, query.Events{}, 1)
}

func TestManyPendingEventsFlushBeforeTheInterval(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t), FlushInterval: time.Hour})
	start(t, s, "flow")
	b := event.NewBatch(flowType, 0)
	for i := range int64(flushRows + 1) {
		addFlow(b, begin.UnixNano()+i%7, i)
	}
	first := event.NewBatch(flowType, 1)
	first.AppendRows(b, []int32{0})
	rest := event.NewBatch(flowType, flushRows)
	rest.AppendRows(b, allRows(b.Len())[1:])
	s.Append(rest)
	s.Append(first) // waits for a full block of its own
	waitFor(t, func() bool { return s.Status().Pending == 1 })
	if blocks, _ := blocksOf(t, s, "flow"); blocks != 1 {
		t.Errorf("%d blocks", blocks)
	}
	flush(t, s)
	if got := typeStatus(s, "flow").Events; got != flushRows+1 {
		t.Errorf("%d events in the file, want %d", got, flushRows+1)
	}
	if got := numbers(t, s, query.Events{Ascending: true}); len(got) != flushRows+1 {
		t.Errorf("%d events found, want %d", len(got), flushRows+1)
	}
}

// waitFor waits for something that another goroutine does.
func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestStatus(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"drop": time.Hour}}})
	start(t, s, "flow")
	s.Append(flow(begin.Add(-2*time.Hour), 1))
	s.Lost("flow", "map_full", time.Time{}, 2)
	flush(t, s)
	s.Append(flow(begin, 2))
	s.Lost("flow", "map_full", time.Time{}, 3)
	s.Lost("nothing", "map_full", time.Time{}, 1)
	st := s.Status()
	if st.Path != path || st.Pending != 1 || !st.LastFlush.Equal(begin) || st.LastError != "" || st.Bytes == 0 {
		t.Errorf("status is %+v", st)
	}
	got := typeStatus(s, "flow")
	if got.Events != 2 || got.Appended != 2 || !got.Recorded || got.Bytes == 0 || !got.Oldest.Equal(begin.Add(-2*time.Hour)) || !got.Newest.Equal(begin) {
		t.Errorf("flow is %+v", got)
	}
	if fmt.Sprint(got.Lost, got.LostTotal) != "map[map_full:5 write_failed:0] map[map_full:5]" {
		t.Errorf("lost %v and %v", got.Lost, got.LostTotal)
	}
	if got := typeStatus(s, "drop"); got.Events != 0 || got.Recorded || got.MaxAge != time.Hour {
		t.Errorf("drop is %+v", got)
	}
	if got := lostOf(s, "nothing"); got["map_full"] != 1 {
		t.Errorf("lost of an undeclared type: %v", got)
	}
	closeTest(t, s)
	s = openTest(t, Options{Path: path})
	if got := typeStatus(s, "flow"); fmt.Sprint(got.Lost, got.LostTotal) != "map[write_failed:0] map[map_full:5]" {
		t.Errorf("after a restart lost %v and %v", got.Lost, got.LostTotal)
	}
}
