package store

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// stepRows is how many events are gathered in one view: outside of it they are
// handed on, to somebody who may be slow.
const stepRows = 1 << 16

// Events hands the events asked for to yield, in order of time, then name of
// the type, then the order in which they came, or all of that reversed. The
// rows stay good afterwards. An error of yield ends it and is returned as it is.
//
// Each event that is there when it begins is yielded once, whatever is appended
// or flushed meanwhile; those that come later may be or not.
func (s *Store) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error) {
	if err := q.Validate(); err != nil {
		return query.Page{}, err
	}
	search := s.newSearch(ctx, q)
	left := math.MaxInt
	if q.Limit > 0 {
		left = q.Limit
	}
	more := true
	for more && left > 0 {
		want := min(left, stepRows)
		found, err := search.step(want + 1)
		if err != nil {
			return query.Page{}, err
		}
		if more = len(found) > want; more {
			found = found[:want]
		}
		for _, f := range found {
			if err := yield(f.Row); err != nil {
				return query.Page{}, err
			}
		}
		if len(found) > 0 {
			search.last = &query.Cursor{
				Time: found[len(found)-1].Time(), Type: found[len(found)-1].Batch.Type.Name,
				Rank: found[len(found)-1].rank, Question: q.Question(),
			}
		}
		left -= len(found)
	}
	var page query.Page
	if more {
		page.Next = search.last
	}
	err := s.view(func(v *view) (err error) {
		page.Coverage, err = v.coverage(search.types, q.Window)
		return err
	})
	return page, err
}

// search gathers the events of a query step by step.
type search struct {
	s         *Store
	ctx       context.Context
	types     []*event.Type // by name
	matchers  []query.Matcher
	window    query.Window
	ascending bool
	last      *query.Cursor // the last event that was found, or nil
}

func (s *Store) newSearch(ctx context.Context, q query.Events) *search {
	r := &search{s: s, ctx: ctx, window: q.Window, ascending: q.Ascending, last: q.Cursor}
	for _, t := range q.Types {
		r.types = append(r.types, s.own(t))
	}
	slices.SortFunc(r.types, func(a, b *event.Type) int { return cmp.Compare(a.Name, b.Name) })
	r.types = slices.CompactFunc(r.types, func(a, b *event.Type) bool { return a.Name == b.Name })
	for _, t := range r.types {
		r.matchers = append(r.matchers, q.Filters.Compile(t))
	}
	return r
}

// found is an event with its rank, see query.Cursor.
type found struct {
	event.Row
	rank int
}

// step returns the next events, at most so many.
func (r *search) step(limit int) (events []found, err error) {
	err = r.s.view(func(v *view) error {
		hours, err := v.hours(r.types, r.rest())
		if err != nil {
			return err
		}
		if !r.ascending {
			slices.Reverse(hours)
		}
		for _, hour := range hours {
			m, err := r.merge(v, hour)
			if err != nil {
				return err
			}
			if events, err = r.take(m, events, limit); err != nil || len(events) == limit {
				return err
			}
		}
		return nil
	})
	return events, err
}

// rest returns the part of the window that is not done, with the whole of the
// last event's nanosecond.
func (r *search) rest() span {
	since, until := r.window.Bounds()
	if r.last != nil && r.ascending {
		since = max(since, r.last.Time)
	} else if r.last != nil && r.last.Time < until {
		until = r.last.Time + 1
	}
	return span{since, until}
}

// take appends events of an hour until there are as many as the limit.
func (r *search) take(m *merge, events []found, limit int) ([]found, error) {
	for {
		group, err := m.group()
		if err != nil || len(group) == 0 {
			return events, err
		}
		for i, row := range group {
			f := found{row, i}
			if !r.ascending {
				f.rank = len(group) - 1 - i
			}
			if r.last != nil && !r.isAfter(f, r.last) {
				continue
			}
			if events = append(events, f); len(events) == limit {
				return events, nil
			}
		}
	}
}

// isAfter tells whether an event comes after the cursor's.
func (r *search) isAfter(f found, last *query.Cursor) bool {
	c := cmp.Or(cmp.Compare(f.Time(), last.Time), cmp.Compare(f.Batch.Type.Name, last.Type), cmp.Compare(f.rank, last.Rank))
	if !r.ascending {
		c = -c
	}
	return c > 0
}

// merge returns the sources of an hour, ready to be read in order.
func (r *search) merge(v *view, hour int64) (*merge, error) {
	rest := r.rest()
	m := &merge{search: r, view: v}
	for i, t := range r.types {
		if r.matchers[i].Nothing() {
			continue
		}
		in := v.within(t.Name, hour, rest)
		add := func(first, last int64, value []byte, b *event.Batch) {
			src := &source{typeIndex: i, order: len(m.sources), in: in, value: value, batch: b, time: max(first, in.from)}
			if !r.ascending {
				src.time = min(last, in.until-1)
			}
			m.sources = append(m.sources, src)
		}
		err := v.chunks(t.Name, hour, in, func(h chunkHeader, value []byte) error {
			add(h.min, h.max, value, nil)
			return nil
		})
		if err != nil {
			return nil, err
		}
		v.batches(t.Name, func(b memoryBatch) {
			if in.overlaps(b.min, b.max) {
				add(b.min, b.max, nil, b.Batch)
			}
		})
	}
	m.init()
	return m, nil
}
