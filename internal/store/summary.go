package store

import (
	"context"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Summary counts and adds up. A window that is open at its end reaches to now,
// one that is open at its beginning to the oldest there is.
func (s *Store) Summary(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	q.Type = s.own(q.Type)
	types := []*event.Type{q.Type}
	var hours []int64
	err := s.view(func(v *view) error {
		c, err := v.coverage(types, q.Window)
		if err != nil {
			return err
		}
		if q.Window.Since.IsZero() {
			q.Window.Since = c.From
		}
		if q.Window.Until.IsZero() {
			q.Window.Until = v.now
		}
		since, until := q.Window.Bounds()
		hours, err = v.hours(types, span{since, until})
		return err
	})
	if err != nil {
		return nil, err
	}
	aggregator, err := query.NewAggregator(q)
	if err != nil {
		return nil, err
	}
	// Each hour in a view of its own: one over a long window would
	// keep the space of what is removed meanwhile from being used again.
	count := &counting{ctx: ctx, query: q, matcher: q.Filters.Compile(q.Type), aggregator: aggregator}
	for _, hour := range hours {
		if err := s.view(func(v *view) error { return count.hour(v, hour) }); err != nil {
			return nil, err
		}
	}
	result := aggregator.Result()
	err = s.view(func(v *view) (err error) {
		result.Coverage, err = v.coverage(types, q.Window)
		return err
	})
	return result, err
}

// counting feeds an aggregator.
type counting struct {
	ctx        context.Context
	query      query.Summary
	matcher    query.Matcher
	aggregator *query.Aggregator
	sel        []int32
}

func (c *counting) hour(v *view, hour int64) error {
	t := c.query.Type
	since, until := c.query.Window.Bounds()
	in := v.within(t.Name, hour, span{since, until})
	columns := append(c.matcher.Columns(), c.aggregator.Columns()...)
	if c.matcher.Nothing() {
		return nil
	}
	err := v.chunks(t.Name, hour, in, func(_ chunkHeader, value []byte) error {
		k, err := v.s.codec.open(value, v.s.schemas)
		if err != nil {
			return err
		}
		b, err := k.batch(t, columns)
		if err != nil {
			return err
		}
		return c.add(b, in)
	})
	if err != nil {
		return err
	}
	v.batches(t.Name, func(m memoryBatch) {
		if err == nil && in.overlaps(m.min, m.max) {
			err = c.add(m.Batch, in)
		}
	})
	return err
}

func (c *counting) add(b *event.Batch, in span) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	c.sel = c.matcher.Select(b, in.window(), c.sel[:0])
	return c.aggregator.Add(b, c.sel)
}
