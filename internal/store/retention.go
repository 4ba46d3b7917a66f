package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Limits say how much is kept. Whichever is reached first counts.
type Limits struct {
	MaxAge   map[string]time.Duration // by type name; none or 0: for ever
	MaxSize  map[string]int64         // by type name, in bytes of values; none or 0: no limit
	MaxTotal int64                    // bytes of pages in use, of all types together; 0: no limit
}

// SetLimits changes the limits; the next look for old events goes by them, and
// answers at once.
func (s *Store) SetLimits(l Limits) { s.limits.Store(&l) }

// tooBig tells whether a type that takes so many bytes is over its limit.
func (l *Limits) tooBig(typeName string, bytes int64) bool {
	most := l.MaxSize[typeName]
	return most > 0 && bytes > most
}

// retentionInterval is how often old events are looked for.
func (l *Limits) interval() time.Duration {
	interval := time.Minute
	for _, maxAge := range l.MaxAge {
		if maxAge > 0 {
			interval = min(interval, maxAge/2)
		}
	}
	if len(l.MaxSize) > 0 || l.MaxTotal > 0 {
		interval = min(interval, maintainInterval)
	}
	return interval
}

// unit is what goes at once: an hour of a type, or a day whose hours are joined.
type unit struct {
	typeName string
	segment
	max   int64 // time of the last event
	bytes int64
}

// retain removes what is over a limit, oldest first, but nothing that is pinned
// and never the present hour. Events that are too old in a unit that stays are
// hidden from answers already, see view.removed.
func (s *Store) retain() error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	limits, now := s.limits.Load(), s.now()
	// What was removed or hidden once goes too, if late events came or a pin is gone.
	removed, sizes := make(map[string]int64), make(map[string]int64)
	var units []unit
	var used int64
	err := s.view(func(v *view) (err error) {
		for name := range s.types {
			removed[name] = v.removed(name)
			if sizes[name], err = v.carriedBytes(name); err != nil {
				return err
			}
		}
		units, used, err = v.unpinned()
		return err
	})
	if err != nil {
		return err
	}
	due := limits.MaxTotal > 0 && used > limits.MaxTotal
	for _, u := range units {
		sizes[u.typeName] += u.bytes
		due = due || u.max < removed[u.typeName] || limits.tooBig(u.typeName, sizes[u.typeName])
	}
	if err := s.keepRoom(due); err != nil { // before anything goes: the file is at its fullest now
		s.log.Warn("there may be too little room in the file, so that it may grow", "error", err)
	}
	var errs []error
	for _, u := range units {
		end := u.span().until
		limit := removed[u.typeName]
		tooBig := limits.tooBig(u.typeName, sizes[u.typeName]) || limits.MaxTotal > 0 && used > limits.MaxTotal
		switch {
		case tooBig && end <= now.UnixNano():
			limit = max(limit, end)
		case u.max >= limit:
			continue
		}
		carried, err := s.remove(u, limit)
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s of %s: %w", u.typeName, u.segment, err))
			continue
		}
		sizes[u.typeName] += carried - u.bytes
		if limits.MaxTotal > 0 {
			used = s.usedBytes() // pages take more than what is in them
		}
	}
	return errors.Join(append(errs, s.limitCarried(limits), s.removeCounts(), s.joinRuns())...)
}

// remove removes a unit, unless something has come to it that is not before limit,
// and carries over what is still needed of it: so many bytes more than before.
func (s *Store) remove(u unit, limit int64) (grown int64, err error) {
	var plan *carryOver
	if s.types[u.typeName].Life != nil {
		if plan, err = s.planCarryOver(u, min(limit, u.span().until)); err != nil {
			return 0, err
		}
		grown = plan.grown
	}
	return grown, s.update(func(tx *bbolt.Tx) error {
		if recent, err := u.isRecent(tx, limit); err != nil || recent {
			return err
		}
		if plan == nil {
			return removeUnit(tx, u, limit)
		}
		if unchanged, err := plan.isUnchanged(tx); err != nil || !unchanged { // next time
			return err
		}
		if err := keepCarried(tx); err != nil { // while it is known what was removed before
			return err
		}
		return errors.Join(removeUnit(tx, u, limit), plan.apply(tx))
	})
}

// unpinned returns all that may be removed, oldest first, and the bytes of all
// pages in use.
func (v *view) unpinned() (units []unit, used int64, err error) {
	for name := range v.s.types {
		ofType, err := v.units(name)
		if err != nil {
			return nil, 0, err
		}
		pinned, err := v.pinned(name)
		if err != nil {
			return nil, 0, err
		}
		units = append(units, slices.DeleteFunc(ofType, func(u unit) bool {
			return len(cut(slices.Clone(pinned), u.span())) > 0
		})...)
	}
	slices.SortStableFunc(units, func(a, b unit) int { return int(a.first - b.first) })
	return units, v.usedBytes(), nil
}

// units returns what there is of a type, in order.
func (v *view) units(typeName string) (units []unit, err error) {
	byFirst := make(map[int64]*unit)
	days := make(map[int64]bool)
	note := func(g segment, last, bytes int64) {
		if days[dayOf(g.first)] {
			g = segment{dayOf(g.first), hoursOfDay}
		}
		u := byFirst[g.first]
		if u == nil {
			u = &unit{typeName: typeName, segment: g, max: last}
			byFirst[g.first] = u
		}
		u.max, u.bytes = max(u.max, last), u.bytes+bytes
	}
	err = forEachSegment(v.tx, typeName, func(g segment, _ segmentRecord) error {
		if g.hours == hoursOfDay {
			days[g.first] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		forEachSegment(v.tx, typeName, func(g segment, r segmentRecord) error {
			note(g, r.max, r.blockBytes+r.indexBytes)
			return nil
		}),
		forEachHour(v.tx, typeName, func(hour int64, h hourRecord) error {
			note(segment{hour, 1}, h.max, h.bytes)
			return nil
		}),
		forEachRollup(v.tx, bucketRollups, typeName, allTime, func(hour int64, bucket *bbolt.Bucket) error {
			note(segment{hour, 1}, allTime.from, rollupBytes(bucket))
			return nil
		}))
	for _, u := range byFirst {
		units = append(units, *u)
	}
	slices.SortFunc(units, func(a, b unit) int { return int(a.first - b.first) })
	return units, err
}

// isRecent tells whether a unit has events that are not before limit.
func (u unit) isRecent(tx *bbolt.Tx, limit int64) (recent bool, err error) {
	err = forEachSegment(tx, u.typeName, func(g segment, r segmentRecord) error {
		recent = recent || u.has(g.first) && r.max >= limit
		return nil
	})
	if err != nil {
		return false, err
	}
	return recent, forEachHour(tx, u.typeName, func(hour int64, h hourRecord) error {
		recent = recent || u.has(hour) && h.max >= limit
		return nil
	})
}

func (u unit) has(hour int64) bool { return hour >= u.first && hour < u.first+u.hours }

// removeUnit removes a unit, and remembers how far nothing is complete any more.
func removeUnit(tx *bbolt.Tx, u unit, limit int64) error {
	segments, err := segmentsIn(tx, u.typeName, u.first, u.hours)
	if err != nil {
		return err
	}
	var hours []int64
	err = forEachHour(tx, u.typeName, func(hour int64, _ hourRecord) error {
		if u.has(hour) {
			hours = append(hours, hour)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, g := range segments {
		if err := removeSegment(tx, u.typeName, g); err != nil {
			return err
		}
	}
	name := []byte(u.typeName)
	for _, hour := range hours {
		if err := tx.Bucket(bucketEvents).Bucket(name).DeleteBucket(putInt(hour)); err != nil {
			return err
		}
		if err := tx.Bucket(bucketHours).Bucket(name).Delete(putInt(hour)); err != nil {
			return err
		}
	}
	for hour := u.first; hour < u.first+u.hours; hour++ {
		if err := removeRollup(tx, bucketRollups, u.typeName, hour); err != nil {
			return err
		}
	}
	if err := removeRollup(tx, bucketDays, u.typeName, dayOf(u.first)); err != nil {
		return err
	}
	return noteRemoved(tx, u.typeName, min(limit, u.span().until))
}

func noteRemoved(tx *bbolt.Tx, typeName string, until int64) error {
	removed, name := tx.Bucket(bucketMeta).Bucket(bucketRemoved), []byte(typeName)
	if old := removed.Get(name); old != nil {
		until = max(until, getInt(old))
	}
	return removed.Put(name, putInt(until))
}

// removeCounts removes what coverage counts of times that no answer shows any
// more. It does not go with its hour: one of which nothing was recorded is no unit.
func (s *Store) removeCounts() error {
	old := make(map[string]*oldCounts) // by type
	found := false
	err := s.view(func(v *view) error {
		for name := range s.types {
			counts, err := v.oldCounts(name)
			if err != nil {
				return err
			}
			old[name] = counts
			found = found || len(counts.losses) > 0 || len(counts.filtered) > 0
		}
		return nil
	})
	if err != nil || !found {
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		for name, counts := range old {
			err := errors.Join(
				s.noteLostCarried(tx, name, counts.losses),
				deleteAll(lossesOf(tx, name), counts.losses),
				deleteAll(tx.Bucket(bucketCoverage).Bucket(bucketFiltered), counts.filtered))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func deleteAll(from *bbolt.Bucket, keys [][]byte) error {
	for _, key := range keys {
		if err := from.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// oldCounts are the keys of a type's counts of times that are not shown.
type oldCounts struct{ losses, filtered [][]byte }

func (v *view) oldCounts(typeName string) (*oldCounts, error) {
	pinned, err := v.pinned(typeName)
	if err != nil {
		return nil, err
	}
	removed := max(v.removed(typeName), 0)
	removed -= removed % int64(time.Hour) // so that there is a commit an hour, not one a minute
	// Keys are in the order in which their spans end.
	find := func(counts *bbolt.Bucket, spanOf func(key []byte) (in span, ok bool)) (old [][]byte) {
		if counts == nil {
			return nil
		}
		cursor := counts.Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			in, ok := spanOf(key)
			if in.until > removed {
				break
			}
			if ok && len(cut(slices.Clone(pinned), in)) == 0 {
				old = append(old, bytes.Clone(key))
			}
		}
		return old
	}
	return &oldCounts{
		losses: find(lossesOf(v.tx, typeName), lossSpanOf),
		filtered: find(v.tx.Bucket(bucketCoverage).Bucket(bucketFiltered), func(key []byte) (span, bool) {
			hour, k, ok := readFilteredKey(key)
			return segment{hour, 1}.span(), ok && k.typeName == typeName
		}),
	}, nil
}
