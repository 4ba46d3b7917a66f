package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Events hands the events asked for to yield, in order of time, then name of
// the type, then the order in which they came, or all of that reversed. The
// rows stay good afterwards. An error of yield ends it and is returned as it is.
// When the context ends first, the error is a *query.Unfinished.
//
// Each event that is there when it begins is yielded once, whatever is appended
// or flushed meanwhile; those that come later may be or not.
func (s *Store) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (page query.Page, err error) {
	if err := q.Validate(); err != nil {
		return query.Page{}, err
	}
	search := s.newSearch(ctx, q)
	if q.Cursor != nil && q.Cursor.Back {
		page, err = search.back(q, yield)
	} else {
		page, err = search.forth(q, yield)
	}
	if err == nil && q.Total {
		page.Total, err = s.total(ctx, q, search.types)
	}
	if err != nil {
		return query.Page{}, err
	}
	err = s.view(func(v *view) (err error) {
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
	wanted    []wanted
	columns   [][]int // of each type, that are asked for; time among them
	window    query.Window
	ascending bool
	once      bool                     // nobody will ask for the same soon: blocks are not kept
	hidden    bool                     // also what is too old to be shown, as far as it is still there
	question  uint64                   // query.Events.Question
	last      *query.Cursor            // the last event that was found, or nil
	whole     map[blockID]*event.Batch // blocks that the last step did not finish
	found     []found                  // by the last step
	chunk     *chunk                   // one that nothing was found in, or nil
}

func (s *Store) newSearch(ctx context.Context, q query.Events) *search {
	r := &search{s: s, ctx: ctx, window: q.Window, ascending: q.Ascending, question: q.Question(), last: q.Cursor}
	for _, t := range q.Types {
		r.types = append(r.types, s.own(t))
	}
	slices.SortFunc(r.types, func(a, b *event.Type) int { return cmp.Compare(a.Name, b.Name) })
	r.types = slices.CompactFunc(r.types, func(a, b *event.Type) bool { return a.Name == b.Name })
	for _, t := range r.types {
		r.matchers = append(r.matchers, q.Filters.Compile(t))
		r.wanted = append(r.wanted, wantedOf(q.Filters, t))
		r.columns = append(r.columns, columnsOf(t, q.Fields))
	}
	return r
}

// found is an event with its rank, see query.Cursor.
type found struct {
	event.Row
	rank int
}

// step returns the next events, at most so many. They are good until the next step.
func (r *search) step(limit int) (events []found, err error) {
	err = r.s.view(func(v *view) error {
		want := limit
		if r.last != nil {
			want += r.last.Rank + 1 // these are found again, and skipped
		}
		m, err := r.merge(v, want)
		if err != nil {
			return err
		}
		events, err = r.take(m, limit)
		r.found = events
		r.keepWhole(m)
		return err
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

// take returns events until there are as many as the limit.
func (r *search) take(m *merge, limit int) (events []found, err error) {
	events = r.found[:0]
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
		m.want = limit - len(events)
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
