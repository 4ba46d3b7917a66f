package store

import (
	"context"
	"math"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// stepRows is how many events are gathered in one view: outside of it they are
// handed on, to somebody who may be slow.
const stepRows = 1 << 16

// forth hands out the events that come after the cursor, or the first ones.
func (r *search) forth(q query.Events, yield func(event.Row) error) (page query.Page, err error) {
	left := math.MaxInt
	if q.Limit > 0 {
		left = q.Limit
	}
	more := true
	for more && left > 0 {
		want := min(left, stepRows)
		found, err := r.step(want + 1)
		if err != nil {
			return page, err
		}
		if more = len(found) > want; more {
			found = found[:want]
		}
		if len(found) > 0 && q.Cursor != nil && page.Prev == nil { // the cursor's event comes before
			page.Prev = r.cursor(found[0])
			page.Prev.Back = true
		}
		for _, f := range found {
			if err := yield(f.Row); err != nil {
				return page, err
			}
		}
		if len(found) > 0 {
			r.last = r.cursor(found[len(found)-1])
		}
		left -= len(found)
	}
	if more {
		page.Next = r.last
	}
	return page, nil
}

// back hands out the events that come before the cursor. It looks for them the
// other way round: the first that it finds is the last of the page.
func (r *search) back(q query.Events, yield func(event.Row) error) (page query.Page, err error) {
	r.ascending = !r.ascending
	found, err := r.step(q.Limit + 1)
	if err != nil {
		return page, err
	}
	if len(found) > q.Limit {
		found = found[:q.Limit]
		page.Prev = r.cursor(found[q.Limit-1])
		page.Prev.Back = true
	}
	if len(found) > 0 {
		page.Next = r.cursor(found[0])
	}
	for _, f := range slices.Backward(found) {
		if err := yield(f.Row); err != nil {
			return page, err
		}
	}
	return page, nil
}

func (r *search) cursor(f found) *query.Cursor {
	return &query.Cursor{Time: f.Time(), Type: f.Batch.Type.Name, Rank: f.rank, Question: r.question}
}

// total counts the events of all pages.
func (s *Store) total(ctx context.Context, q query.Events, types []*event.Type) (n int64, err error) {
	since, until := q.Window.Bounds()
	for _, t := range types {
		// A window that is open has events of the time to come, too.
		count := query.Summary{Type: t, Window: span{since, until}.window(), Filters: q.Filters, Sums: []string{}, Unweighted: true}
		result, err := s.Summary(ctx, count)
		if err != nil {
			return 0, err
		}
		n += result.Count
	}
	return n, nil
}
