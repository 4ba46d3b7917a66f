package store

import (
	"context"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// fewUnseen values are looked up in the indexes of blocks: of so many, some
// seem to be in most blocks.
const fewUnseen = 32

// firstSeen answers with the groups that no event before the window has. It
// finds those that the window has, drops what it meets in the history, the
// newest days first, until that ends or none is left, and counts the rest.
func (s *Store) firstSeen(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	keys, err := s.count(ctx, q.Keys())
	if err != nil {
		return nil, err
	}
	unseen := keys.Unseen()
	history := newCounting(ctx, unseen.History(), func() (counter, error) { return &query.Looker{Unseen: unseen}, nil })
	history.backward = true
	history.more = func() bool { return unseen.Left() > 0 }
	history.narrow = func() wanted { return keysOf(unseen.Exact(fewUnseen)) }
	if err := history.all(s); err != nil {
		return nil, err
	}
	news, err := s.countUnseen(ctx, q, unseen)
	if err != nil {
		return nil, err
	}
	result := keys.FirstSeen(news)
	known, err := s.history(q)
	result.History = &known
	return result, err
}

// countUnseen counts the groups of a window that are left.
func (s *Store) countUnseen(ctx context.Context, q query.Summary, unseen *query.Unseen) (*query.Aggregator, error) {
	var all []*query.Aggregator
	c := newCounting(ctx, q, func() (counter, error) {
		a, err := query.NewAggregator(q)
		all = append(all, a)
		return &unseenCounter{a, &query.Looker{Unseen: unseen}}, err
	})
	c.more = func() bool { return unseen.Left() > 0 }
	c.narrow = func() wanted { return keysOf(unseen.Exact(fewUnseen)) }
	if err := c.all(s); err != nil {
		return nil, err
	}
	return merged(all)
}

// unseenCounter counts the events of groups that are left.
type unseenCounter struct {
	*query.Aggregator
	looker *query.Looker
}

func (c *unseenCounter) Columns() []int {
	return append(c.Aggregator.Columns(), c.looker.Columns()...)
}

func (c *unseenCounter) Add(b *event.Batch, sel []int32) error {
	return c.Aggregator.Add(b, c.looker.Keep(b, sel))
}

// history tells what is known of the time before a window: nothing, if nothing
// was recorded then.
func (s *Store) history(q query.Summary) (query.Coverage, error) {
	c, err := s.coverageOf(q.Type, query.Window{Until: q.Window.Since})
	if c.From.After(q.Window.Since) {
		c.From, c.Until, c.Complete = q.Window.Since, q.Window.Since, false
	}
	return c, err
}
