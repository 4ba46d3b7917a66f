package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Run describes a run of the program for the coverage.
type Run struct {
	BootID, Kernel, Host, Version string
	Types                         []string // those recorded from the start
}

// run is the record of a run. Records in memory are never changed: a change
// makes another one, so that readers can keep theirs.
type run struct {
	Start    time.Time   `json:"start"`
	Alive    time.Time   `json:"alive"`        // last sign of life: events before it are in the file
	End      time.Time   `json:"end,omitzero"` // none while it runs
	Clean    bool        `json:"clean"`        // it ended by Close; otherwise it crashed after Alive
	BootID   string      `json:"boot_id"`
	Kernel   string      `json:"kernel"`
	Host     string      `json:"host"`
	Version  string      `json:"version"`            // of the program
	Recorded []recording `json:"recorded,omitempty"` // in the order in which they began
}

// recording is a span in which a run recorded a type.
type recording struct {
	Type  string    `json:"type"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // none: until the run ends
}

// alive returns the run with a sign of life, which may be its last.
func (r *run) alive(now time.Time, end bool) *run {
	next := *r
	next.Alive = now
	if end {
		next.End, next.Clean = now, true
	}
	return &next
}

// recordingNow returns the run with just these types recorded from now on.
func (r *run) recordingNow(types []string, now time.Time) *run {
	next := *r
	next.Recorded = slices.Clone(r.Recorded)
	for i, span := range next.Recorded {
		if span.Until.IsZero() && !slices.Contains(types, span.Type) {
			next.Recorded[i].Until = now
		}
	}
	for _, name := range types {
		if !next.records(name) {
			next.Recorded = append(next.Recorded, recording{Type: name, Since: now})
		}
	}
	return &next
}

// records tells whether a type is being recorded.
func (r *run) records(typeName string) bool {
	return r != nil && slices.ContainsFunc(r.Recorded, func(span recording) bool {
		return span.Type == typeName && span.Until.IsZero()
	})
}

// beginRun writes the new run, and the end of earlier ones that have none.
func (s *Store) beginRun(r Run) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	started := s.run != nil
	s.mu.Unlock()
	if started {
		return errors.New("the store is started already")
	}
	now := s.now().UTC()
	begun := &run{Start: now, Alive: now, BootID: r.BootID, Kernel: r.Kernel, Host: r.Host, Version: r.Version}
	begun = begun.recordingNow(r.Types, now)
	var key []byte
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			if err := errors.Join(endCrashedRuns(tx), keepCarried(tx)); err != nil {
				return err
			}
			sequence, err := tx.Bucket(bucketCoverage).Bucket(bucketRuns).NextSequence()
			if err == nil {
				err = noteCarryingRun(tx)
			}
			if err != nil {
				return err
			}
			key = putInt(int64(sequence))
			return putRun(tx, key, begun)
		})
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run, s.runKey = begun, key
	return nil
}

func endCrashedRuns(tx *bbolt.Tx) error {
	var keys [][]byte
	var crashed []*run
	err := forEachRun(tx, func(key []byte, r *run) error {
		if r.End.IsZero() {
			r.End = r.Alive
			keys, crashed = append(keys, key), append(crashed, r)
		}
		return nil
	})
	for i := 0; err == nil && i < len(keys); i++ { // not before: a cursor must not see changes
		err = putRun(tx, keys[i], crashed[i])
	}
	return err
}

// SetRecorded says which types are recorded from now on, when a monitor starts
// or fails during a run.
func (s *Store) SetRecorded(types []string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	if s.run == nil {
		s.mu.Unlock()
		return errors.New("set recorded types: the store is not started")
	}
	// In memory first: the next flush writes it if this transaction fails.
	s.run = s.run.recordingNow(types, s.now().UTC())
	r := s.run
	s.mu.Unlock()
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return putRun(tx, s.runKey, r) })
	})
	if err != nil {
		return fmt.Errorf("set recorded types: %w", err)
	}
	return nil
}

func putRun(tx *bbolt.Tx, key []byte, r *run) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write run: %w", err)
	}
	return tx.Bucket(bucketCoverage).Bucket(bucketRuns).Put(key, text)
}

// forEachRun calls do with every run, oldest first.
func forEachRun(tx *bbolt.Tx, do func(key []byte, r *run) error) error {
	return tx.Bucket(bucketCoverage).Bucket(bucketRuns).ForEach(func(key, text []byte) error {
		r := new(run)
		if err := json.Unmarshal(text, r); err != nil {
			return fmt.Errorf("read run %x: %w", key, err)
		}
		return do(key, r)
	})
}

// joinRuns makes one record of the runs that ended before all that is left, so
// that a program that is started again and again does not fill the file. What
// coverage says of their time is that it was removed.
func (s *Store) joinRuns() error {
	var keys [][]byte
	var joined *run
	err := s.view(func(v *view) error {
		first, err := v.firstLeft()
		if err != nil {
			return err
		}
		return forEachRun(v.tx, func(key []byte, r *run) error {
			if !r.End.IsZero() && r.End.UnixNano() < first {
				keys, joined = append(keys, bytes.Clone(key)), joined.join(r)
			}
			return nil
		})
	})
	if err != nil || len(keys) < 2 {
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		for _, key := range keys[1:] {
			if err := tx.Bucket(bucketCoverage).Bucket(bucketRuns).Delete(key); err != nil {
				return err
			}
		}
		return putRun(tx, keys[0], joined)
	})
}

// firstLeft returns the time before which nothing of any type is left.
func (v *view) firstLeft() (int64, error) {
	left := allTime.until
	for name := range v.s.types {
		first, err := v.firstVisible(name, allTime.from)
		if err != nil {
			return 0, err
		}
		left = min(left, first)
		if err := v.stored(name, func(_, first, _ int64) { left = min(left, first) }); err != nil {
			return 0, err
		}
	}
	return left, nil
}

// join returns a run that recorded what either did, as if without a break. The
// first may be nil.
func (r *run) join(later *run) *run {
	next := *later
	next.Recorded = nil
	all := later.Recorded
	if r != nil {
		next.Start = r.Start
		all = slices.Concat(r.Recorded, all)
	}
	for _, span := range all {
		if span.Until.IsZero() {
			span.Until = later.End
		}
		i := slices.IndexFunc(next.Recorded, func(known recording) bool { return known.Type == span.Type })
		if i < 0 {
			next.Recorded = append(next.Recorded, span)
		} else if span.Until.After(next.Recorded[i].Until) {
			next.Recorded[i].Until = span.Until
		}
	}
	return &next
}
