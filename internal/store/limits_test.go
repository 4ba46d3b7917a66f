package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// A file that is full does not grow, whatever comes.
func TestRetentionBySize(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now, Limits: Limits{MaxSize: map[string]int64{"flow": 300_000}}})
	var sizes []int64
	for hour := range 120 {
		c.set(begin.Add(time.Duration(hour+1)*time.Hour + 2*time.Minute))
		b := many(0, 4000)
		for i := range b.Columns[event.Time].Ints {
			b.Columns[event.Time].Ints[i] += int64(hour) * int64(time.Hour)
		}
		s.Append(b)
		s.Append(drop(begin.Add(time.Duration(hour)*time.Hour), int64(hour)))
		if err := s.Seal(context.Background(), false, nil); err != nil {
			t.Fatal(err)
		}
		retain(t, s)
		st, err := s.Storage(true)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, st.FileBytes)
		if got := st.Types[1]; got.Name != "flow" || got.Bytes.Total() > 300_000+got.Bytes.Total()/2 && hour > 30 {
			t.Fatalf("hour %d: %+v", hour, got)
		}
	}
	if sizes[119] > sizes[60]+growStep { // it may have been just below a step
		t.Errorf("the file grew from %d to %d", sizes[60], sizes[119])
	}
	st, err := s.Storage(true)
	if err != nil {
		t.Fatal(err)
	}
	flows := st.Types[1]
	if flows.Bytes.Total() > 300_000 || flows.Events == 0 || flows.Events == 120*4000 || flows.Retention.Projected == 0 || len(flows.Hours) == 0 {
		t.Errorf("flow is %+v", flows)
	}
	if drops := st.Types[0]; drops.Events != 120 {
		t.Errorf("%d drops are kept", drops.Events)
	}
	if got := coverage(t, s, []*event.Type{flowType}, query.Window{}); !got.Oldest.Equal(flows.Oldest) {
		t.Errorf("oldest is %v, want %v", got.Oldest, flows.Oldest)
	}
}

// The limit of all types together takes the oldest, of whichever type.
func TestRetentionByTotalSize(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	c.set(begin.Add(20*time.Hour + 2*time.Minute))
	for hour := range 20 {
		b := many(0, 4000)
		for i := range b.Columns[event.Time].Ints {
			b.Columns[event.Time].Ints[i] += int64(hour) * int64(time.Hour)
		}
		s.Append(b)
		s.Append(drop(begin.Add(time.Duration(hour)*time.Hour), int64(hour)))
	}
	sealAll(t, s)
	s.SetLimits(Limits{MaxTotal: 500_000})
	retain(t, s)
	st, err := s.Storage(false)
	if err != nil {
		t.Fatal(err)
	}
	if st.UsedBytes > 500_000 || st.UsedBytes < 400_000 || st.Types[0].Events-st.Types[1].Events/4000 > 1 {
		t.Errorf("storage is %+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Options{Path: path, now: c.now, ReadOnly: true})
	if st, err = s.Storage(false); err != nil || st.UsedBytes > 500_000 || st.FreeBytes < st.FileBytes/2 {
		t.Errorf("the file that nobody writes has storage %+v (%v)", st, err)
	}
}

func TestPins(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"flow": 3 * time.Hour}}})
	start(t, s, "flow")
	for i := range int64(20) {
		s.Append(flow(minute(int(i)*30), i)) // ten hours
	}
	c.set(minute(170))
	sealAll(t, s)
	p, err := s.AddPin(minute(60), minute(100), "an incident")
	if err != nil || p.Note != "an incident" || !p.Since.Equal(minute(60)) {
		t.Fatalf("pin %+v, %v", p, err)
	}
	if _, err := s.AddPin(minute(60), minute(60), ""); err == nil {
		t.Error("an empty window is pinned")
	}
	c.set(minute(600))
	flush(t, s)
	retain(t, s)
	flows := []*event.Type{flowType}
	wantNumbers(t, s, query.Events{Types: flows, Ascending: true}, 2, 3, 14, 15, 16, 17, 18, 19)
	wantNumbers(t, s, query.Events{Types: flows}, 19, 18, 17, 16, 15, 14, 3, 2)
	if got := summarise(t, s, query.Summary{Window: minutes(0, 600)}); got.Count != 8 {
		t.Errorf("summary counts %d", got.Count)
	}
	if got := describe(coverage(t, s, flows, minutes(0, 600))); got != "0-60 retention, 100-420 retention" {
		t.Errorf("gaps are %q", got)
	}
	closeTest(t, s)
	s = openTest(t, Options{Path: path, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"flow": 3 * time.Hour}}})
	if pins, err := s.Pins(); err != nil || len(pins) != 1 || pins[0] != p {
		t.Errorf("pins are %+v, %v", pins, err)
	}
	// A later pin keeps no more than there is.
	if _, err := s.AddPin(minute(0), minute(300), "too late"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemovePin(p.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.RemovePin(p.ID); !errors.Is(err, query.ErrNoPin) {
		t.Errorf("removed twice: %v", err)
	}
	wantNumbers(t, s, query.Events{Types: flows, Ascending: true}, 2, 3, 14, 15, 16, 17, 18, 19)
	if err := s.RemovePin("2"); err != nil {
		t.Fatal(err)
	}
	retain(t, s)
	wantNumbers(t, s, query.Events{Types: flows, Ascending: true}, 14, 15, 16, 17, 18, 19)
	if hours := blocksByHour(t, s, "flow"); slices.Contains(hours, 1) {
		t.Errorf("segments left: %v", hours)
	}
}

func blocksByHour(t testing.TB, s *Store, typeName string) (hours []int) {
	t.Helper()
	if err := s.view(func(v *view) error {
		return forEachSegment(v.tx, typeName, func(g segment, _ segmentRecord) error {
			hours = append(hours, int(g.first-hourOf(begin.UnixNano())))
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return hours
}

// A damaged block is reported and skipped, and a gap.
func TestDamagedBlock(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	for i := range int64(6) {
		s.Append(flow(minute(int(i)*30), i))
	}
	c.set(minute(300))
	sealAll(t, s)
	if err := s.update(func(tx *bbolt.Tx) error { // a bit of the block of hour 1
		own := blockBucket(tx, "flow", segment{hourOf(minute(60).UnixNano()), 1}, 2)
		value := bytes.Clone(own.Get(keyBlock))
		value[len(value)/2] ^= 4
		return own.Put(keyBlock, value)
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(nil); err == nil || !strings.Contains(err.Error(), "block 2: its checksum is wrong") {
		t.Errorf("Check: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	s = openTest(t, Options{Path: path, now: c.now, ReadOnly: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	flows := []*event.Type{flowType}
	for range 2 {
		wantNumbers(t, s, query.Events{Types: flows, Ascending: true}, 0, 1, 4, 5)
	}
	got := coverage(t, s, flows, minutes(0, 300))
	if len(got.Gaps) != 1 || got.Gaps[0].Reason != query.GapDamaged || !got.Gaps[0].From.Equal(minute(60)) || !got.Gaps[0].Until.Equal(minute(90).Add(1)) || got.Complete {
		t.Errorf("coverage is %+v", got)
	}
	if got := summarise(t, s, query.Summary{Window: minutes(0, 300), GroupBy: []string{"pid"}}); got.Count != 4 {
		t.Errorf("a scan counts %d", got.Count)
	}
	if got := summarise(t, s, query.Summary{Window: minutes(0, 300)}); got.Count != 6 { // rollups still know
		t.Errorf("rollups count %d", got.Count)
	}
	// By the checksum, before anything of it is read.
	if n := strings.Count(log.String(), "is damaged"); n != 1 || !strings.Contains(log.String(), "its checksum is wrong") {
		t.Errorf("it is reported %d times:\n%s", n, log)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Quiet days become few blocks with a rollup, and take late events.
func TestDaysAreJoined(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	const over = 72 * time.Hour
	for i, b := range randomEvents(rand.New(rand.NewPCG(7, 8)), 3000, over) {
		if s.Append(b); i%20 == 0 {
			flush(t, s)
		}
	}
	flush(t, s)
	c.set(begin.Add(over))
	want := answers(t, s, 3, over)
	c.set(begin.Add(200 * time.Hour))
	if err := s.Seal(context.Background(), false, nil); err != nil {
		t.Fatal(err)
	}
	if blocks, segments := blocksOf(t, s, "flow"); segments != 6 || blocks != 6 {
		t.Errorf("%d blocks in %d segments, want one for each of 3 days, and 3 hours", blocks, segments)
	}
	c.set(begin.Add(over))
	compareAnswers(t, "joined", answers(t, s, 3, over), want)
	c.set(begin.Add(200 * time.Hour))
	s.Append(flow(begin.Add(30*time.Hour), 77))
	want = answers(t, s, 4, over)
	flush(t, s)
	if due, err := s.dueHours(false); err != nil || len(due) != 0 {
		t.Errorf("due at once: %v, %v", due, err)
	}
	c.set(begin.Add(201 * time.Hour))
	if due, err := s.dueHours(false); err != nil || len(due) != 1 {
		t.Errorf("due later: %v, %v", due, err)
	}
	if err := s.Seal(context.Background(), false, nil); err != nil {
		t.Fatal(err)
	}
	if blocks, segments := blocksOf(t, s, "flow"); segments != 7 || blocks != 7 {
		t.Errorf("%d blocks in %d segments with the late event, want 7", blocks, segments)
	}
	c.set(begin.Add(200 * time.Hour))
	compareAnswers(t, "with a late event", answers(t, s, 4, over), want)
}

func TestSnapshotAndCompact(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	path := filepath.Join(dir, "events.db")
	s := openTest(t, Options{Path: path, now: c.now})
	for i, b := range randomEvents(rand.New(rand.NewPCG(9, 9)), 4000, 30*time.Hour) {
		if s.Append(b); i == 30 {
			sealAll(t, s)
		}
	}
	want := texts(t, s, query.Events{Types: testTypes, Ascending: true})
	copied := new(bytes.Buffer)
	n, err := s.Snapshot(context.Background(), copied)
	if err != nil || n != int64(copied.Len()) {
		t.Fatalf("%d bytes of %d: %v", n, copied.Len(), err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Snapshot(ended, copied); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	closeTest(t, s)

	snapshot, small := filepath.Join(dir, "snapshot.db"), filepath.Join(dir, "small.db")
	if err := os.WriteFile(snapshot, copied.Bytes()[:n], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Compact(context.Background(), snapshot, small, nil); err != nil {
		t.Fatal(err)
	}
	if err := Compact(context.Background(), snapshot, small, nil); err == nil {
		t.Error("a file was overwritten")
	}
	for _, path := range []string{snapshot, small} {
		s := openTest(t, Options{Path: path, now: c.now})
		if got := texts(t, s, query.Events{Types: testTypes, Ascending: true}); !slices.Equal(got, want) {
			t.Errorf("%s has %d events, want %d, or others", path, len(got), len(want))
		}
		closeTest(t, s)
	}
}
