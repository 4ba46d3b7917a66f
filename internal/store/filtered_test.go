package store

import (
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// second is a time, in seconds after begin.
func second(n int) time.Time { return begin.Add(time.Duration(n) * time.Second) }

// filter counts events as left out in a span, and sets the clock to its end.
func filter(s *Store, c *clock, kind string, from, until int, n int64) {
	c.set(second(until))
	s.Filtered("flow", kind, second(from), n)
}

// wantFiltered compares what was left out in windows, given in seconds.
func wantFiltered(t testing.TB, s *Store, want map[[2]int]string) {
	t.Helper()
	for window, text := range want {
		c := coverage(t, s, testTypes, query.Window{Since: second(window[0]), Until: second(window[1])})
		if got := fmt.Sprint(c.Filtered); got != text {
			t.Errorf("%d s to %d s: filtered %v, want %v", window[0], window[1], got, text)
		}
		if !c.Complete {
			t.Errorf("%d s to %d s: not complete: %+v", window[0], window[1], c)
		}
	}
}

func TestFiltered(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow", "drop")
	filter(s, c, "excluded", 10, 11, 3)
	filter(s, c, "excluded", 20, 21, 2)
	filter(s, c, "excluded", 21, 22, 0)
	filter(s, c, "excluded", 59, 60, 5) // in either minute
	s.Append(flow(c.now(), 1))
	flush(t, s)
	filter(s, c, "excluded", 70, 71, 7)
	filter(s, c, "rule", 71, 72, 1)
	s.Append(flow(c.now(), 2))
	flush(t, s)
	filter(s, c, "excluded", 73, 74, 8)     // the same minute, in another part
	filter(s, c, "excluded", 240, 500, 100) // nobody read for a while
	filter(s, c, "excluded", 3590, 3610, 10)
	s.Filtered("drop", "rule", c.now(), 4)
	c.set(second(4000))
	want := map[[2]int]string{
		{0, 60}:      "map[flow:map[excluded:10]]",
		{15, 16}:     "map[flow:map[excluded:10]]", // which part of the minute is not known
		{60, 61}:     "map[flow:map[excluded:20 rule:1]]",
		{0, 120}:     "map[flow:map[excluded:25 rule:1]]",
		{120, 180}:   "map[]",
		{120, 241}:   "map[flow:map[excluded:100]]",
		{300, 301}:   "map[flow:map[excluded:100]]",
		{530, 535}:   "map[flow:map[excluded:100]]",
		{540, 3000}:  "map[]",
		{3550, 3551}: "map[flow:map[excluded:10]]",
		{3620, 3630}: "map[drop:map[rule:4] flow:map[excluded:10]]",
		{0, 4000}:    "map[drop:map[rule:4] flow:map[excluded:135 rule:1]]",
	}
	wantFiltered(t, s, want) // some of it in memory
	flush(t, s)
	wantFiltered(t, s, want)
	if got := coverage(t, s, []*event.Type{dropType}, query.Window{}); fmt.Sprint(got.Filtered) != "map[drop:map[rule:4]]" {
		t.Errorf("what was left out of another type counts: %v", got.Filtered)
	}
	copied := path + ".copy"
	if err := s.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(copied, 0o600) }); err != nil {
		t.Fatal(err)
	}
	wantFiltered(t, openTest(t, Options{Path: copied, now: c.now, ReadOnly: true}), want)
	kill(t, s)
	s = openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow", "drop")
	wantFiltered(t, s, want)
}

// A count is not worth a commit: it goes with the events, or the sign of life.
func TestFilteredWaitsForAFlush(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	start(t, s, "flow", "drop")
	stored := func() (is bool) {
		if err := s.db.View(func(tx *bbolt.Tx) error {
			is = tx.Bucket(bucketCoverage).Bucket(bucketFiltered) != nil
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return is
	}
	filter(s, c, "excluded", 1, 2, 3)
	for _, step := range []struct {
		second int
		want   bool
	}{{5, false}, {29, false}, {30, true}} {
		c.set(second(step.second))
		flush(t, s)
		if got := stored(); got != step.want {
			t.Errorf("at %d s it is in the file: %v", step.second, got)
		}
	}
	wantFiltered(t, s, map[[2]int]string{{0, 30}: "map[flow:map[excluded:3]]"})
}

// A clock that is set back, or was never set, leaves sums right.
func TestFilteredWithAWrongClock(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	filter(s, c, "excluded", 500, 100, 3)
	c.set(time.Unix(-5000, 0))
	s.Filtered("flow", "excluded", time.Unix(-6000, 0), 4)
	c.set(second(1000))
	s.Append(flow(c.now(), 1))
	for range 2 {
		got := coverage(t, s, testTypes, query.Window{Since: time.Unix(0, 0)})
		if got.Filtered["flow"]["excluded"] != 7 {
			t.Errorf("filtered %v", got.Filtered)
		}
		got = coverage(t, s, testTypes, query.Window{Since: second(200), Until: second(300)})
		if got.Filtered["flow"]["excluded"] != 3 {
			t.Errorf("in the span of the clock: filtered %v", got.Filtered)
		}
		flush(t, s)
	}
}

// Counts go when their time is not shown any more, those of a pinned time stay,
// and so do losses; also where no event was recorded.
func TestCountsAreRemoved(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"flow": 3 * time.Hour}}})
	start(t, s, "flow")
	pin, err := s.AddPin(minute(0), minute(59), "")
	if err == nil {
		_, err = s.AddPin(minute(3*60), minute(3*60+59), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	for hour := range 6 {
		at := minute(60*hour + 30)
		c.set(at)
		flush(t, s) // losses are since the last one
		s.Filtered("flow", "excluded", at, 1)
		s.Filtered("drop", "rule", at, 1) // kept for ever
		s.Lost("flow", "map_full", at, 1)
		flush(t, s)
	}
	left := func() string {
		t.Helper()
		var filtered, lost int
		if err := s.db.View(func(tx *bbolt.Tx) error {
			filtered, lost = tx.Bucket(bucketCoverage).Bucket(bucketFiltered).Stats().KeyN, lossesOf(tx, "flow").Stats().KeyN
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(filtered, " ", lost)
	}
	c.set(minute(7 * 60)) // what is older than 4:00 goes, but for the hours 0 and 3
	retain(t, s)
	if got := left(); got != "10 4" {
		t.Errorf("filtered and losses left: %s", got)
	}
	if got := coverage(t, s, []*event.Type{flowType}, minutes(0, 59)); got.Lost["flow"] != 1 || got.Filtered["flow"]["excluded"] != 1 {
		t.Errorf("of the pinned hour: %+v", got)
	}
	if err := s.RemovePin(pin.ID); err != nil {
		t.Fatal(err)
	}
	retain(t, s)
	if got := left(); got != "9 3" {
		t.Errorf("filtered and losses left without the pin: %s", got)
	}
}

func FuzzFiltered(f *testing.F) {
	hour := hourOf(begin.UnixNano())
	f.Add(hour, appendFiltered(nil, map[minuteSpan]int64{
		{hour * 60, hour * 60}: 1, {hour*60 + 58, hour*60 + 59}: math.MaxInt64, {0, hour*60 + 59}: 300,
	}))
	f.Fuzz(func(t *testing.T, hour int64, value []byte) {
		counts := make(map[minuteSpan]int64)
		key := append(putInt(hour), "flow/excluded"...)
		if forEachFiltered(key, value, func(k filteredKey, n int64) { counts[k.minuteSpan] = n }) != nil {
			return
		}
		again := make(map[minuteSpan]int64)
		err := forEachFiltered(key, appendFiltered(nil, counts), func(k filteredKey, n int64) { again[k.minuteSpan] = n })
		if err != nil || !maps.Equal(counts, again) {
			t.Errorf("%v became %v, %v", counts, again, err)
		}
	})
}
