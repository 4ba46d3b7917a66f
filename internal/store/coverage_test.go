package store

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// minute is a time as these tests write it down: minutes after begin.
func minute(n int) time.Time { return begin.Add(time.Duration(n) * time.Minute) }

func minutes(from, until int) query.Window {
	w := query.Window{}
	if from != open {
		w.Since = minute(from)
	}
	if until != open {
		w.Until = minute(until)
	}
	return w
}

// open is the end of a window that has none.
const open = -1 << 20

func coverage(t testing.TB, s *Store, types []*event.Type, w query.Window) query.Coverage {
	t.Helper()
	_, p := page(t, s, query.Events{Types: types, Window: w})
	return p.Coverage
}

// describe writes gaps as "from-until type reason", in minutes.
func describe(c query.Coverage) string {
	var gaps []string
	for _, g := range c.Gaps {
		from, until := g.From.Sub(begin).Minutes(), g.Until.Sub(begin).Minutes()
		gaps = append(gaps, strings.Join(strings.Fields(fmt.Sprintf("%v-%v %s %s", from, until, g.Type, g.Reason)), " "))
	}
	return strings.Join(gaps, ", ")
}

// kill gives up a store as SIGKILL would: nothing more is written. (The lock
// goes with the file; crash_test.go does it with a real process.)
func kill(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.stopped.Wait()
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
}

// history makes a file with all that can happen, and returns it at minute 100:
//
//	10-20  flow and drop are recorded
//	20-30  not running
//	30-40  flow; drop from 35
//	40-50  crashed at 40, found out at 50
//	50-    flow until 60, drop until 55
func history(t testing.TB) *Store {
	t.Helper()
	path, c := testPath(t), newClock()
	var s *Store
	startAt := func(n int, types ...string) {
		c.set(minute(n))
		s = openTest(t, Options{Path: path, now: c.now})
		start(t, s, types...)
	}
	record := func(n int, types ...string) {
		c.set(minute(n))
		if err := s.SetRecorded(types); err != nil {
			t.Fatal(err)
		}
	}
	startAt(10, "flow", "drop")
	c.set(minute(20))
	closeTest(t, s)
	startAt(30, "flow")
	record(35, "flow", "drop")
	c.set(minute(40))
	flush(t, s)
	c.set(minute(41))
	kill(t, s)
	startAt(50, "flow", "drop")
	record(55, "flow")
	record(60)
	c.set(minute(100))
	return s
}

func TestGaps(t *testing.T) {
	s := history(t)
	flows, drops := []*event.Type{flowType}, []*event.Type{dropType}
	tests := []struct {
		types       []*event.Type
		from, until int
		want        string
	}{
		{flows, 10, 20, ""},
		{flows, 12, 13, ""},
		{flows, 51, 55, ""},
		{flows, 0, 15, "0-10 not_running"},
		{flows, 0, 5, "0-5 not_running"},
		{flows, 15, 35, "20-30 not_running"},
		{flows, 22, 28, "22-28 not_running"},
		{flows, 39, 52, "40-50 crashed"},
		{flows, 15, 65, "20-30 not_running, 40-50 crashed, 60-65 disabled"},
		{drops, 15, 65, "20-30 not_running, 30-35 disabled, 40-50 crashed, 55-65 disabled"},
		{testTypes, 15, 65, "20-30 not_running, 30-35 drop disabled, 40-50 crashed, 55-60 drop disabled, 60-65 disabled"},
		{testTypes, 62, 64, "62-64 disabled"},
		{testTypes, 32, 33, "32-33 drop disabled"},
		{flows, open, 25, "20-25 not_running"},
		{drops, open, 32, "20-30 not_running, 30-32 disabled"},
		{flows, 55, open, "60-100 disabled"},
		{flows, 98, 200, "98-100 disabled, 100-200 not_yet"},
		{flows, 90, 90, ""},
		{flows, 150, 200, "150-200 not_yet"},
	}
	for _, test := range tests {
		c := coverage(t, s, test.types, minutes(test.from, test.until))
		name := fmt.Sprint(len(test.types), " types, first ", test.types[0].Name, ", ", test.from, " to ", test.until)
		if got := describe(c); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		if c.Complete != (test.want == "") {
			t.Errorf("%s: complete is %v", name, c.Complete)
		}
		if !c.Oldest.Equal(minute(10)) {
			t.Errorf("%s: oldest is %v", name, c.Oldest)
		}
		if c.Gaps == nil || c.Lost == nil {
			t.Errorf("%s: nil gaps or losses, which print as null", name)
		}
	}
}

func TestCoverageWindow(t *testing.T) {
	s := history(t)
	c := coverage(t, s, testTypes, query.Window{})
	if !c.From.Equal(minute(10)) || !c.Until.Equal(minute(100)) {
		t.Errorf("open window is %v to %v", c.From, c.Until)
	}
	c = coverage(t, s, testTypes, minutes(15, 200))
	if !c.From.Equal(minute(15)) || !c.Until.Equal(minute(200)) {
		t.Errorf("window into the time to come is %v to %v", c.From, c.Until)
	}
}

func TestCoverageOfNothing(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	got := coverage(t, s, testTypes, query.Window{})
	if got.Complete || !got.Oldest.IsZero() || !got.From.Equal(begin) || !got.Until.Equal(begin) {
		t.Errorf("coverage is %+v", got)
	}
	c.set(minute(9))
	if got := describe(coverage(t, s, testTypes, minutes(0, 5))); got != "0-5 not_running" {
		t.Errorf("gaps are %q", got)
	}
}

// A copy says nothing about what came after it, and does not call its run crashed.
func TestCoverageOfACopy(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	c.set(minute(10))
	flush(t, s)
	copied := path + ".copy"
	if err := s.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(copied, 0o600) }); err != nil {
		t.Fatal(err)
	}
	c.set(minute(20))
	s = openTest(t, Options{Path: copied, now: c.now, ReadOnly: true})
	if got := describe(coverage(t, s, []*event.Type{flowType}, minutes(5, open))); got != "10-20 not_running" {
		t.Errorf("gaps are %q", got)
	}
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}
}

// The clock can be set back between runs; the gaps stay in order.
func TestCoverageWhenTheClockIsSetBack(t *testing.T) {
	path, c := testPath(t), newClock()
	for _, run := range [][2]int{{10, 30}, {20, 40}} {
		c.set(minute(run[0]))
		s := openTest(t, Options{Path: path, now: c.now})
		start(t, s, "flow")
		c.set(minute(run[1]))
		closeTest(t, s)
	}
	c.set(minute(50))
	s := openTest(t, Options{Path: path, now: c.now})
	if got := describe(coverage(t, s, []*event.Type{flowType}, minutes(0, 50))); got != "0-10 not_running, 40-50 not_running" {
		t.Errorf("gaps are %q", got)
	}
}

func TestSignsOfLife(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	alive := func() time.Time {
		var runs []*run
		err := s.view(func(v *view) (err error) {
			v.present = nil // what is in the file
			runs, err = v.runs()
			return err
		})
		if err != nil || len(runs) != 1 {
			t.Fatalf("%d runs, %v", len(runs), err)
		}
		return runs[0].Alive
	}
	for _, step := range []struct {
		seconds int
		append  bool
		want    int
	}{{10, false, 0}, {29, false, 0}, {30, false, 30}, {31, true, 31}, {60, false, 31}, {61, false, 61}} {
		c.set(begin.Add(time.Duration(step.seconds) * time.Second))
		if step.append {
			s.Append(flow(c.now(), 1))
		}
		flush(t, s)
		if got := alive(); !got.Equal(begin.Add(time.Duration(step.want) * time.Second)) {
			t.Errorf("after %d s the last sign of life is %v", step.seconds, got)
		}
	}
}

func TestLosses(t *testing.T) {
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow", "drop")
	c.set(minute(10))
	flush(t, s)
	s.Lost("flow", "map_full", time.Time{}, 3)
	s.Lost("flow", "map_full", time.Time{}, 0)
	s.Lost("flow", "map_full", time.Time{}, -1)
	s.Lost("flow", "ring_buffer_full", time.Time{}, 2)
	c.set(minute(20))
	flush(t, s) // 5 flows lost between 10 and 20
	c.set(minute(30))
	flush(t, s)
	s.Lost("drop", "map_full", time.Time{}, 7)
	c.set(minute(40))

	tests := []struct {
		from, until int
		want        string
	}{
		{0, 10, "map[]"},
		{0, 11, "map[flow:5]"},
		{12, 13, "map[flow:5]"},
		{21, 30, "map[]"},
		{21, 31, "map[drop:7]"},
		{0, 40, "map[drop:7 flow:5]"},
		{open, open, "map[drop:7 flow:5]"},
	}
	for range 3 { // in memory, in the file, after a restart
		for _, test := range tests {
			got := coverage(t, s, testTypes, minutes(test.from, test.until))
			if fmt.Sprint(got.Lost) != test.want || got.Complete != (test.want == "map[]") {
				t.Errorf("%d to %d: lost %v, complete %v; want %v", test.from, test.until, got.Lost, got.Complete, test.want)
			}
		}
		if got := coverage(t, s, testTypes[:1], minutes(21, 40)); len(got.Lost) > 0 || !got.Complete {
			t.Errorf("losses of another type count: %+v", got)
		}
		if s.Status().Pending == 0 && s.lastFlush.Equal(minute(40)) {
			closeTest(t, s)
			s = openTest(t, Options{Path: path, now: c.now})
			start(t, s, "flow", "drop")
		}
		flush(t, s)
	}
}

func TestRunsInTheFile(t *testing.T) {
	s := history(t)
	if err := s.Start(Run{}); err == nil {
		t.Error("a second Start is no error")
	}
	var runs []*run
	err := s.view(func(v *view) (err error) {
		runs, err = v.runs()
		return err
	})
	if err != nil || len(runs) != 3 {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	crashed := run{
		Start: minute(30), Alive: minute(40), End: minute(40), BootID: "boot",
		Recorded: []recording{{Type: "flow", Since: minute(30)}, {Type: "drop", Since: minute(35)}},
	}
	if !reflect.DeepEqual(*runs[1], crashed) {
		t.Errorf("the second run is %+v", *runs[1])
	}
	if !runs[0].Clean || !runs[0].End.Equal(minute(20)) || !runs[2].End.IsZero() {
		t.Errorf("the runs are %+v and %+v", *runs[0], *runs[2])
	}
}

func TestSetRecordedBeforeStart(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	if err := s.SetRecorded([]string{"flow"}); err == nil {
		t.Error("no error")
	}
}
