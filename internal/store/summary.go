package store

import (
	"context"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Summary counts and adds up. A window that is open at its end reaches to now,
// one that is open at its beginning to the oldest there is.
func (s *Store) Summary(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	q.Type = s.own(q.Type)
	if err := q.Validate(); err != nil {
		return nil, err
	}
	err := s.view(func(v *view) error {
		c, err := v.coverage([]*event.Type{q.Type}, q.Window)
		if q.Window.Since.IsZero() {
			q.Window.Since = c.From
		}
		if q.Window.Until.IsZero() {
			q.Window.Until = v.now
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var result *query.SummaryResult
	switch {
	case q.FirstSeen:
		result, err = s.firstSeen(ctx, q)
	case q.Compare > 0:
		result, err = s.compare(ctx, q)
	default:
		var a *query.Aggregator
		if a, err = s.count(ctx, q); err == nil {
			result = a.Result()
		}
	}
	if err != nil {
		return nil, err
	}
	result.Coverage, err = s.coverageOf(q.Type, q.Window)
	return result, err
}

func (s *Store) coverageOf(t *event.Type, w query.Window) (c query.Coverage, err error) {
	err = s.view(func(v *view) (err error) {
		c, err = v.coverage([]*event.Type{t}, w)
		return err
	})
	return c, err
}

// compare answers beside the figures of an earlier window.
func (s *Store) compare(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	earlier := q.Before()
	now, err := s.count(ctx, q)
	if err != nil {
		return nil, err
	}
	before, err := s.count(ctx, earlier)
	if err != nil {
		return nil, err
	}
	result, err := now.Compared(before)
	if err != nil {
		return nil, err
	}
	result.Before.Coverage, err = s.coverageOf(q.Type, earlier.Window)
	return result, err
}

// count counts the events of a window that has both ends.
func (s *Store) count(ctx context.Context, q query.Summary) (*query.Aggregator, error) {
	var all []*query.Aggregator
	err := newCounting(ctx, q, func() (counter, error) {
		a, err := query.NewAggregator(q)
		all = append(all, a)
		return a, err
	}).all(s)
	if err != nil {
		return nil, err
	}
	return merged(all)
}

// merged returns what all have counted.
func merged(all []*query.Aggregator) (*query.Aggregator, error) {
	for _, other := range all[1:] {
		if err := all[0].Merge(other); err != nil {
			return nil, err
		}
	}
	return all[0], nil
}

// days returns the days in which a type has events in a span, by their first hours.
func (v *view) days(t *event.Type, in span) ([]int64, error) {
	var days []int64
	note := func(first, last int64) {
		if in.overlaps(first, last) {
			for day := dayOf(hourOf(first)); day <= hourOf(last); day += hoursOfDay {
				days = append(days, day)
			}
		}
	}
	err := v.stored(t.Name, func(_, first, last int64) { note(first, last) })
	v.batches(t.Name, func(m memoryBatch) { note(m.min, m.max) })
	slices.Sort(days)
	return slices.Compact(days), err
}
