package store

import (
	"bytes"
	"context"
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

// longCalls opens a file in which ten calls began in each of the first four hours,
// of which number 0, 10, 20 and 30 last on and on, at six o'clock of its time. Only
// the last three hours are kept.
func longCalls(t *testing.T, o Options) (*Store, *clock) {
	t.Helper()
	c := newClock()
	if o.Path == "" {
		o.Path = testPath(t)
	}
	o.Types, o.now = lifeTypes, c.now
	if o.Limits.MaxAge == nil {
		o.Limits.MaxAge = map[string]time.Duration{"call": 3 * time.Hour}
	}
	s := openTest(t, o)
	if err := s.beginRun(Run{BootID: "boot", Types: []string{"call"}}); err != nil {
		t.Fatal(err)
	}
	for id := range int64(40) {
		at := minute(int(id/10*60 + id%10*5))
		s.Append(calls(callType, call{at: at, id: id, state: "begun"}))
		if id%10 > 0 {
			s.Append(calls(callType, call{at: at.Add(time.Minute), id: id, state: "over"}))
		}
	}
	c.set(minute(360))
	flush(t, s)
	return s, c
}

// wantOpen asks what is open now.
func wantOpen(t *testing.T, s *Store, complete bool, want ...int64) query.Opened {
	t.Helper()
	pids, _, answer := openAt(t, s, query.At{Ascending: true})
	if !slices.Equal(pids, want) || answer.Coverage.Complete != complete {
		t.Errorf("open are %v, want %v; coverage %+v, want complete %v", pids, want, answer.Coverage, complete)
	}
	return answer
}

// carriedSize is what Storage says.
func carriedSize(t *testing.T, s *Store) int64 {
	t.Helper()
	st, err := s.Storage(false)
	if err != nil {
		t.Fatal(err)
	}
	return st.Types[slices.IndexFunc(st.Types, func(of query.StorageType) bool { return of.Name == "call" })].Bytes.Carried
}

// A listener can be all that is left of a host on which nothing happens; it is in
// every copy of the file, and goes when it ends.
func TestCarriedAlone(t *testing.T) {
	dir := t.TempDir()
	s, c := longCalls(t, Options{})
	if got := carriedSize(t, s); got != 0 {
		t.Errorf("%d bytes are carried over before anything is removed", got)
	}
	c.set(minute(60 * 24 * 30))
	retain(t, s)
	wantOpen(t, s, true, 0, 10, 20, 30)
	if got := unitsOf(t, s, "call"); len(got) > 0 {
		t.Errorf("hours of call are left: %v", got)
	}
	if got := carriedSize(t, s); got == 0 || got > 2000 {
		t.Errorf("%d bytes are carried over", got)
	}
	wantNumbers(t, s, query.Events{Types: []*event.Type{callType}})
	// Of a moment that was removed what lasted is known, and not what ended since.
	if pids, _, answer := openAt(t, s, query.At{Time: minute(66), Ascending: true}); !slices.Equal(pids, []int64{0, 10}) || answer.Coverage.Complete {
		t.Errorf("in a time that was removed %v are open, coverage %+v", pids, answer.Coverage)
	}
	var rows []event.Row
	if _, err := s.Story(context.Background(), query.Story{Type: callType, ID: "boot-a", Limit: 9}, func(r event.Row) error {
		rows = append(rows, r)
		return nil
	}); err != nil || len(rows) != 1 || rows[0].Time() != minute(60).UnixNano() {
		t.Errorf("the story of 10 is %v, %v", rows, err)
	}

	copied := new(bytes.Buffer)
	if _, err := s.Snapshot(context.Background(), copied); err != nil {
		t.Fatal(err)
	}
	snapshot, small := filepath.Join(dir, "snapshot.db"), filepath.Join(dir, "small.db")
	if err := os.WriteFile(snapshot, copied.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Compact(context.Background(), snapshot, small, nil); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{snapshot, small} {
		s := openTest(t, Options{Path: path, Types: lifeTypes, now: c.now, ReadOnly: true})
		pids, _, _ := openAt(t, s, query.At{Ascending: true})
		if !slices.Equal(pids, []int64{0, 10, 20, 30}) || carriedSize(t, s) == 0 {
			t.Errorf("in a copy %v are open", pids)
		}
	}

	s.Append(calls(callType, call{at: minute(60 * 24 * 30), id: 10, state: "over"}))
	wantOpen(t, s, true, 0, 20, 30)
	c.set(minute(60 * 24 * 40))
	flush(t, s)
	retain(t, s)
	wantOpen(t, s, true, 0, 20, 30)
	if found, err := s.carriedEvents(callType, allTime, nil); err != nil || found.Len() != 3 {
		t.Errorf("%d events are carried over, %v", found.Len(), err)
	}
}

// A program that does not know what is carried over removes events and leaves it as
// it is, if it is there. Nothing is made of that, and what it removed is not known.
func TestRemovedByAnotherProgram(t *testing.T) {
	for name, was := range map[string]bool{"that did not know": true, "before": false} {
		t.Run(name, func(t *testing.T) {
			s, c := longCalls(t, Options{})
			path := s.options.Path
			if was {
				c.set(minute(330))
				retain(t, s) // hours 0 and 1
			}
			if err := s.update(func(tx *bbolt.Tx) error {
				if !was {
					if err := tx.DeleteBucket(bucketCarried); err != nil {
						return err
					}
				}
				if _, err := tx.Bucket(bucketCoverage).Bucket(bucketRuns).NextSequence(); err != nil {
					return err
				}
				for hour := range hourOf(minute(180).UnixNano()) - hourOf(begin.UnixNano()) {
					u := unit{typeName: "call", segment: segment{hourOf(begin.UnixNano()) + hour, 1}}
					if err := removeUnit(tx, u, u.span().until); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			// As before this: what began before is missing, and that is said.
			answer := wantOpen(t, s, false, 30)
			if len(answer.Coverage.Gaps) != 1 || answer.Coverage.Gaps[0].Reason != query.GapRetention || !answer.Coverage.Gaps[0].Until.Equal(minute(180)) {
				t.Errorf("gaps are %+v", answer.Coverage.Gaps)
			}
			if got := carriedSize(t, s); got != 0 {
				t.Errorf("%d bytes are carried over", got)
			}
			c.set(minute(400))
			retain(t, s) // hour 3: from now on it is kept again
			answer = wantOpen(t, s, false, 30)
			if len(answer.Coverage.Gaps) != 1 || !answer.Coverage.Gaps[0].Until.Equal(minute(180)) {
				t.Errorf("gaps are %+v", answer.Coverage.Gaps)
			}
			closeTest(t, s)

			c.set(minute(410))
			s = openTest(t, Options{Path: path, Types: lifeTypes, now: c.now, Limits: s.options.Limits})
			if err := s.beginRun(Run{BootID: "boot", Types: []string{"call"}}); err != nil {
				t.Fatal(err)
			}
			for id := int64(0); id < 40; id += 10 {
				s.Append(calls(callType, call{at: minute(410).Add(-1), id: id, state: "begun", found: true}))
			}
			c.set(minute(2000))
			flush(t, s)
			retain(t, s)
			wantOpen(t, s, true, 0, 10, 20, 30)
		})
	}
}

// What was lost while it was recorded may be the end of something. That stays true
// when the count of it is gone.
func TestCarriedAfterLosses(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), Types: lifeTypes, now: c.now, Limits: Limits{MaxAge: map[string]time.Duration{"call": 3 * time.Hour}}})
	if err := s.beginRun(Run{BootID: "boot", Types: []string{"call"}}); err != nil {
		t.Fatal(err)
	}
	s.Append(calls(callType, call{at: minute(1), id: 1, state: "begun"}))
	c.set(minute(70))
	s.Lost("call", "ring_buffer_full", minute(65), 1)
	flush(t, s)
	c.set(minute(150))
	wantOpen(t, s, false, 1)
	c.set(minute(600))
	retain(t, s)
	answer := wantOpen(t, s, false, 1)
	if gaps := answer.Coverage.Gaps; len(gaps) != 1 || gaps[0].Until.Before(minute(70)) || gaps[0].Until.After(minute(71)) {
		t.Errorf("gaps are %+v", gaps)
	}
}

// Damaged events do not stay in the file, and the answer says what may be missing.
func TestCarryOverOfDamage(t *testing.T) {
	damage := func(t *testing.T, s *Store, bucket func(*bbolt.Tx) *bbolt.Bucket, key []byte) {
		t.Helper()
		if err := s.update(func(tx *bbolt.Tx) error {
			b := bucket(tx)
			if key == nil {
				key, _ = b.Cursor().First()
			}
			value := bytes.Clone(b.Get(key))
			value[len(value)/2] ^= 4
			return b.Put(key, value)
		}); err != nil {
			t.Fatal(err)
		}
	}
	hour := hourOf(minute(60).UnixNano())
	for name, test := range map[string]struct {
		seal, carried bool
		open          []int64
		until         int
		said          string
	}{
		"chunk":   {false, false, []int64{0, 20, 30}, 120, "chunk 1: chunk is damaged"},
		"block":   {true, false, []int64{0, 20, 30}, 120, "its checksum is wrong"},
		"carried": {false, true, []int64{10, 20, 30}, 120, "what was carried over is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			log := new(bytes.Buffer)
			s, c := longCalls(t, Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
			if test.seal {
				sealAll(t, s)
			}
			c.set(minute(60*4 + 10))
			retain(t, s) // hour 0
			switch {
			case test.carried:
				damage(t, s, func(tx *bbolt.Tx) *bbolt.Bucket { return carriedOf(tx, "call") }, nil)
				if err := s.Check(nil); err == nil || !strings.Contains(err.Error(), "call that was carried over: chunk") {
					t.Errorf("Check: %v", err)
				}
				if _, err := s.At(context.Background(), query.At{Type: callType, Limit: 9}, nil); err == nil || !strings.Contains(err.Error(), "carried over") {
					t.Errorf("At: %v", err)
				}
			case test.seal:
				damage(t, s, func(tx *bbolt.Tx) *bbolt.Bucket { return blockBucket(tx, "call", segment{hour, 1}, 2) }, keyBlock)
				s.verified.Clear()
			default:
				damage(t, s, func(tx *bbolt.Tx) *bbolt.Bucket { return hourChunks(tx, "call", hour) }, nil)
			}
			c.set(minute(60*5 + 10))
			retain(t, s)
			if answer := wantOpen(t, s, false, test.open...); len(answer.Coverage.Gaps) != 1 || !answer.Coverage.Gaps[0].Until.Equal(minute(test.until)) {
				t.Errorf("gaps are %+v", answer.Coverage.Gaps)
			}
			if !strings.Contains(log.String(), test.said) {
				t.Errorf("the log does not say %q:\n%s", test.said, log)
			}
		})
	}
}

// What is open takes a share of a limit of size at most; the oldest goes.
func TestCarriedShare(t *testing.T) {
	c, path := newClock(), testPath(t)
	s := openTest(t, Options{Path: path, Types: lifeTypes, now: c.now})
	if err := s.beginRun(Run{BootID: "boot", Types: []string{"call"}}); err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	for hour := range 10 {
		b := make([]call, n/10)
		for i := range b {
			b[i] = call{at: minute(60 * hour).Add(time.Duration(r.Int64N(int64(time.Hour)))), id: int64(hour*n/10+i)<<8 + r.Int64N(1<<8), state: "begun", port: r.Int64N(1 << 16)}
		}
		s.Append(calls(callType, b...))
	}
	c.set(minute(700))
	sealAll(t, s)
	s.SetLimits(Limits{MaxAge: map[string]time.Duration{"call": time.Hour}})
	retain(t, s)
	all := carriedSize(t, s)
	if _, _, answer := openAt(t, s, query.At{}); answer.Total != n || !answer.Coverage.Complete {
		t.Errorf("%d are open, want %d; %+v", answer.Total, n, answer.Coverage)
	}
	t.Logf("%.1f bytes for each that is open", float64(all)/n)
	for _, limits := range []Limits{{MaxSize: map[string]int64{"call": 2 * all}}, {MaxTotal: all}} {
		s.SetLimits(limits)
		retain(t, s)
		limit := max(limits.MaxTotal, limits.MaxSize["call"])
		_, _, answer := openAt(t, s, query.At{})
		if got := carriedSize(t, s); got > limit/carriedShare || got < limit/carriedShare/2 || answer.Total == 0 || answer.Coverage.Complete {
			t.Errorf("%d bytes are carried over, of a limit of %d; %d are open, %+v", got, limit, answer.Total, answer.Coverage)
		}
	}
}

// Who asks while hours are removed misses nothing, and takes nothing for open
// whose end was just removed.
func TestAtBesideRetention(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), Types: lifeTypes, now: c.now})
	if err := s.beginRun(Run{BootID: "boot", Types: []string{"call"}}); err != nil {
		t.Fatal(err)
	}
	const hours, each = 72, 15
	for hour := range hours { // two of three end, in the next hour or days later
		for i := range each {
			id := int64(hour*each + i)
			s.Append(calls(callType, call{at: minute(60*hour + i), id: id, state: "begun"}))
			if i%3 > 0 {
				s.Append(calls(callType, call{at: minute(60*hour + 35 + 60*i), id: id, state: "over"}))
			}
		}
	}
	c.set(minute(60 * (hours + 48)))
	flush(t, s)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for age := hours + 47; age > 1; age-- {
			s.SetLimits(Limits{MaxAge: map[string]time.Duration{"call": time.Duration(age) * time.Hour}})
			if err := s.retain(); err != nil {
				t.Error(err)
			}
		}
		close(stop)
	}()
	asked := 0
	for done := false; !done; asked++ {
		select {
		case <-stop:
			done = true
		default:
		}
		pids, _, answer := openAt(t, s, query.At{})
		if want := hours * each / 3; len(pids) != want || answer.Total != want {
			t.Errorf("%d are open, total %d, want %d", len(pids), answer.Total, want)
			break
		}
	}
	<-stopped
	t.Logf("asked %d times", asked)
}

// An event that comes to an hour while it is looked at stays until the next time.
func TestUnitThatChangedIsNotRemoved(t *testing.T) {
	s, _ := longCalls(t, Options{})
	u := unit{typeName: "call", segment: segment{hourOf(begin.UnixNano()), 1}}
	plan, err := s.planCarryOver(u, u.span().until)
	if err != nil {
		t.Fatal(err)
	}
	same := func() (same bool) {
		if err := s.db.View(func(tx *bbolt.Tx) (err error) { same, err = plan.isUnchanged(tx); return err }); err != nil {
			t.Fatal(err)
		}
		return same
	}
	if !same() {
		t.Error("it is said to have changed")
	}
	s.Append(calls(callType, call{at: minute(30), id: 99, state: "begun"}))
	flush(t, s)
	if same() {
		t.Error("a late event is not noticed")
	}
}

// What is in memory only may never come to the file, and is not removed with it.
func TestCarryOverIsOfTheFile(t *testing.T) {
	s, c := longCalls(t, Options{})
	s.Append(calls(callType, call{at: minute(50), id: 0, state: "over"}, call{at: minute(51), id: 50, state: "begun"}))
	c.set(minute(361))
	retain(t, s)
	wantOpen(t, s, true, 50, 10, 20, 30)
	kill(t, s)
	s = openTest(t, Options{Path: s.options.Path, Types: lifeTypes, now: c.now, ReadOnly: true})
	pids, _, _ := openAt(t, s, query.At{Ascending: true})
	if !slices.Equal(pids, []int64{0, 10, 20, 30}) {
		t.Errorf("after a crash %v are open", pids)
	}
}
