package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
)

// host is one that has as many events in each hour.
type host struct {
	*Store
	*clock
	t    *testing.T
	hour int
}

func newHost(t *testing.T) *host {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	s.db.NoSync = true
	return &host{Store: s, clock: c, t: t}
}

// pass lets an hour pass, with so many flushes.
func (h *host) pass(flushes int) {
	h.t.Helper()
	const rows = 21_600
	from := begin.Add(time.Duration(h.hour) * time.Hour)
	b := many(0, rows)
	times := b.Columns[event.Time].Ints
	for i := range times {
		times[i] = from.UnixNano() + int64(i)*int64(time.Hour)/rows
	}
	for i := range flushes {
		h.set(from.Add(time.Duration(i+1) * time.Hour / time.Duration(flushes)))
		h.Append(slice(b, i*rows/flushes, (i+1)*rows/flushes))
		flush(h.t, h.Store)
		if i == flushes/15 || i == flushes/2 { // well after the end of the hour before
			h.maintainNow()
		}
	}
	h.hour++
}

func (h *host) maintainNow() {
	h.t.Helper()
	retain(h.t, h.Store)
	err := errors.Join(h.seal(context.Background(), false, nil), h.finishDays(context.Background(), false))
	if err != nil {
		h.t.Fatal(err)
	}
}

// size is that of the file without the rest of the last step by which it grew.
func (h *host) size() (bytes int64) {
	h.t.Helper()
	err := h.view(func(v *view) error {
		bytes = v.tx.Size()
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return bytes
}

// during does something while a snapshot is taken.
func (h *host) during(do func()) {
	h.t.Helper()
	w := onWrite(func() {
		if do != nil {
			do()
		}
		do = nil
	})
	if _, err := h.Snapshot(context.Background(), w); err != nil {
		h.t.Fatal(err)
	}
}

type onWrite func()

func (w onWrite) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

const (
	quick  = 15  // flushes in an hour that only has to be over
	usual  = 720 // every 5 s
	filled = 36  // hours
)

// Neither hours that come and go nor somebody who takes an hour over a snapshot
// make a file grow from which events are removed.
func TestRetainedFileDoesNotGrow(t *testing.T) {
	t.Run("by age", func(t *testing.T) {
		doesNotGrow(t, func(*host) Limits { return Limits{MaxAge: map[string]time.Duration{"flow": filled * time.Hour}} })
	})
	t.Run("by the size of a type", func(t *testing.T) {
		doesNotGrow(t, func(h *host) Limits { return Limits{MaxSize: map[string]int64{"flow": h.usedBytes()}} })
	})
	t.Run("by the size of all", func(t *testing.T) {
		doesNotGrow(t, func(h *host) Limits { return Limits{MaxTotal: h.usedBytes()} })
	})
}

func doesNotGrow(t *testing.T, limits func(*host) Limits) {
	h := newHost(t)
	for range filled {
		h.pass(quick)
	}
	h.SetLimits(limits(h))
	for range 2 {
		h.pass(quick)
	}
	h.pass(usual)
	h.pass(quick)
	before := h.size()
	h.during(func() { h.pass(usual) })
	h.pass(quick)
	if after := h.size(); after > before+before/100 {
		t.Errorf("the file grew from %d to %d bytes", before, after)
	}
}

// A file that only becomes larger has room for as long, too: the pages of each flush
// that are replaced by the next do not add up.
func TestSnapshotOfGrowingFile(t *testing.T) {
	h := newHost(t)
	for range 3 {
		h.pass(quick)
	}
	before := h.size()
	h.during(func() { h.pass(usual) })
	if after := h.size(); after > before+2*growStep {
		t.Errorf("the file grew from %d to %d bytes", before, after)
	}
}

// What was there when a snapshot began becomes no block before it ends; what came
// later does.
func TestSealingWaitsForSnapshot(t *testing.T) {
	h := newHost(t)
	h.pass(quick)
	h.during(func() {
		h.pass(quick)
		h.pass(quick)
		if got := hoursOf(t, h.Store, "flow"); len(got) != 2 || got[0] != 0 || got[1] != 2 {
			t.Errorf("hours with rows during the snapshot: %v", got)
		}
	})
	h.pass(quick)
	if got := hoursOf(t, h.Store, "flow"); len(got) != 1 || got[0] != 3 {
		t.Errorf("hours with rows after the snapshot: %v", got)
	}
}

// A crash, or an error, while room was made leaves no trace.
func TestRoomIsCleared(t *testing.T) {
	path := testPath(t)
	put := func(s *Store) {
		if err := s.update(func(tx *bbolt.Tx) error { return putRoom(tx, 1<<20) }); err != nil {
			t.Fatal(err)
		}
	}
	s := openTest(t, Options{Path: path})
	put(s)
	put(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Options{Path: path})
	if used := s.usedBytes(); used > 1<<20 {
		t.Errorf("after a crash %d bytes are in use", used)
	}
	put(s)
	if err := s.makeRoom(0, maxRoom, spareParts); err != nil {
		t.Fatal(err)
	}
	if used := s.usedBytes(); used > 1<<20 {
		t.Errorf("after an error %d bytes are in use", used)
	}
}
