// Package store keeps events in one bbolt file and answers questions about them.
//
// Events are appended to memory and written to the file every flush interval as
// rows: one chunk for each type and hour. Hours that are full or over are
// sealed: their rows become blocks, which rollups count. Readers see memory,
// rows and blocks as one. Beside the events the file holds what is needed to
// judge an answer: when the program ran, what it recorded, what was lost and
// what was removed.
//
// The files here: open and schema (the file and its declarations), chunk,
// encode and decode (rows), memory and flush (the way in), seal, segments,
// rollups and days (from rows to blocks), view, events, merge and sources
// (single events), at, census, recordings and story (what was open, and what became of
// one), summary, scan and parts (figures), blocks, kept and wanted (reading
// blocks), parallel, spares, readahead, runs, losses, filtered and coverage (how far an answer can
// be trusted), retention, room and pins, carry, gather, marks and carried (what is open when
// its hour is removed), storage and status, check, and snapshot.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

var (
	// ErrInUse is returned by Open when another process has the file open.
	ErrInUse = errors.New("is in use by another ebpf-server; ask that one (without --db, or with --server http://127.0.0.1:8080), take a copy (ebpf-server snapshot FILE), or stop it")
	// ErrReadOnly is returned by what would write to a file opened with Options.ReadOnly.
	ErrReadOnly = errors.New("database is open for reading only")
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("database is closed")
)

// Options say which file to open and how.
type Options struct {
	Path string
	// FlushInterval is how often events are written to the file; default 5 s.
	FlushInterval time.Duration
	// Types may be appended and asked for. Types that only the file knows can
	// be asked for too.
	Types []*event.Type
	// Limits say how much is kept; SetLimits changes them.
	Limits Limits
	// Flushed is told of every flush that had something to write: how long it
	// took, and the error if it failed; default: nobody is.
	Flushed func(took time.Duration, err error)
	// Logger is told of what goes wrong in the background; default: nobody is.
	Logger *slog.Logger
	// ReadOnly is for a copied file: nothing can be appended, and the file is
	// not changed.
	ReadOnly bool

	now       func() time.Time // for tests
	sealAfter time.Duration    // for tests
}

// Store is an open file. All methods are safe for concurrent use.
type Store struct {
	options Options
	log     *slog.Logger
	now     func() time.Time
	db      *bbolt.DB
	file    *os.File // that of db
	codec   *codec
	schemas *schemas               // not changed after Open
	types   map[string]*event.Type // by name; not changed after Open
	forms   map[string]uint32      // of their rollups, see formOf; not changed after Open

	// writing is held by every transaction that writes, and by Check, which
	// bbolt does not allow beside one. Whoever takes mu too takes writing first.
	writing sync.Mutex
	// maintaining is held while rows become blocks, days are joined or old events
	// are removed. It comes before writing.
	maintaining sync.Mutex
	encoders    spares[*block.Encoder]
	buffers     spares[[]byte]          // for blocks
	spares      map[string]sparesOfType // by type; the map is not changed after Open
	limits      atomic.Pointer[Limits]
	kept        *keptBlocks

	// By blockID: what was read since Open. Damaged ones have their span.
	verified, verifiedIndexes, damaged, damagedIndexes, damagedRollups sync.Map
	// By hourOfType, and rollups by rollupID of the day: what was read ahead since Open.
	ahead sync.Map

	wake    chan struct{} // tells the loop that much is pending
	filled  chan struct{} // tells maintain that an hour has rows for a block
	stop    chan struct{} // closed by Close
	stopped sync.WaitGroup

	mu         sync.Mutex // for all below
	pending    *part
	left       int64 // events that the last flush left in pending
	flushing   *part // what a flush is writing now, or nil
	run        *run  // the present run, or nil before Start
	runKey     []byte
	lastFlush  time.Time
	lastError  error // of the last flush, nil if that succeeded
	errorSince time.Time
	appended   map[string]int64         // by type, since Open
	lost       map[lossKey]int64        // since Open
	written    map[hourOfType]time.Time // when rows were last written to an hour, if it is not sealed since
	sealedAt   map[hourOfType]time.Time // when blocks last came to a day, by its first hour, if lately
	copies     int                      // how many snapshots are taken
	copiedFrom time.Time                // when the first of them began
	closed     bool
}

// Types returns all types that can be asked for, by name: those of Options and
// those that only the file knows.
func (s *Store) Types() []*event.Type {
	return slices.SortedFunc(maps.Values(s.types), func(a, b *event.Type) int { return strings.Compare(a.Name, b.Name) })
}

// own returns the store's declaration of a type, which batches in memory have.
func (s *Store) own(t *event.Type) *event.Type {
	if own, ok := s.types[t.Name]; ok {
		return own
	}
	return t
}

// Start begins a run, which ends with Close, and the loop that flushes and
// removes old events. Runs before it that did not end have crashed.
func (s *Store) Start(r Run) error {
	if s.options.ReadOnly {
		return ErrReadOnly
	}
	if err := s.beginRun(r); err != nil {
		return fmt.Errorf("begin run: %w", err)
	}
	s.stopped.Go(s.loop)
	ctx, cancel := context.WithCancel(context.Background())
	s.stopped.Go(func() {
		<-s.stop
		cancel()
	})
	s.stopped.Go(func() { s.maintain(ctx) })
	return nil
}

func (s *Store) loop() {
	timer := time.NewTimer(s.options.FlushInterval)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-timer.C:
			_ = s.Flush() // keeps and logs its error itself
			timer.Reset(s.options.FlushInterval)
		case <-s.wake:
			_ = s.flush(flushFull)
			timer.Reset(s.flushIn()) // a flood goes into blocks only, without rows
		}
	}
}

// maintainInterval is how often rows to be sealed are looked for. A flush that
// fills an hour wakes the loop sooner.
const maintainInterval = 10 * time.Second

// maintain seals and removes beside the loop that flushes, which must not wait
// for it.
func (s *Store) maintain(ctx context.Context) {
	ticker := time.NewTicker(min(maintainInterval, s.limits.Load().interval()))
	defer ticker.Stop()
	var retained time.Time
	var failed string
	for {
		if s.now().Sub(retained) >= s.limits.Load().interval() {
			retained = s.now()
			if err := s.retain(); err != nil {
				s.log.Error("cannot remove old events", "error", err)
			}
		}
		text := ""
		if err := errors.Join(s.seal(ctx, false, nil), s.finishDays(ctx, false)); err != nil && ctx.Err() == nil {
			if text = err.Error(); text != failed { // it will fail again and again
				s.log.Error("cannot turn rows into blocks", "error", err)
			}
		}
		failed = text
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.dropSpares()
		case <-s.filled:
		}
	}
}

// Close writes what is pending, ends the run cleanly and closes the file. It
// waits for readers. If the last write fails, the file is closed all the same
// and the run counts as crashed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()

	close(s.stop)
	s.stopped.Wait()
	var err error
	if !s.options.ReadOnly {
		err = s.flush(flushEnd)
	}
	err = errors.Join(err, s.db.Close())
	s.codec.close()
	if err != nil {
		return fmt.Errorf("close %s: %w", s.options.Path, err)
	}
	return nil
}

// update runs a transaction that writes.
func (s *Store) update(change func(tx *bbolt.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return guard(func() error { return s.db.Update(change) })
}
