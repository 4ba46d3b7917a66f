package api

import (
	"context"
	"runtime"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	// leastTurns is how many questions are looked into at once on a small host; on
	// others it is two for each processor.
	leastTurns = 8
	// slowWrite is how long a client may take over a piece of an answer without
	// losing its turn, as nothing is looked for meanwhile.
	slowWrite = 100 * time.Millisecond
)

// turns bounds how many questions are looked into at once; the others wait. Each
// takes some MB for what it decompresses, and more of them at once than keep all
// processors busy make no answer earlier.
type turns chan struct{}

func turnsOfHost() int { return max(leastTurns, 2*runtime.GOMAXPROCS(0)) }

func (t turns) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turns) giveBack() { <-t }

// inTurn is the Store as questions see it: before each, the monitors hand over
// what they have, and then it waits for its turn.
type inTurn struct {
	Store
	drain func(context.Context) error // see Options
	turns turns
}

// begin returns what must be called at the end.
func (a inTurn) begin(ctx context.Context) (end func(), err error) {
	if a.drain != nil {
		if err := a.drain(ctx); err != nil {
			return nil, err
		}
	}
	q := ctx.Value(questionKey{}).(*question) // limit is before every question
	return q.end, q.begin(ctx, a.turns)
}

func (a inTurn) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error) {
	end, err := a.begin(ctx)
	if err != nil {
		return query.Page{}, err
	}
	defer end()
	return a.Store.Events(ctx, q, yield)
}

func (a inTurn) Pieces(ctx context.Context, q query.Events, yield func(query.Piece) error) error {
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return a.Store.Pieces(ctx, q, yield)
}

func (a inTurn) Summary(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	end, err := a.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	return a.Store.Summary(ctx, q)
}

func (a inTurn) Story(ctx context.Context, q query.Story, yield func(event.Row) error) (query.Told, error) {
	end, err := a.begin(ctx)
	if err != nil {
		return query.Told{}, err
	}
	defer end()
	return a.Store.Story(ctx, q, yield)
}

func (a inTurn) At(ctx context.Context, q query.At, yield func(query.Open) error) (query.Opened, error) {
	end, err := a.begin(ctx)
	if err != nil {
		return query.Opened{}, err
	}
	defer end()
	return a.Store.At(ctx, q, yield)
}
