package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// spread makes a batch of numbered flows over some hours, many of the same time.
func spread(first, n, perHour int64) *event.Batch {
	b := event.NewBatch(flowType, int(n))
	for i := first; i < first+n; i++ {
		addFlow(b, begin.UnixNano()+i/perHour*int64(time.Hour)+i%perHour/50, i)
	}
	return b
}

// What comes in bulk goes into blocks at once, in the order in which it came,
// behind the rows that are there.
func TestBulkGoesIntoBlocks(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	c.set(begin.Add(50 * time.Hour))
	s.Append(spread(0, 100, 30_000))
	flush(t, s)
	if got := hoursOf(t, s, "flow"); len(got) != 1 {
		t.Errorf("rows in hours %v", got)
	}
	const n = 230_000
	for i := int64(100); i < n; i += 1000 {
		if err := s.AppendWait(context.Background(), spread(i, min(1000, n-i), 30_000)); err != nil {
			t.Fatal(err)
		}
		if st := s.Status(); st.Pending > bulkRows+1000 {
			t.Fatalf("%d events pending", st.Pending)
		}
	}
	if blocks, _ := blocksOf(t, s, "flow"); blocks == 0 {
		t.Error("no blocks while importing")
	}
	checkMany(t, s, n)
	flush(t, s)
	checkMany(t, s, n)
	if blocks, segments := blocksOf(t, s, "flow"); blocks != segments || segments < 7 {
		t.Errorf("%d blocks in %d segments", blocks, segments)
	}
	sealAll(t, s)
	checkMany(t, s, n)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.AppendWait(ended, flow(begin, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	closeTest(t, s)
	if err := s.AppendWait(context.Background(), flow(begin, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// The present hour becomes full blocks, and its rest stays in rows.
func TestFullBlocksOfThePresentHour(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t), now: newClock().now})
	for i := range int64(10) {
		s.Append(spread(i*15_000, 15_000, 1_000_000))
		flush(t, s)
		if err := s.Seal(context.Background(), false, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.Append(spread(150_000, 70_000, 1_000_000))
	flush(t, s)
	if blocks, _ := blocksOf(t, s, "flow"); blocks != 3 {
		t.Errorf("%d blocks of 220,000 events", blocks)
	}
	checkMany(t, s, 220_000)
}

// Rollups made under another declaration are not used, and no answer is wrong.
func TestAnswersAfterTheDeclarationChanged(t *testing.T) {
	path, c := testPath(t), newClock()
	c.set(begin.Add(30 * time.Hour))
	s := openTest(t, Options{Path: path, now: c.now})
	s.Append(spread(0, 3000, 500))
	sealAll(t, s)
	closeTest(t, s)

	other := *flowType
	other.Columns = append([]event.Column(nil), flowType.Columns[len(event.Common()):]...)
	other.Columns = append(other.Columns, event.Column{Name: "received", Kind: event.KindInt, Description: "Bytes received.", Sum: true})
	changed := event.MustType(other)
	s = openTest(t, Options{Path: path, now: c.now, Types: []*event.Type{changed}})
	ask := func() *query.SummaryResult {
		r, err := s.Summary(context.Background(), query.Summary{Type: changed, Window: query.Window{Since: begin}, GroupBy: []string{"command"}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask(); r.Count != 3000 || len(r.Groups) != 3 || number(r.Sums, "sent") == 0 || number(r.Sums, "received") != 0 {
		t.Errorf("summary is %+v", r)
	}
	b := event.NewBatch(changed, 1)
	b.Append(begin.UnixNano())
	b.SetInt(changed.MustColumn("received"), 5)
	s.Append(b)
	sealAll(t, s)
	if r := ask(); r.Count != 3001 || number(r.Sums, "received") != 5 {
		t.Errorf("summary is %+v", r)
	}
}
