package store

import (
	"errors"
	"maps"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// gather returns the events of the unit that are carried over.
func (c *carrier) gather() (*event.Batch, error) {
	t, in := c.q.Type, c.unit.span()
	all := event.NewBatch(t, 0)
	some := false
	for m := range c.keep {
		some = some || in.overlaps(m.at, m.at)
	}
	if !some {
		return all, nil
	}
	return all, c.s.view(func(v *view) error {
		var failed error
		err := v.blocksOf(t, dayOf(c.unit.first), in, nil, func(b storedBlock) {
			err := c.s.readBlock(b, t, func(opened *block.Block) error {
				some, err := opened.Read(c.marks.columns)
				if err != nil {
					return err
				}
				if rows := c.chosen(some); len(rows) > 0 {
					if some, err = opened.ReadRows(allColumns(t), rows); err == nil {
						all.AppendRows(some, nil)
					}
				}
				return err
			})
			if !errors.Is(err, errDamaged) {
				failed = errors.Join(failed, err)
			}
		})
		if err != nil {
			return err
		}
		chunk := func(value []byte, name func(error) error) {
			k, err := c.s.codec.open(value, c.s.schemas)
			if err == nil {
				err = c.gatherChunk(all, k)
			}
			failed = errors.Join(failed, name(err))
		}
		return errors.Join(v.rowsIn(t.Name, in, chunk, func(*event.Batch) {}), failed)
	})
}

func (c *carrier) gatherChunk(all *event.Batch, k *chunk) error {
	b, err := k.batch(c.q.Type, c.marks.columns)
	if err != nil {
		return err
	}
	rows := c.chosen(b)
	if len(rows) == 0 {
		return nil
	}
	if err := k.fill(b, allColumns(c.q.Type)); err != nil {
		return err
	}
	all.AppendRows(b, rows)
	return nil
}

// chosen returns the rows that are carried over.
func (c *carrier) chosen(b *event.Batch) (rows []int32) {
	of := c.things(&b.Columns[c.marks.id])
	for _, m := range c.marks.of(b) {
		switch c.keep[mark{of(m.row), b.Columns[event.Time].Ints[m.row]}] {
		case keepAlways:
			rows = append(rows, m.row)
		case keepIfBegun:
			if !m.found {
				rows = append(rows, m.row)
			}
		}
	}
	return rows
}

// rewrite plans chunks of what comes, and of what stays of those of which
// something goes.
func (c *carrier) rewrite(plan *carryOver, rows *event.Batch) error {
	t := c.q.Type
	for _, old := range c.carried {
		stay := c.chosen(old.batch)
		if len(stay) == old.batch.Len() {
			continue
		}
		plan.removes, plan.grown = append(plan.removes, old.key), plan.grown-int64(old.size)
		if len(stay) == 0 {
			continue
		}
		if err := old.chunk.fill(old.batch, allColumns(t)); err != nil {
			return err
		}
		rows.AppendRows(old.batch, stay)
	}
	if rows.Len() == 0 {
		return nil
	}
	sorted := event.Sort(rows)
	byHour := rowsByHour(sorted)
	for _, hour := range slices.Sorted(maps.Keys(byHour)) {
		piece := event.NewBatch(t, len(byHour[hour]))
		piece.AppendRows(sorted, byHour[hour])
		plan.puts = c.s.encodeBatch(plan.puts, piece, hour)
	}
	for _, put := range plan.puts {
		plan.grown += int64(len(put.value))
	}
	return nil
}
