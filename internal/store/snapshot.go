package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// Snapshot writes a copy of the file, as of now, and returns its size. Writing
// goes on meanwhile, into pages that the copy does not need: there is room for an
// hour of that, and then the file grows.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) (n int64, err error) {
	if !s.options.ReadOnly {
		if err := s.Flush(); err != nil {
			return 0, err
		}
	}
	s.beginCopy()
	defer s.endCopy()
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			n, err = tx.WriteTo(contextWriter{ctx, w})
			return err
		})
	})
	if ctx.Err() != nil {
		err = ctx.Err() // bbolt does not wrap it
	}
	if err != nil {
		return n, fmt.Errorf("copy %s: %w", s.options.Path, err)
	}
	return n, nil
}

// beginCopy makes room before. Who wants a copy may be about to lose the file, so
// it goes on without.
func (s *Store) beginCopy() {
	if !s.options.ReadOnly {
		if err := s.roomForCopy(); err != nil {
			s.log.Warn("the file will grow while it is copied", "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copies == 0 {
		s.copiedFrom = s.now()
	}
	s.copies++
}

func (s *Store) endCopy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies--
}

func (s *Store) isCopied() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copies > 0
}

// isCopiedSince tells whether an hour or a day had begun when a snapshot did that
// is still taken. Its rows and small blocks stay until then: to replace them takes
// room, and gives none.
func (s *Store) isCopiedSince(first int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copies > 0 && hourStart(first).Before(s.copiedFrom)
}

// contextWriter stops when its context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// compactStep is how much is written in one transaction.
const compactStep = 16 << 20

// Compact writes a file anew at its smallest: everything in blocks, pages full
// and none free. Nobody else may have it open, and to must not exist. Progress,
// if not nil, is told bytes, or hours while rows become blocks.
func Compact(ctx context.Context, from, to string, progress func(done, total int64)) (err error) {
	if _, err := os.Stat(to); err == nil {
		return fmt.Errorf("compact into %s: there is such a file already", to)
	}
	s, err := Open(Options{Path: from})
	if err != nil {
		return err
	}
	err = s.Seal(ctx, true, progress)
	if err := errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("compact %s: %w", from, err)
	}
	src, _, err := openFile(from, true)
	if err != nil {
		return fmt.Errorf("compact %s: %w", from, err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := copyCompact(ctx, src, to, progress); err != nil {
		return errors.Join(fmt.Errorf("compact %s into %s: %w", from, to, err), os.Remove(to))
	}
	return nil
}

func copyCompact(ctx context.Context, src *bbolt.DB, to string, progress func(done, total int64)) (err error) {
	dst, err := bbolt.Open(to, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistArrayType, NoSync: true})
	if err != nil {
		return reason(err)
	}
	dst.AllocSize = growStep
	defer func() { err = errors.Join(err, dst.Sync(), dst.Close()) }()
	copied := make(chan error, 1)
	go func() { copied <- guard(func() error { return bbolt.Compact(dst, src, compactStep) }) }()
	total := int64(1)
	if info, err := os.Stat(src.Path()); err == nil {
		total = info.Size()
	}
	ticker := time.NewTicker(time.Second / 4)
	defer ticker.Stop()
	for {
		select {
		case err := <-copied:
			return errors.Join(err, ctx.Err())
		case <-ticker.C:
			if info, err := os.Stat(to); err == nil && progress != nil {
				progress(min(info.Size(), total), total)
			}
		}
	}
}
