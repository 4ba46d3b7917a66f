package store

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// aliveInterval is how often a run that records nothing writes a sign of life:
// a commit costs some 37 KB of disk, whatever it holds.
const aliveInterval = 30 * time.Second

// Flush writes what is pending to the file. If that fails the events stay
// pending, and the next flush tries again.
func (s *Store) Flush() error {
	if s.options.ReadOnly {
		return ErrReadOnly
	}
	return s.flush(flushAll)
}

// What a flush writes.
type flushMode int

const (
	flushAll  flushMode = iota
	flushFull           // what makes good blocks; the rest waits for flushAll
	flushEnd            // all, and that the run has ended
)

func (s *Store) flush(mode flushMode) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.now()
	p, r, err := s.take(mode, now)
	if p == nil {
		return err
	}
	began := time.Now()
	encoded := s.encodePart(p)
	s.noteWritten(encoded, now)
	err = s.write(p, encoded, r, now)
	for _, ready := range encoded.sealed {
		s.forget(ready)
	}
	if err != nil && s.isStored(p) {
		err = nil
	}
	if s.options.Flushed != nil {
		s.options.Flushed(time.Since(began), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushing = nil
	if err != nil {
		s.pending = p.join(s.pending)
		return s.flushFailed(err, now)
	}
	if s.lastError != nil {
		s.log.Info("events are written to the file again", "failed_since", s.errorSince)
	}
	wakeUp(s.filled)
	s.run, s.lastFlush, s.lastError, s.errorSince = r, now, nil, time.Time{}
	return nil
}

// noteWritten notes what is about to be written, before it is in the file: there, maintain
// would take an hour for one to which nothing came for a while.
func (s *Store) noteWritten(e encodedPart, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range e.chunks {
		s.written[hourOfType{c.typeName, c.hour}] = now
	}
	for _, ready := range e.sealed {
		s.sealedAt[hourOfType{ready.typeName, dayOf(ready.hour)}] = now
	}
}

// take returns the part to write now and the record of the run that goes with
// it; no part if there is nothing to write.
func (s *Store) take(mode flushMode, now time.Time) (*part, *run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && mode != flushEnd {
		return nil, nil, ErrClosed
	}
	p, r := s.pending, s.run
	left := newPart(p.number+1, now)
	if mode == flushFull {
		if p.rows <= s.left+flushRows && p.rows <= bulkRows { // another flush was quicker
			return nil, nil, nil
		}
		if p, left = p.split(s.isOver); p.empty() {
			s.left = left.rows // look again when there is more
			return nil, nil, nil
		}
	}
	quiet := r == nil || now.Sub(r.Alive) < aliveInterval
	if p.empty() && quiet && mode != flushEnd {
		p.since = now
		return nil, nil, nil
	}
	s.flushing, s.pending, s.left = p, left, left.rows
	if r != nil { // until then all events are in the file
		r = r.alive(left.oldest(now), mode == flushEnd)
	}
	return p, r, nil
}

// flushIn returns for how long what is pending may wait: no event waits longer than
// the interval.
func (s *Store) flushIn() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	waited := now.Sub(s.pending.oldest(now))
	return min(max(0, s.options.FlushInterval-waited), s.options.FlushInterval)
}

// flushFailed needs mu.
func (s *Store) flushFailed(err error, now time.Time) error {
	if s.lastError == nil {
		s.errorSince = now
		s.log.Error("cannot write events to the file; they are kept in memory", "error", err, "pending", s.pending.rows)
	}
	s.lastError = err
	return fmt.Errorf("write events to %s: %w", s.options.Path, err)
}

// isStored tells whether a part is in the file although its commit reported an
// error: the last step of a commit is to sync a page that is written already.
func (s *Store) isStored(p *part) bool {
	stored := false
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			stored = storedFlush(tx) >= p.number
			return nil
		})
	})
	return err == nil && stored
}

// storedFlush returns the number of the last part that is in the file.
func storedFlush(tx *bbolt.Tx) uint64 {
	return uint64(getInt(tx.Bucket(bucketMeta).Get(keyFlush)))
}

// write stores a part and the run's sign of life in one transaction.
func (s *Store) write(p *part, encoded encodedPart, r *run, now time.Time) error {
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, ready := range encoded.sealed { // before chunks: it removes those that were there
				if err := s.putSealed(tx, ready); err != nil {
					return err
				}
			}
			for _, c := range encoded.chunks {
				if err := c.put(tx); err != nil {
					return err
				}
			}
			if err := putLosses(tx, p, now); err != nil {
				return err
			}
			if err := putFiltered(tx, p); err != nil {
				return err
			}
			if r != nil {
				if err := putRun(tx, s.runKey, r); err != nil {
					return err
				}
			}
			return tx.Bucket(bucketMeta).Put(keyFlush, putInt(int64(p.number)))
		})
	})
}
