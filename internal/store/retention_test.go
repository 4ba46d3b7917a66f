package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

func hoursOf(t testing.TB, s *Store, typeName string) (hours []int) {
	t.Helper()
	err := s.view(func(v *view) error {
		return forEachHour(v.tx, typeName, func(hour int64, _ hourRecord) error {
			hours = append(hours, int(hour-hourOf(begin.UnixNano())))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return hours
}

// unitsOf returns the hours that hold something, be it rows or blocks: which of
// the two depends on when the loop that seals looks.
func unitsOf(t testing.TB, s *Store, typeName string) (hours []int) {
	t.Helper()
	err := s.view(func(v *view) error {
		units, err := v.units(typeName)
		for _, u := range units {
			hours = append(hours, int(u.first-hourOf(begin.UnixNano())))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hours
}

func retain(t testing.TB, s *Store) {
	t.Helper()
	if err := s.retain(); err != nil {
		t.Fatal(err)
	}
}

func TestRetention(t *testing.T) {
	path, c := testPath(t), newClock()
	options := Options{Path: path, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"flow": 3 * time.Hour}}}
	s := openTest(t, options)
	start(t, s, "flow", "drop")
	for i := range int64(12) { // every half hour for six hours
		s.Append(flow(minute(int(i)*30), i))
		s.Append(drop(minute(int(i)*30), i))
	}
	s.Lost("flow", "map_full", time.Time{}, 1)
	c.set(minute(1))
	flush(t, s)
	c.set(minute(345)) // 5:45: what is older than 2:45 goes
	retain(t, s)

	flows := []*event.Type{flowType}
	if got := unitsOf(t, s, "flow"); !slices.Equal(got, []int{3, 4, 5}) { // the last of hour 2 was at 2:30
		t.Errorf("hours of flow: %v", got)
	}
	if got := unitsOf(t, s, "drop"); len(got) != 6 {
		t.Errorf("hours of drop, which are kept for ever: %v", got)
	}
	wantNumbers(t, s, query.Events{Types: flows, Ascending: true}, 6, 7, 8, 9, 10, 11)
	if got := summarise(t, s, query.Summary{Window: minutes(0, 400)}); got.Count != 6 {
		t.Errorf("summary counts %d", got.Count)
	}
	got := coverage(t, s, flows, minutes(60, 300))
	if describe(got) != "60-165 retention" || !got.Oldest.Equal(minute(165)) || len(got.Lost) > 0 {
		t.Errorf("coverage is %+v", got)
	}
	if got := describe(coverage(t, s, flows, minutes(-60, 300))); got != "-60-0 not_running, 0-165 retention" {
		t.Errorf("gaps are %q", got)
	}
	if got := describe(coverage(t, s, flows, minutes(170, 300))); got != "" {
		t.Errorf("gaps of what is kept are %q", got)
	}
	if got := coverage(t, s, flows, query.Window{}); !got.From.Equal(minute(165)) || describe(got) != "" {
		t.Errorf("open window: %+v", got)
	}
	if got := describe(coverage(t, s, testTypes, minutes(160, 170))); got != "160-165 flow retention" {
		t.Errorf("gaps of both types are %q", got)
	}
	if got := typeStatus(s, "flow").LostTotal["map_full"]; got != 1 {
		t.Errorf("total of losses is %d after retention", got)
	}

	// What is gone stays a gap when more is kept from now on.
	closeTest(t, s)
	options.Limits.MaxAge = nil
	s = openTest(t, options)
	if got := describe(coverage(t, s, flows, minutes(60, 300))); got != "60-165 retention" {
		t.Errorf("gaps without retention are %q", got)
	}
}

// Runs of which nothing is left become one, and coverage says the same.
func TestRetentionJoinsRuns(t *testing.T) {
	path, c := testPath(t), newClock()
	limits := Limits{MaxAge: map[string]time.Duration{"flow": 3 * time.Hour, "drop": 3 * time.Hour}}
	for i := range 30 { // one every ten minutes
		c.set(minute(10 * i))
		s := openTest(t, Options{Path: path, now: c.now, Limits: limits})
		start(t, s, "flow", "drop")
		s.Append(flow(minute(10*i), int64(i)))
		c.set(minute(10*i + 5))
		closeTest(t, s)
	}
	s := openTest(t, Options{Path: path, now: c.now, Limits: limits})
	retain(t, s)
	runs := 0
	err := s.db.View(func(tx *bbolt.Tx) error {
		return forEachRun(tx, func([]byte, *run) error {
			runs++
			return nil
		})
	})
	if err != nil || runs < 18 || runs > 25 { // three hours of 30 runs in five
		t.Errorf("%d runs are left, %v", runs, err)
	}
	if got := describe(coverage(t, s, testTypes, minutes(-60, 290))); !strings.HasPrefix(got, "-60-0 not_running, 0-105 retention, 105-110 not_running") {
		t.Errorf("gaps are %q", got)
	}
}

// A short max age holds to the minute: older events in the present hour are
// hidden, and the hour goes when its last event is too old.
func TestShortRetention(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"flow": 10 * time.Minute}}})
	start(t, s, "flow")
	for i := range int64(4) {
		s.Append(flow(minute(int(i)*5), i))
		if i == 2 {
			flush(t, s)
		}
	}
	flows := []*event.Type{flowType}
	for _, step := range []struct {
		minute int
		want   []int64
	}{{10, []int64{0, 1, 2, 3}}, {11, []int64{1, 2, 3}}, {16, []int64{2, 3}}, {21, []int64{3}}, {26, []int64{}}} {
		c.set(minute(step.minute))
		retain(t, s)
		if got := numbers(t, s, query.Events{Types: flows, Ascending: true}); !slices.Equal(got, step.want) {
			t.Errorf("at minute %d there are %v, want %v", step.minute, got, step.want)
		}
		if got := summarise(t, s, query.Summary{Window: minutes(0, 30)}); got.Count != int64(len(step.want)) {
			t.Errorf("at minute %d the summary counts %d", step.minute, got.Count)
		}
	}
	if got := hoursOf(t, s, "flow"); len(got) != 0 {
		t.Errorf("hours are left: %v", got)
	}
	if got := describe(coverage(t, s, flows, minutes(0, open))); got != "0-16 retention" {
		t.Errorf("gaps are %q", got)
	}
	s.Append(flow(minute(25), 9)) // its hour was removed before
	flush(t, s)
	wantNumbers(t, s, query.Events{Types: flows}, 9)
}

func TestRetentionRunsByItself(t *testing.T) {
	path := testPath(t)
	s := openTest(t, Options{Path: path})
	s.Append(flow(time.Now().Add(-3*time.Hour), 1))
	s.Append(flow(time.Now(), 2))
	closeTest(t, s)
	s = openTest(t, Options{Path: path, FlushInterval: time.Millisecond, Limits: Limits{MaxAge: map[string]time.Duration{"flow": time.Hour}}})
	start(t, s)
	waitFor(t, func() bool { return typeStatus(s, "flow").Events == 1 })
}

func TestRetentionInterval(t *testing.T) {
	for maxAge, want := range map[time.Duration]time.Duration{0: time.Minute, time.Hour: time.Minute, 10 * time.Second: 5 * time.Second} {
		l := Limits{MaxAge: map[string]time.Duration{"flow": maxAge}}
		if got := l.interval(); got != want {
			t.Errorf("max age %v: every %v, want %v", maxAge, got, want)
		}
	}
}
