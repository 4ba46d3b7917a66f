package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// inChild runs the test that calls it in a process of its own, where it returns
// true: a limit on files would also hit what the test binary itself writes.
func inChild(t *testing.T) bool {
	t.Helper()
	const variable = "EBPF_SERVER_TEST_CHILD"
	if os.Getenv(variable) != "" {
		return true
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(executable, "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), variable+"=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// limitFiles makes this process unable to write beyond a size of a file, which
// to the store is like a full disk, until the returned function is called.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	set := func(limit syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	lifted := false
	lift = func() {
		if !lifted {
			set(old)
			lifted = true
		}
	}
	t.Cleanup(lift)
	set(syscall.Rlimit{Cur: size, Max: old.Max})
	return lift
}

// many makes a batch of flows that takes some room even when compressed.
func many(first, n int64) *event.Batch {
	b := event.NewBatch(flowType, int(n))
	for i := first; i < first+n; i++ {
		addFlow(b, begin.UnixNano()+i, i)
		b.SetID(colFlowID, "boot", i*0x5851f42d4c957f2d)
	}
	return b
}

func TestFileSizeLimit(t *testing.T) {
	if !inChild(t) {
		return
	}
	testFullDisk(t, testPath(t), "file too large", func() (lift func()) { return limitFiles(t, 64<<10) })
}

func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=32m"); err != nil {
		if os.Geteuid() != 0 {
			t.Skipf("needs root: mounts a small disk (%v)", err)
		}
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(disk, "ballast")
	testFullDisk(t, filepath.Join(disk, "events.db"), "no space left on device", func() (lift func()) {
		if err := os.WriteFile(ballast, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
		return func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// testFullDisk appends and flushes while writing fails, and then again when it
// does not any more.
func testFullDisk(t *testing.T, path, reason string, fill func() (lift func())) {
	c := newClock()
	var told []bool // of flushes: failed or not
	s := openTest(t, Options{Path: path, now: c.now, Flushed: func(took time.Duration, err error) {
		if took <= 0 {
			t.Errorf("a flush took %s", took)
		}
		told = append(told, err != nil)
	}})
	start(t, s, "flow")
	s.Append(many(0, 1000))
	flush(t, s)
	c.set(minute(1))

	lift := fill()
	const parts, size = 5, 20_000
	for part := range int64(parts) {
		s.Append(many(1000+part*size, size))
		s.Lost("flow", "map_full", time.Time{}, 1)
		s.Filtered("flow", "excluded", c.now(), 2)
		if err := s.Flush(); err == nil || !strings.Contains(err.Error(), reason) {
			t.Fatalf("flush %d: %v", part, err)
		}
	}
	st := s.Status()
	if st.Pending != parts*size || !strings.Contains(st.LastError, reason) || !st.ErrorSince.Equal(minute(1)) || !st.LastFlush.Equal(begin) {
		t.Errorf("status is %+v", st)
	}
	checkMany(t, s, 1000+parts*size)
	c.set(minute(2))
	lift()
	flush(t, s)
	if want := []bool{false, true, true, true, true, true, false}; !slices.Equal(told, want) {
		t.Errorf("flushes failed or not: %v, want %v", told, want)
	}
	st = s.Status()
	if st.Pending != 0 || st.LastError != "" || !st.ErrorSince.IsZero() || !st.LastFlush.Equal(minute(2)) {
		t.Errorf("status is %+v", st)
	}
	checkMany(t, s, 1000+parts*size)
	if got := typeStatus(s, "flow"); got.Lost["map_full"] != parts || got.LostTotal["map_full"] != parts || got.Lost["write_failed"] != 0 {
		t.Errorf("flow is %+v", got)
	}
	for range 2 { // what was left out meanwhile is known, too
		if got := coverage(t, s, testTypes, query.Window{}).Filtered["flow"]["excluded"]; got != 2*parts {
			t.Errorf("%d events were left out, want %d", got, 2*parts)
		}
		closeTest(t, s)
		s = openTest(t, Options{Path: path, now: c.now})
		checkMany(t, s, 1000+parts*size)
	}
	closeTest(t, s)
}

func checkMany(t *testing.T, s *Store, n int) {
	t.Helper()
	list := numbers(t, s, query.Events{Types: []*event.Type{flowType}, Ascending: true})
	if len(list) != n {
		t.Fatalf("%d events, want %d", len(list), n)
	}
	for i, number := range list {
		if number != int64(i) {
			t.Fatalf("event %d is number %d", i, number)
		}
	}
}

func TestWhatIsBeyondTheCapIsLost(t *testing.T) {
	if !inChild(t) {
		return
	}
	s := openTest(t, Options{Path: testPath(t)})
	s.Append(flow(begin, 1))
	lift := limitFiles(t, 4<<10)
	if err := s.Flush(); err == nil {
		t.Fatal("the flush did not fail")
	}
	rows := event.NewBatch(flowType, 0)
	for i := range int64(maxPendingRows / 4) {
		rows.Append(begin.UnixNano() + i)
	}
	for range 4 { // the fourth does not fit: there is one event already
		s.Append(rows)
	}
	s.Append(flow(begin, 2)) // this one still does
	if st := s.Status(); st.Pending != maxPendingRows/4*3+2 {
		t.Errorf("%d events pending", st.Pending)
	}
	if got := lostOf(s, "flow")["write_failed"]; got != maxPendingRows/4 {
		t.Errorf("%d events lost, want %d", got, maxPendingRows/4)
	}
	lift()
	flush(t, s)
	got := coverage(t, s, []*event.Type{flowType}, query.Window{})
	if got.Lost["flow"] != maxPendingRows/4 || got.Complete {
		t.Errorf("coverage is %+v", got)
	}
}

// A last write that fails must not look like a clean end.
func TestFailingClose(t *testing.T) {
	if !inChild(t) {
		return
	}
	path, c := testPath(t), newClock()
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	c.set(minute(1))
	s.Append(many(0, 10_000))
	lift := limitFiles(t, 32<<10)
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "file too large") {
		t.Errorf("Close: %v", err)
	}
	lift()
	c.set(minute(5))
	s = openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	if got := describe(coverage(t, s, []*event.Type{flowType}, minutes(0, 5))); got != "0-5 crashed" {
		t.Errorf("gaps are %q", got)
	}
}

// Sealing that fails leaves the rows as they are, and is done when there is room.
func TestSealingOnAFullDisk(t *testing.T) {
	if !inChild(t) {
		return
	}
	s := openTest(t, Options{Path: testPath(t)})
	s.Append(many(0, 10_000))
	flush(t, s)
	lift := limitFiles(t, 32<<10)
	for range 2 {
		if err := s.Seal(t.Context(), true, nil); err == nil || !strings.Contains(err.Error(), "file too large") {
			t.Fatalf("Seal: %v", err)
		}
	}
	checkMany(t, s, 10_000)
	lift()
	sealAll(t, s)
	checkMany(t, s, 10_000)
}

// Retention that fails leaves everything as it is, and removes it when there is room.
func TestRetentionOnAFullDisk(t *testing.T) {
	if !inChild(t) {
		return
	}
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	if err := s.beginRun(Run{Types: []string{"flow"}}); err != nil { // no maintain beside the test
		t.Fatal(err)
	}
	for hour := range int64(6) {
		for i := range int64(100) {
			s.Append(flow(begin.Add(time.Duration(hour)*time.Hour+time.Duration(i)), 100*hour+i))
		}
	}
	flush(t, s)
	c.set(begin.Add(7 * time.Hour))
	sealAll(t, s)
	lift := limitFiles(t, 16<<10)
	s.SetLimits(Limits{MaxSize: map[string]int64{"flow": 12_000}})
	for range 2 {
		if err := s.retain(); err == nil || !strings.Contains(err.Error(), "file too large") {
			t.Fatalf("retain: %v", err)
		}
		checkMany(t, s, 600)
		if got := describe(coverage(t, s, []*event.Type{flowType}, minutes(0, 400))); got != "" {
			t.Errorf("gaps are %q although nothing was removed", got)
		}
	}
	lift()
	retain(t, s)
	left := len(numbers(t, s, query.Events{Types: []*event.Type{flowType}}))
	if got := describe(coverage(t, s, []*event.Type{flowType}, minutes(0, 400))); left == 0 || left == 600 || left%100 != 0 || got != fmt.Sprintf("0-%d retention", 60*(6-left/100)) {
		t.Errorf("%d events are left, gaps are %q", left, got)
	}
}
