package store

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// Pieces hands the events asked for to yield, one type after the other and
// those of a type in order of time. It is Events for a reader who can use a
// block as it is: one that is asked for as a whole, and among whose events no
// others stand, is not decoded. Limit, order and cursor of the question are not
// looked at. An error of yield ends it and is returned as it is.
//
// Each event that is there when it begins is handed out once, whatever is
// appended or sealed meanwhile; those that come later may be or not.
func (s *Store) Pieces(ctx context.Context, q query.Events, yield func(query.Piece) error) error {
	q.Limit, q.Cursor, q.Ascending = 0, nil, true
	if err := q.Validate(); err != nil {
		return err
	}
	search := s.newSearch(ctx, q)
	for _, t := range search.types {
		p := pieces{s: s, ctx: ctx, q: q, t: t, yield: yield, rest: search.rest()}
		if err := p.all(); err != nil {
			return err
		}
	}
	return nil
}

// Damaged returns the spans of the blocks that were found damaged since Open,
// and left out of answers and exports. Coverage has them too, where a run
// recorded what is missing.
func (s *Store) Damaged() (gaps []query.Gap) {
	s.damaged.Range(func(id, of any) bool {
		window := of.(span).window()
		gaps = append(gaps, query.Gap{From: window.Since.UTC(), Until: window.Until.UTC(), Type: id.(blockID).typeName, Reason: query.GapDamaged})
		return true
	})
	slices.SortFunc(gaps, func(a, b query.Gap) int { return cmp.Or(cmp.Compare(a.Type, b.Type), a.From.Compare(b.From)) })
	return gaps
}

// pieces hands out the events of one type.
type pieces struct {
	s      *Store
	ctx    context.Context
	q      query.Events
	t      *event.Type
	yield  func(query.Piece) error
	rest   span // what is still to be handed out
	buffer []byte
}

// planned is what is handed out next: a block, or else all events of the span.
type planned struct {
	span
	block *storedBlock
}

// errNotThere is returned for a block that is not in the file any more: it was
// joined with others, or removed.
var errNotThere = errors.New("block is not there any more")

func (p *pieces) all() error {
	for p.rest.from < p.rest.until {
		plan, until, err := p.plan()
		if err != nil {
			return err
		}
		for _, next := range plan {
			if err = p.handOut(next); err != nil {
				break
			}
			p.rest.from = next.until
		}
		switch {
		case err == nil:
			p.rest.from = until
		case !errors.Is(err, errNotThere): // or else there is to be a new plan
			return err
		}
	}
	return nil
}

func (p *pieces) handOut(next planned) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if next.block == nil {
		return p.decode(next.span)
	}
	rows, whole := 0, false
	err := p.s.view(func(v *view) error {
		b := *next.block
		if v.fetch(&b); b.value == nil {
			return errNotThere
		}
		opened, err := p.s.openBlock(b, p.t)
		if err != nil {
			return err
		}
		rows = opened.Rows()
		if whole = block.IsWhole(b.value, p.t); whole {
			p.buffer = append(p.buffer[:0], b.value...)
		}
		return nil
	})
	switch {
	case errors.Is(err, errDamaged): // it is noted, see Damaged
		return nil
	case err != nil:
		return err
	case !whole: // its columns were declared otherwise when it was written
		return p.decode(next.span)
	}
	return p.yield(query.Piece{Type: p.t, Rows: rows, Block: p.buffer})
}

// decode hands out all events of a span as batches.
func (p *pieces) decode(in span) error {
	q := p.q
	q.Types, q.Window = []*event.Type{p.t}, in.window()
	search := p.s.newSearch(p.ctx, q)
	search.once = true
	for more := true; more; {
		events, err := search.step(block.MaxRows)
		if err != nil {
			return err
		}
		if more = len(events) == block.MaxRows; more {
			last := events[len(events)-1]
			search.last = &query.Cursor{Time: last.Time(), Type: p.t.Name, Rank: last.rank}
		}
		if len(events) == 0 {
			break
		}
		batch := batchOf(p.t, events)
		clear(events) // what they were in is as large as the batch
		if err := p.yield(query.Piece{Type: p.t, Rows: len(events), Batch: batch}); err != nil {
			return err
		}
	}
	return nil
}

// batchOf makes a batch of events, in their order. It goes through each of the
// batches that they are in once, as AppendRows takes its time to begin.
func batchOf(t *event.Type, events []found) *event.Batch {
	rows := make(map[*event.Batch][]int32)
	var batches []*event.Batch
	for _, f := range events {
		if rows[f.Batch] == nil {
			batches = append(batches, f.Batch)
		}
		rows[f.Batch] = append(rows[f.Batch], int32(f.Index))
	}
	all := event.NewBatch(t, len(events))
	next := make(map[*event.Batch]int32) // where in all the next event of each is
	for _, b := range batches {
		next[b] = int32(all.Len())
		all.AppendRows(b, rows[b])
	}
	order := make([]int32, len(events))
	for i, f := range events {
		order[i] = next[f.Batch]
		next[f.Batch]++
	}
	if slices.IsSorted(order) { // blocks mostly come one after the other
		return all
	}
	sorted := event.NewBatch(t, len(events))
	sorted.AppendRows(all, order)
	return sorted
}

// stored is where events are: in a block, or else in rows or in memory.
type stored struct {
	min, max int64
	block    *storedBlock
}

// plan returns what there is on the first day that has something, in order of
// time, and the end of that day.
func (p *pieces) plan() (plan []planned, until int64, err error) {
	if len(p.q.Filters) > 0 || len(p.q.Fields) > 0 {
		return []planned{{span: p.rest}}, p.rest.until, nil
	}
	until = p.rest.until
	err = p.s.view(func(v *view) error {
		day, err := v.firstDay(p.t.Name, p.rest)
		if err != nil || day == math.MaxInt64 {
			return err
		}
		if end := day + hoursOfDay; end <= hourOf(math.MaxInt64) {
			until = min(until, hourStart(end).UnixNano())
		}
		visible, err := v.visible(p.t.Name, p.rest)
		if err != nil {
			return err
		}
		all, err := v.storedOn(p.t, day, p.rest)
		plan = planOf(all, visible, span{p.rest.from, until})
		return err
	})
	return plan, until, err
}

// planOf finds the blocks that can be handed out as they are: those whose
// events may all be shown, and stand together in order of time.
func planOf(all []stored, visible []span, in span) (plan []planned) {
	slices.SortFunc(all, func(a, b stored) int { return cmp.Compare(a.min, b.min) })
	from, before := in.from, int64(math.MinInt64) // the last time so far
	skipped := false                              // there are others since from
	for i, s := range all {
		alone := s.min > before && (i+1 == len(all) || s.max < all[i+1].min)
		before = max(before, s.max)
		shown := slices.ContainsFunc(visible, func(v span) bool { return s.min >= v.from && s.max < v.until })
		if s.block == nil || !alone || !shown {
			skipped = true
			continue
		}
		if skipped {
			plan = append(plan, planned{span: span{from, s.min}})
		}
		plan = append(plan, planned{span{s.min, s.max + 1}, s.block})
		from, skipped = s.max+1, false
	}
	if skipped {
		plan = append(plan, planned{span: span{from, in.until}})
	}
	return plan
}

// firstDay returns the first hour of the first day that has events of a span,
// or MaxInt64.
func (v *view) firstDay(typeName string, in span) (int64, error) {
	first := int64(math.MaxInt64)
	note := func(hour, oldest, newest int64) {
		if in.overlaps(oldest, newest) {
			first = min(first, dayOf(hour))
		}
	}
	v.batches(typeName, func(m memoryBatch) { note(m.place().hour, m.min, m.max) })
	err := forEachSegment(v.tx, typeName, func(g segment, r segmentRecord) error {
		note(g.first, r.min, r.max)
		return nil
	})
	if err != nil {
		return first, err
	}
	return first, forEachHour(v.tx, typeName, func(hour int64, h hourRecord) error {
		note(hour, h.min, h.max)
		return nil
	})
}

// storedOn returns where the events of a day are, those of a span. No event of
// another day can be among them in order of time.
func (v *view) storedOn(t *event.Type, day int64, in span) (all []stored, err error) {
	segments, err := segmentsIn(v.tx, t.Name, day, hoursOfDay)
	if err != nil {
		return nil, err
	}
	for _, g := range segments {
		err := v.blocks(t, g, in, nil, func(b storedBlock) error {
			all = append(all, stored{b.min, b.max, &b})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	v.batches(t.Name, func(m memoryBatch) {
		if dayOf(m.place().hour) == day && in.overlaps(m.min, m.max) {
			all = append(all, stored{min: m.min, max: m.max})
		}
	})
	return all, forEachHour(v.tx, t.Name, func(hour int64, h hourRecord) error {
		if dayOf(hour) == day && in.overlaps(h.min, h.max) {
			all = append(all, stored{min: h.min, max: h.max})
		}
		return nil
	})
}
