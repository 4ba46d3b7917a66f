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
			if open[day] || !all && s.isCopiedSince(day) || v.now.Sub(hourStart(day+hoursOfDay)) <= s.options.sealAfter {
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
	joined, err := s.encodeDay(d)
	if err != nil {
		return err
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
		for _, b := range joined.blocks {
			if err := b.put(tx, d.t.Name, segment{d.first, hoursOfDay}); err != nil {
				return err
			}
		}
		return nil
	})
}

// encodeDay makes blocks of the events of a day's blocks, hour by hour.
func (s *Store) encodeDay(d doneDay) (joined *sealed, err error) {
	joined = s.newSealed(hourOfType{d.t.Name, d.first})
	var batches []*event.Batch // of which there are no blocks yet
	for hour := d.first; hour < d.first+hoursOfDay; hour++ {
		err := s.view(func(v *view) (err error) {
			batches, err = v.appendHour(batches, d.t, d.segments, hour)
			return err
		})
		if err != nil {
			return nil, err
		}
		last := hour == d.first+hoursOfDay-1
		for rows := eventsIn(batches); rows >= block.MaxRows || last && rows > 0; rows = eventsIn(batches) {
			events, n := s.sequence(batches...), min(block.MaxRows, rows)
			err = s.encodeBlocks(joined, piece{events, 0, n})
			batches = []*event.Batch{events.Batch(n, rows)}
			s.forgetSequence(events)
			if err != nil {
				return nil, err
			}
		}
	}
	return joined, nil
}

// appendHour appends the events of an hour from blocks, those of one time in the order in
// which they came.
func (v *view) appendHour(batches []*event.Batch, t *event.Type, segments []segment, hour int64) ([]*event.Batch, error) {
	in := segment{hour, 1}.span()
	var blocks []storedBlock
	for _, g := range segments {
		if s := g.span(); s.from >= in.until || s.until <= in.from {
			continue
		}
		err := v.blocks(t, g, in, nil, func(b storedBlock) error {
			blocks = append(blocks, b)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(blocks, func(a, b storedBlock) int { return int(a.number - b.number) })
	for _, b := range blocks {
		v.fetch(&b)
		opened, err := v.s.openBlock(b, t)
		if err != nil {
			return nil, err
		}
		batch, err := opened.Read(allColumns(t))
		if err != nil {
			return nil, v.s.damage(b, err)
		}
		from, _ := slices.BinarySearch(batch.Columns[event.Time].Ints, in.from)
		until, _ := slices.BinarySearch(batch.Columns[event.Time].Ints, in.until)
		batches = append(batches, slice(batch, from, until))
	}
	return batches, nil
}
