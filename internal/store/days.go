package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// A day is done when it is over and none of its events are in rows. Then its
// hours get a rollup together, and are joined if they have few events: their
// blocks would be small, and what each costs beside its events much.

// doneDay is a day that is done, with its segments.
type doneDay struct {
	t        *event.Type
	first    int64
	segments []segment
	records  []segmentRecord
}

// finishDays makes what days that are done lack. Unless it is all, days to which
// blocks came just now wait: more may come, as during an import.
func (s *Store) finishDays(ctx context.Context, all bool) error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	var errs []error
	for _, t := range s.Types() {
		days, err := s.doneDays(t, all)
		if err != nil {
			return err
		}
		for _, day := range days {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := s.makeDay(day)
			if err == nil && day.isScattered() && !s.hasDamage(t.Name, segment{day.first, hoursOfDay}.span()) {
				err = s.joinHours(day)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("finish %s of day %s: %w", t.Name, hourStart(day.first).Format(time.DateOnly), err))
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Store) doneDays(t *event.Type, all bool) (days []doneDay, err error) {
	err = s.view(func(v *view) error {
		open := make(map[int64]bool)
		s.mu.Lock()
		for at, when := range s.sealedAt {
			if v.now.Sub(when) > s.options.sealAfter {
				delete(s.sealedAt, at)
			} else if at.typeName == t.Name && !all {
				open[at.hour] = true
			}
		}
		s.mu.Unlock()
		err := forEachHour(v.tx, t.Name, func(hour int64, _ hourRecord) error {
			open[dayOf(hour)] = true
			return nil
		})
		if err != nil {
			return err
		}
		return forEachSegment(v.tx, t.Name, func(g segment, r segmentRecord) error {
			day := dayOf(g.first)
			if open[day] || v.now.Sub(hourStart(day+hoursOfDay)) <= s.options.sealAfter {
				return nil
			}
			if n := len(days); n == 0 || days[n-1].first != day {
				days = append(days, doneDay{t: t, first: day})
			}
			last := &days[len(days)-1]
			last.segments, last.records = append(last.segments, g), append(last.records, r)
			return nil
		})
	})
	return days, err
}

// isScattered tells whether the events of a day would fit into a quarter of its
// blocks. To join those of busier days costs more than it saves.
func (d doneDay) isScattered() bool {
	var blocks, rows int64
	for _, r := range d.records {
		blocks, rows = blocks+r.blocks, rows+r.rows
	}
	return 4*((rows+block.MaxRows-1)/block.MaxRows) <= blocks
}

// hasDamage tells whether a block with events of a span is known to be damaged: a
// day with one stays as it is.
func (s *Store) hasDamage(typeName string, in span) (found bool) {
	s.damaged.Range(func(id, of any) bool {
		found = id.(blockID).typeName == typeName && in.overlaps(of.(span).from, of.(span).until-1)
		return !found
	})
	return found
}

// isUnchanged tells whether nothing was added to the day or removed since.
func (d doneDay) isUnchanged(tx *bbolt.Tx) (bool, error) {
	segments, err := segmentsIn(tx, d.t.Name, d.first, hoursOfDay)
	if err != nil || !slices.Equal(segments, d.segments) {
		return false, err
	}
	for i, g := range segments {
		r, err := readSegmentRecord(tx.Bucket(bucketSegments).Bucket([]byte(d.t.Name)).Get(g.key()))
		if err != nil || r != d.records[i] {
			return false, err
		}
	}
	return true, nil
}

// makeDay makes the rollup of a day, unless it has one or some of it was removed.
func (s *Store) makeDay(d doneDay) error {
	var made rollup
	err := s.view(func(v *view) error {
		if rollupBucket(v.tx, bucketDays, d.t.Name, d.first) != nil || v.removed(d.t.Name) > hourStart(d.first).UnixNano() {
			return nil
		}
		var buckets []*bbolt.Bucket
		err := forEachRollup(v.tx, bucketRollups, d.t.Name, segment{d.first, hoursOfDay}.span(), func(_ int64, bucket *bbolt.Bucket) error {
			buckets = append(buckets, bucket)
			return nil
		})
		if err != nil || len(buckets) < 2 || slices.ContainsFunc(buckets, func(b *bbolt.Bucket) bool { return !s.usable(b, d.t) }) {
			return err
		}
		sum := s.newCount(d.t)
		defer s.forgetCount(d.t, sum)
		for _, bucket := range buckets {
			err := s.codec.addWhole(sum, d.t, bucket, d.first)
			if tooMany(err) || errors.Is(err, errDamagedRollup) {
				made = noRollup()
				return nil
			}
			if err != nil {
				return err
			}
		}
		made = s.codec.encodeRollup(d.t, sum)
		return nil
	})
	if err != nil || made == nil {
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		if unchanged, err := d.isUnchanged(tx); err != nil || !unchanged {
			return err
		}
		return made.put(tx, bucketDays, d.t.Name, d.first)
	})
}

// joinHours makes full blocks of a day out of small ones. Rollups stay as they
// are. A block that cannot be read keeps its day as it is.
func (s *Store) joinHours(d doneDay) error {
	var blocks []encodedBlock
	rest := event.NewBatch(d.t, 2*block.MaxRows)
	for hour := d.first; hour < d.first+hoursOfDay; hour++ {
		if err := s.view(func(v *view) error { return v.appendHour(rest, d.segments, hour) }); err != nil {
			return err
		}
		for rest.Len() >= block.MaxRows || hour == d.first+hoursOfDay-1 && rest.Len() > 0 {
			n := min(block.MaxRows, rest.Len())
			var err error
			if blocks, err = s.encodeBlocks(blocks, slice(rest, 0, n)); err != nil {
				return err
			}
			rest = cloneRows(rest, n, rest.Len())
		}
	}
	return s.update(func(tx *bbolt.Tx) error {
		if unchanged, err := d.isUnchanged(tx); err != nil || !unchanged {
			return err
		}
		for _, g := range d.segments {
			if err := removeSegment(tx, d.t.Name, g); err != nil {
				return err
			}
		}
		for _, b := range blocks {
			if err := b.put(tx, d.t.Name, segment{d.first, hoursOfDay}); err != nil {
				return err
			}
		}
		return nil
	})
}

// appendHour appends the events of an hour from blocks, in order.
func (v *view) appendHour(to *event.Batch, segments []segment, hour int64) error {
	in := segment{hour, 1}.span()
	var blocks []storedBlock
	for _, g := range segments {
		if s := g.span(); s.from >= in.until || s.until <= in.from {
			continue
		}
		err := v.blocks(to.Type, g, in, nil, func(b storedBlock) error {
			blocks = append(blocks, b)
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(blocks, func(a, b storedBlock) int { return int(a.number - b.number) })
	var pieces []*event.Batch
	for _, b := range blocks {
		v.fetch(&b)
		opened, err := v.s.openBlock(b, to.Type)
		if err != nil {
			return err
		}
		batch, err := opened.Read(allColumns(to.Type))
		if err != nil {
			return v.s.damage(b, err)
		}
		from, _ := slices.BinarySearch(batch.Columns[event.Time].Ints, in.from)
		until, _ := slices.BinarySearch(batch.Columns[event.Time].Ints, in.until)
		pieces = append(pieces, slice(batch, from, until))
	}
	switch len(pieces) {
	case 0:
	case 1: // as it is in most hours: it is in order
		to.AppendRows(pieces[0], nil)
	default:
		to.AppendRows(block.Sort(join(pieces)), nil)
	}
	return nil
}
