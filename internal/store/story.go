package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// lateness is how long after its end packets of a connection may still come.
const lateness = time.Second

// Story hands everything about one thing to yield, in order of time: its own
// events, and those of other types between the same ends while it lived. It
// fails with query.ErrNoStory if it has no events in the window.
//
// No index has ids: its column is read from the last event in the window back
// to the one with which the thing began, which may have been carried over.
func (s *Store) Story(ctx context.Context, q query.Story, yield func(event.Row) error) (query.Told, error) {
	var told query.Told
	if err := q.Validate(); err != nil {
		return told, err
	}
	q.Type = s.own(q.Type)
	t := &tale{s: s, ctx: ctx, q: q}
	if err := t.findOwn(); err != nil {
		return told, err
	}
	if err := t.findLife(); err != nil {
		return told, err
	}
	types := []*event.Type{q.Type}
	for _, other := range s.Types() {
		if other == q.Type || other.Ends == nil || other.Life != nil || q.Type.Ends == nil {
			continue
		}
		types = append(types, other)
		for _, back := range []bool{false, true} {
			if err := t.findBetween(other, back); err != nil {
				return told, err
			}
		}
	}
	slices.SortStableFunc(t.rows, func(a, b event.Row) int { return cmp.Compare(a.Time(), b.Time()) })
	if told.More = len(t.rows) > q.Limit; told.More {
		t.rows = t.rows[:q.Limit]
	}
	for _, r := range t.rows {
		if err := yield(r); err != nil {
			return told, err
		}
	}
	return told, s.view(func(v *view) (err error) {
		told.Coverage, err = v.coverage(types, t.covered(v.now))
		return err
	})
}

// tale gathers a story.
type tale struct {
	s    *Store
	ctx  context.Context
	q    query.Story
	rows []event.Row
	// When it began, or what never did was first tried, and when it ended. Packets
	// between its ends in all of life are its own.
	began, ended int64
	life         span
}

// each calls do with the events of a type that match, newest first unless
// ascending is true, until it returns false; of a type with a life also with those
// that are hidden since they are too old.
func (t *tale) each(of *event.Type, w query.Window, filters query.Filters, ascending bool, piece int, do func(event.Row) bool) error {
	search := t.s.newSearch(t.ctx, query.Events{Types: []*event.Type{of}, Window: w, Filters: filters, Ascending: ascending})
	search.hidden = of.Life != nil
	for {
		events, err := search.step(piece)
		if err != nil {
			return err
		}
		for _, f := range events {
			if !do(f.Row) {
				return nil
			}
		}
		if len(events) < piece {
			return nil
		}
		last := events[len(events)-1]
		search.last = &query.Cursor{Time: last.Time(), Type: of.Name, Rank: last.rank}
	}
}

// findOwn finds the events that have the id, one by one: none is older than the
// one that saw it begin.
func (t *tale) findOwn() error {
	life := t.q.Type.Life
	filters := query.Filters{{Column: life.ID, Values: []string{t.q.ID}}}
	err := t.each(t.q.Type, t.q.Window, filters, false, 1, func(r event.Row) bool {
		t.rows = append(t.rows, r)
		return life.Ends.Has(r) || life.Begins.Has(r) && life.Found.Has(r)
	})
	if err != nil {
		return err
	}
	slices.Reverse(t.rows)
	since, until := t.q.Window.Bounds()
	carried, err := t.s.carriedEvents(t.q.Type, span{since, until}, filters)
	if err != nil {
		return err
	}
	for i := range carried.Len() {
		t.rows = append(t.rows, event.Row{Batch: carried, Index: i})
	}
	slices.SortStableFunc(t.rows, func(a, b event.Row) int { return cmp.Compare(a.Time(), b.Time()) })
	if shown, err := t.isShown(); err != nil || shown {
		return err
	}
	return query.ErrNoStory
}

// isShown tells whether it has a moment that can be asked for: or else its events
// are too old, and go with their hour.
func (t *tale) isShown() (shown bool, err error) {
	if len(t.rows) == 0 {
		return false, nil
	}
	last := t.rows[len(t.rows)-1]
	lived := span{t.rows[0].Time(), last.Time() + 1}
	if t.q.Type.Life.Begins.Has(last) {
		lived.until = allTime.until
	}
	return shown, t.s.view(func(v *view) error {
		visible, err := v.visible(t.q.Type.Name, lived)
		shown = len(visible) > 0
		return err
	})
}

// findLife finds out when it lived, with the attempt before and what comes late
// after.
func (t *tale) findLife() error {
	life := t.q.Type.Life
	first, last := t.rows[0], t.rows[len(t.rows)-1]
	t.began, t.ended = first.Time(), allTime.until
	if at, ok := t.q.Type.Column(life.Duration); ok && life.Ends.Has(first) { // the event of its beginning is gone
		ns, _ := first.Int(at)
		t.began -= ns
	}
	t.life = span{t.began, t.ended}
	if !life.Found.Has(first) {
		t.life.from -= life.Attempt.Nanoseconds()
	}
	if !life.Begins.Has(last) { // else it lives
		t.ended = last.Time()
		t.life.until = t.ended + lateness.Nanoseconds()
	}
	if !life.Begins.Has(first) && !life.Ends.Has(first) {
		t.began = t.life.from
	}
	if t.ended == allTime.until { // a later recording would have told of it again
		err := t.s.view(func(v *view) error {
			in, err := v.recordingOf(t.q.Type.Name, last.Time())
			if in.until < v.now.UnixNano() {
				t.life.until = in.until
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return t.cutLife()
}

// cutLife leaves out of its life what belongs to others between the same ends.
func (t *tale) cutLife() error {
	life := t.q.Type.Life
	if t.q.Type.Ends == nil {
		return nil
	}
	filters := t.between(t.q.Type, false)
	if filters == nil {
		return nil
	}
	id := t.q.Type.MustColumn(life.ID)
	return t.each(t.q.Type, t.life.window(), filters, true, 64, func(r event.Row) bool {
		text, _ := r.AppendText(nil, id)
		switch at := r.Time(); {
		case string(text) == t.q.ID || !t.sameNetNS(r):
		case at < t.rows[0].Time() && !life.Begins.Has(r):
			t.life.from = at + 1
		case at > t.ended && !life.Ends.Has(r):
			t.life.until = at
			return false
		}
		return true
	})
}

// covered is the window in which all that is told should have been recorded.
func (t *tale) covered(now time.Time) query.Window {
	w := span{t.began, t.ended}.window()
	if w.Until.After(now) { // it lives
		w.Until = time.Time{}
	}
	return w
}

// findBetween adds the events of another type between the same ends.
func (t *tale) findBetween(other *event.Type, back bool) error {
	filters := t.between(other, back)
	if filters == nil {
		return nil
	}
	found := 0
	return t.each(other, t.life.window(), filters, true, 1024, func(r event.Row) bool {
		if t.sameNetNS(r) {
			t.rows = append(t.rows, r)
			found++
		}
		return found <= t.q.Limit
	})
}

// between returns filters for events of a type between the same ends; none if
// too little of these is known: a UDP socket may have no address of its own, but
// both ports and the other's address are needed.
func (t *tale) between(other *event.Type, back bool) (filters query.Filters) {
	theirs := other.Ends.Columns(back)
	row, addresses := t.rows[0], 0
	for i, name := range t.q.Type.Ends.Columns(false) {
		column := t.q.Type.MustColumn(name)
		text, known := row.AppendText(nil, column)
		switch isAddress := t.q.Type.Columns[column].Kind == event.KindIP; {
		case known && isAddress:
			addresses++
		case !known && !isAddress:
			return nil
		case !known:
			continue
		}
		filters = append(filters, query.Filter{Column: theirs[i], Values: []string{string(text)}})
	}
	if addresses == 0 {
		return nil
	}
	return filters
}

// sameNetNS is false for an event in a network namespace that is known to be another.
func (t *tale) sameNetNS(r event.Row) bool {
	mine, known := t.rows[0].Int(event.NetNS)
	theirs, alsoKnown := r.Int(event.NetNS)
	return !known || !alsoKnown || mine == theirs
}
