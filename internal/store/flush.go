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
	return s.flush(false)
}

func (s *Store) flush(end bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.now()
	s.mu.Lock()
	if s.closed && !end {
		s.mu.Unlock()
		return ErrClosed
	}
	p, r := s.pending, s.run
	quiet := r == nil || now.Sub(r.Alive) < aliveInterval
	if p.empty() && quiet && !end {
		p.since = now
		s.mu.Unlock()
		return nil
	}
	s.flushing, s.pending = p, newPart(p.number+1, now)
	s.mu.Unlock()

	if r != nil {
		r = r.alive(now, end)
	}
	err := s.write(p, r, now)
	if err != nil && s.isStored(p) {
		err = nil
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
	s.run, s.lastFlush, s.lastError, s.errorSince = r, now, nil, time.Time{}
	return nil
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
func (s *Store) write(p *part, r *run, now time.Time) error {
	chunks := s.encodePart(p)
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, c := range chunks {
				if err := c.put(tx); err != nil {
					return err
				}
			}
			if err := putLosses(tx, p, now); err != nil {
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
