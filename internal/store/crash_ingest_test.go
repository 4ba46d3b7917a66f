package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Flows are numbered from 0 and never removed. Each batch of them is spread over
// two of four hours of two days, so that a batch that was torn can be told.
func flowTime(n, batch int64) time.Time {
	return begin.Add(time.Duration((batch+n%2)%4)*7*time.Hour + time.Duration(n))
}

// crashBatch is how many flows come in one batch, or a multiple of it.
const crashBatch = 50

// Drops are numbered from a number of each process. Their hours move on, and
// retention removes the older ones; some come so late that they go at once.
func dropTime(n int64) time.Time {
	process, i := n>>dropBits, n&(1<<dropBits-1)
	hours := 6*process + i/800%6 + i*7919%18
	if i%100 == 0 {
		hours = i / 100 % 3
	}
	return begin.Add(time.Duration(hours)*time.Hour + time.Duration(i%3600)*time.Second)
}

const (
	dropBits  = 32
	dropBatch = 200
)

// crashLimits are those of the process with a number: now by age, now by size.
func crashLimits(number int64, now time.Time) Limits {
	if number%2 == 0 {
		return Limits{MaxAge: map[string]time.Duration{"drop": now.Sub(oldestDrop(number, 0))}}
	}
	return Limits{MaxSize: map[string]int64{"drop": 60_000}}
}

// oldestDrop is the limit by age of the process with a number when it has lived so long.
func oldestDrop(number int64, lived time.Duration) time.Time {
	return begin.Add(time.Duration(6*number+4)*time.Hour + crashSpeed*lived)
}

// crashNow is when a process starts: all hours and days are over, so that
// everything is sealed and joined soon.
var crashNow = begin.Add(100 * time.Hour)

// crashSpeed is how fast the time of these processes goes, so that drops become
// too old all the time: an hour takes 72 ms.
const crashSpeed = 50_000

// ingestUntilKilled appends and flushes where an earlier process stopped, and
// seals, joins and removes meanwhile, each as often as it can.
func ingestUntilKilled(path string, number int64) error {
	// Time begins to pass with the run: one that began after some of the events
	// would know nothing of their time, nor that retention removed it.
	now, running := newClock(), atomic.Pointer[time.Time]{}
	passing := func() time.Time {
		if since := running.Load(); since != nil {
			return now.now().Add(crashSpeed * time.Since(*since))
		}
		return now.now()
	}
	var s *Store
	err := within(opening, func() (err error) {
		s, err = Open(Options{
			Path: path, Types: testTypes, FlushInterval: 3 * time.Millisecond, Limits: crashLimits(number, crashNow),
			now: passing, sealAfter: time.Millisecond,
		})
		if err != nil {
			return err
		}
		// As Start does it, but with a maintain that tells its phases. The run
		// covers the time of all events.
		if err := s.beginRun(Run{Types: []string{"flow", "drop"}}); err != nil {
			return err
		}
		now.set(crashNow)
		begun := time.Now()
		running.Store(&begun)
		s.stopped.Go(s.loop)
		return nil
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			if err := maintainTelling(s); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return ingest(s, number)
}

// ingest acknowledges the number of the next flow and the next drop.
func ingest(s *Store, number int64) error {
	next, nextDrop := typeStatus(s, "flow").Events, number<<dropBits
	for batch := int64(0); ; batch++ {
		size := int64(crashBatch)
		if rand.IntN(60) == 0 {
			size *= 3 * directRows / crashBatch // blocks at once
		}
		flows, drops := event.NewBatch(flowType, int(size)), event.NewBatch(dropType, dropBatch)
		for range size {
			addFlow(flows, flowTime(next, batch).UnixNano(), next)
			next++
		}
		for range dropBatch {
			drops.AppendRows(drop(dropTime(nextDrop), nextDrop), nil)
			nextDrop++
		}
		s.Append(flows)
		s.Append(drops)
		if next%(3*crashBatch) == 0 { // sometimes leave it to the loop
			continue
		}
		if err := within(flushing, s.Flush); err != nil {
			return err
		}
		acknowledge("flow", next)
		acknowledge("drop", nextDrop)
		if rand.IntN(5) == 0 { // days are joined when nothing comes to them
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		}
	}
}

// maintainTelling does what maintain does, and tells a phase when there is
// something to do in it.
func maintainTelling(s *Store) error {
	ctx := context.Background()
	if over, err := isOverLimit(s); err != nil || over {
		if err = errors.Join(err, within(removing, s.retain)); err != nil {
			return err
		}
	}
	if due, err := s.dueHours(false); err != nil || len(due) > 0 {
		if err = errors.Join(err, within(sealing, func() error { return s.seal(ctx, false, nil) })); err != nil {
			return err
		}
	}
	for _, t := range testTypes {
		days, err := s.doneDays(t, true)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(days, doneDay.isScattered) {
			continue
		}
		if err := within(joining, func() error { return s.finishDays(ctx, true) }); err != nil {
			return err
		}
	}
	return nil
}

func isOverLimit(s *Store) (over bool, err error) {
	err = s.view(func(v *view) error {
		units, err := v.units("drop")
		size, maxSize := int64(0), s.limits.Load().MaxSize["drop"]
		for _, u := range units {
			size += u.bytes
			over = over || u.max < v.removed("drop")
		}
		over = over || maxSize > 0 && size > maxSize
		return err
	})
	return over, err
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	k, n := newKiller(t), kills(t, 6)
	targets := []string{sealing, opening, joining, removing, flushing, sealing, removing, joining}
	var f *crashedFile
	var sealed, kept, removed int
	for i := range n {
		number := int64(i % len(targets))
		if number == 0 { // a larger file takes longer to compare
			f = &crashedFile{path: testPath(t)}
		}
		var meanwhile func()
		if i == 2 {
			meanwhile = func() {
				if _, err := Open(Options{Path: f.path}); !errors.Is(err, ErrInUse) {
					t.Errorf("a second open: %v", err)
				}
			}
		}
		at := moment{targets[number], 1}
		if at.phase != opening {
			at.turn += rand.IntN(3)
		}
		started := time.Now()
		v := k.run("ingest", f.path, number, at, meanwhile)
		lived, now := time.Since(started), newClock()
		now.set(crashNow.Add(1000 * time.Hour))
		s := openTest(t, Options{Path: f.path, now: now.now})
		if err := s.Check(nil); err != nil {
			t.Fatal(err)
		}
		f.compareFlows(t, s, v.acknowledged["flow"])
		f.compareDrops(t, s, number, v.acknowledged["drop"], lived)
		blocks, _ := blocksOf(t, s, "flow")
		sealed, kept, removed = sealed+blocks, kept+f.kept, removed+f.removed
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	k.report(opening, flushing, sealing, joining, removing)
	t.Logf("of acknowledged drops %d were found in their place and %d removed as told", kept, removed)
	if sealed == 0 || kept == 0 || removed == 0 {
		t.Errorf("%d blocks, %d drops kept and %d removed: the processes did not live long enough", sealed, kept, removed)
	}
}

// crashedFile is what is known of a file that processes write and die on.
type crashedFile struct {
	path          string
	drops         []int64   // acknowledged
	removedBefore time.Time // drops
	kept, removed int       // of drops, when they were compared last
}

// timesSeen counts the events of a type by their number.
func timesSeen(t *testing.T, s *Store, of *event.Type) map[int64]int {
	t.Helper()
	seen := make(map[int64]int)
	for _, n := range numbers(t, s, query.Events{Types: []*event.Type{of}}) {
		seen[n]++
	}
	return seen
}

// compareFlows wants every flow before a number once, and no torn batch.
func (f *crashedFile) compareFlows(t *testing.T, s *Store, acknowledged int64) {
	t.Helper()
	seen := timesSeen(t, s, flowType)
	for n := range max(acknowledged, int64(len(seen))) {
		if seen[n] != 1 {
			t.Fatalf("flow %d of %d acknowledged ones and %d in all is there %d times", n, acknowledged, len(seen), seen[n])
		}
	}
	if len(seen)%crashBatch != 0 {
		t.Fatalf("%d flows are there: a batch was torn", len(seen))
	}
}

// compareDrops wants every acknowledged drop once, unless the coverage says
// that retention removed the time that it is of: then it must not be there.
func (f *crashedFile) compareDrops(t *testing.T, s *Store, number, acknowledged int64, lived time.Duration) {
	t.Helper()
	for n := number << dropBits; n < acknowledged; n++ {
		f.drops = append(f.drops, n)
	}
	limit := f.removedBefore
	for _, gap := range coverage(t, s, []*event.Type{dropType}, query.Window{Since: begin}).Gaps {
		if gap.Reason == query.GapRetention {
			f.removedBefore = gap.Until
		}
	}
	if oldest := oldestDrop(number, lived); oldest.After(limit) {
		limit = oldest
	}
	if number%2 == 0 && f.removedBefore.After(limit) {
		t.Fatalf("removed up to %v, and only what is before %v is too old", f.removedBefore, limit)
	}
	seen := timesSeen(t, s, dropType)
	f.kept, f.removed = 0, 0
	for _, n := range f.drops {
		want := 1
		if dropTime(n).Before(f.removedBefore) {
			want = 0
			f.removed++
		}
		if seen[n] != want {
			t.Fatalf("drop %d at %v is there %d times; up to %v all are removed", n, dropTime(n), seen[n], f.removedBefore)
		}
		delete(seen, n)
	}
	f.kept = len(f.drops) - f.removed
	for n, times := range seen {
		if times != 1 || dropTime(n).Before(f.removedBefore) {
			t.Fatalf("drop %d at %v is there %d times; up to %v all are removed", n, dropTime(n), times, f.removedBefore)
		}
	}
}
