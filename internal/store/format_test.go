package store

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// testdata/format-1.bbolt was written with this flag by the first program that
// wrote format 1. It is not to be written again: it shows that files of that
// format are still read.
var writeFixture = flag.Bool("write-fixture", false, "write testdata/format-1.bbolt anew")

const fixture = "testdata/format-1.bbolt"

// fillFixture puts one of each thing that a file can hold into a store.
func fillFixture(t *testing.T, path string) {
	c := newClock()
	s := openTest(t, Options{Path: path, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"drop": time.Hour}}})
	start(t, s, "flow", "drop")
	for i := range int64(40) {
		s.Append(flow(minute(int(i)*5), i))
	}
	s.Append(drop(minute(1), 100))
	c.set(minute(190))
	flush(t, s)
	s.Append(drop(minute(190), 101))
	s.Append(flow(minute(7), 40)) // late
	s.Lost("flow", "map_full", time.Time{}, 3)
	c.set(minute(200))
	retain(t, s)
	if err := s.SetRecorded([]string{"flow"}); err != nil {
		t.Fatal(err)
	}
	c.set(minute(210))
	closeTest(t, s)
	c.set(minute(220))
	s = openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	c.set(minute(230))
	flush(t, s)
	kill(t, s)
}

func TestFormat1IsStillRead(t *testing.T) {
	if *writeFixture {
		if err := os.RemoveAll(fixture); err != nil {
			t.Fatal(err)
		}
		fillFixture(t, fixture)
	}
	content, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatal(err)
	}
	path := testPath(t)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	// What the present program writes must read the same.
	now := filepath.Join(t.TempDir(), "now.db")
	fillFixture(t, now)

	c := newClock()
	c.set(minute(240))
	if _, err := Open(Options{Path: path, ReadOnly: true}); err == nil || !strings.Contains(err.Error(), "must be migrated to 2") {
		t.Errorf("open format 1 for reading: %v", err)
	}
	for _, readOnly := range []bool{false, true} { // the first migrates it
		old := openTest(t, Options{Path: path, now: c.now, ReadOnly: readOnly})
		present := openTest(t, Options{Path: now, now: c.now, ReadOnly: readOnly})
		q := query.Events{Types: testTypes, Ascending: true}
		got, want := texts(t, old, q), texts(t, present, q)
		if !slices.Equal(got, want) || len(got) != 42 {
			t.Errorf("%d events are\n%v\nwant\n%v", len(got), got, want)
		}
		wantGaps := "0-60 drop retention, 200-210 drop disabled, 210-220 not_running, 220-230 drop disabled, 230-240 not_running"
		cover := coverage(t, old, []*event.Type{flowType, dropType}, query.Window{Since: begin})
		if got := describe(cover); got != wantGaps || cover.Lost["flow"] != 3 {
			t.Errorf("coverage is %q, lost %v; want %q", got, cover.Lost, wantGaps)
		}
		if got := typeStatus(old, "flow"); got.Events != 41 || got.LostTotal["map_full"] != 3 {
			t.Errorf("flow is %+v", got)
		}
		if !readOnly { // and once more from blocks
			sealAll(t, old)
			if again := texts(t, old, q); !slices.Equal(again, want) {
				t.Errorf("sealed, %d events are\n%v\nwant\n%v", len(again), again, want)
			}
		}
		closeTest(t, old)
		closeTest(t, present)
	}
}
