package store

import (
	"errors"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// run does the tasks on all processors, and forgets them.
func (c *counting) run() error {
	workers := processors()
	tasks := slices.Concat(c.long, c.tasks)
	c.long, c.tasks, c.work = c.long[:0], c.tasks[:0], 0
	if err := c.worker(max(1, min(workers, len(tasks))) - 1); err != nil {
		return err
	}
	return inParallel(workers, len(tasks), func(worker, task int) error {
		if err := c.ctx.Err(); err != nil || c.more != nil && !c.more() {
			return err
		}
		return tasks[task](c.workers[worker])
	})
}

func (c *counting) chunk(s *Store, w *worker, value []byte, in span) error {
	if err := s.codec.openInto(&w.opened, value, s.schemas); err != nil {
		return err
	}
	b, err := w.opened.batch(c.query.Type, append(c.matcher.Columns(), w.counter.Columns()...))
	if err != nil {
		return err
	}
	w.sel = c.matcher.Select(b, in.window(), w.sel[:0])
	return w.counter.Add(b, w.sel)
}

// block reads the columns that are counted only if some events match, and only
// the pages that they are in if those are few.
func (c *counting) block(s *Store, w *worker, stored storedBlock, in span) error {
	columns := w.counter.Columns()
	var b *event.Batch
	var rows []int32
	err := s.readBlock(stored, c.query.Type, func(opened *block.Block) (err error) {
		rows, err = findRows(w.sel, opened, stored, in, filtersOf(c.matcher))
		if err != nil || len(rows) == 0 {
			return err
		}
		w.sel = rows
		first, end := rows[0], rows[len(rows)-1]+1
		if isNarrow(rows, opened.Rows()) {
			b, err = opened.ReadRows(columns, rows)
			for i := range rows {
				rows[i] = int32(i)
			}
			return err
		}
		b, err = opened.ReadRange(&w.events, columns, int(first), int(end))
		for i := range rows {
			rows[i] -= first
		}
		return err
	})
	if errors.Is(err, errDamaged) { // it is left out, and the coverage says so
		return nil
	}
	if err != nil || len(rows) == 0 {
		return err
	}
	return w.counter.Add(b, rows)
}

// isNarrow tells whether some rows, in order, are better read one by one than with
// all rows of their pages: they are in less than half of a block's pages, and
// do not follow each other for half a page.
func isNarrow(rows []int32, of int) bool {
	const pageRows = 4096 // about as many as pages have
	if n := len(rows); n > pageRows/2 && int(rows[n-1]-rows[0]) == n-1 {
		return false
	}
	pages, last := 0, int32(-1)
	for _, row := range rows {
		if page := row / pageRows; page != last {
			pages, last = pages+1, page
		}
	}
	return 2*pages*pageRows < of
}
