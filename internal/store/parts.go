package store

import (
	"fmt"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// What events of a type and a time span are in: for those who look at all of them,
// in any order, on all processors.

// blocksOf calls do with the blocks of a day that have events in a span and may
// have some that are wanted. They can be read as long as the view lasts.
func (v *view) blocksOf(t *event.Type, day int64, in span, w wanted, do func(b storedBlock)) error {
	segments, err := segmentsIn(v.tx, t.Name, day, hoursOfDay)
	if err != nil {
		return err
	}
	v.readAheadBlocks(t.Name, in)
	for _, g := range segments {
		if s := g.span(); s.from >= in.until || s.until <= in.from {
			continue
		}
		err := v.blocks(t, g, in, w, func(b storedBlock) error {
			v.fetch(&b)
			do(b)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rowsIn calls chunk and batch with what is not in blocks. What chunk is given to
// name the place of an error returns nil for none.
func (v *view) rowsIn(typeName string, in span, chunk func(value []byte, failed func(error) error), batch func(b *event.Batch)) error {
	err := forEachHour(v.tx, typeName, func(hour int64, h hourRecord) error {
		if !in.overlaps(h.min, h.max) {
			return nil
		}
		return v.chunks(typeName, hour, in, func(sequence int64, _ chunkHeader, value []byte) error {
			chunk(value, func(err error) error {
				if err != nil {
					err = fmt.Errorf("%s of hour %s: chunk %d: %w", typeName, hourStart(hour).Format(time.RFC3339), sequence, err)
				}
				return err
			})
			return nil
		})
	})
	v.batches(typeName, func(m memoryBatch) {
		if in.overlaps(m.min, m.max) {
			batch(m.Batch)
		}
	})
	return err
}
