package store

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/srodi/ebpf-server/internal/event"
)

// run does the tasks on all processors.
func (c *counting) run() error {
	n := min(runtime.GOMAXPROCS(0), maxWorkers, len(c.tasks))
	if n <= 1 {
		return c.work(c.workers[0], new(atomic.Int64))
	}
	if _, err := c.worker(n - 1); err != nil {
		return err
	}
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		group.Go(func() {
			errs[i] = guard(func() error { return c.work(c.workers[i], &next) })
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (c *counting) work(w *worker, next *atomic.Int64) error {
	for {
		i := int(next.Add(1)) - 1
		if i >= len(c.tasks) {
			return nil
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.tasks[i](w); err != nil {
			return err
		}
	}
}

func (c *counting) chunk(s *Store, w *worker, value []byte, in span) error {
	k, err := s.codec.open(value, s.schemas)
	if err != nil {
		return err
	}
	b, err := k.batch(c.query.Type, append(c.matcher.Columns(), w.aggregator.Columns()...))
	if err != nil {
		return err
	}
	w.sel = c.matcher.Select(b, in.window(), w.sel[:0])
	return w.aggregator.Add(b, w.sel)
}

// block reads the columns that are counted only if some events match, and only
// the pages that they are in if those are few.
func (c *counting) block(s *Store, w *worker, stored storedBlock, in span) error {
	opened, err := s.openBlock(stored, c.query.Type)
	if errors.Is(err, errDamaged) {
		return nil
	}
	columns := w.aggregator.Columns()
	if c.query.Interval > 0 {
		columns = append(columns, event.Time)
	}
	var b *event.Batch
	var rows []int32
	if err == nil {
		rows, err = findRows(opened, stored, in, filtersOf(c.matcher))
	}
	switch {
	case err != nil:
	case len(rows) == 0:
		return nil
	case isNarrow(rows, opened.Rows()):
		b, err = opened.ReadRows(columns, rows)
		rows = allRows(len(rows))
	default:
		b, err = opened.Read(columns)
	}
	if err != nil {
		_ = s.damage(stored, err) // it is left out, and the coverage says so
		return nil
	}
	return w.aggregator.Add(b, rows)
}

// isNarrow tells whether rows, in order, are in less than half of a block's pages.
func isNarrow(rows []int32, of int) bool {
	const pageRows = 4096 // about as many as pages have
	pages, last := 0, int32(-1)
	for _, row := range rows {
		if page := row / pageRows; page != last {
			pages, last = pages+1, page
		}
	}
	return 2*pages*pageRows < of
}
