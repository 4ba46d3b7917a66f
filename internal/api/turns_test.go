package api

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// crowded is a store that takes its time, and keeps how many questions it had at once.
type crowded struct {
	*store.Store
	now, most *atomic.Int32
}

func (c crowded) Summary(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	select {
	case <-time.After(75 * time.Millisecond):
	case <-ctx.Done():
	}
	return c.Store.Summary(ctx, q)
}

// Many clients get their answers a few at a time, and who waits for that is not
// told that the question takes too long.
func TestTurns(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	c := crowded{st, new(atomic.Int32), new(atomic.Int32)}
	const atOnce = 4
	base := serve(t, func(o *Options) { o.Store, o.QueryTimeout, o.atOnce = c, 1500*time.Millisecond, atOnce })
	var clients sync.WaitGroup
	for range 40 * atOnce { // they take 3 s together
		clients.Go(func() {
			answer, err := http.Get(base + "/api/connections/summary?since=0")
			if err != nil {
				t.Error(err)
				return
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Error(answer.Status)
			}
		})
	}
	clients.Wait()
	if most := int(c.most.Load()); most > atOnce || most < 2 {
		t.Errorf("%d questions were looked into at once, want up to %d", most, atOnce)
	}
}

// Downloads that nobody reads leave others their turn, and go on when they are read.
func TestSlowClientsLeaveTheirTurn(t *testing.T) {
	st := openStore(t)
	const atOnce, events = 4, 120_000 // more than the sockets on the way hold
	fillMany(st, events)
	var drained atomic.Int32
	base := serve(t, func(o *Options) {
		o.Store, o.atOnce = st, atOnce
		o.Drain = func(context.Context) error { drained.Add(1); return nil }
	})
	slow := open(t, base+"/api/events?format=csv&limit=0")
	for range atOnce {
		open(t, base+"/api/events?format=ndjson&limit=0")
	}
	scenario{url: "/api/events?pid=7", status: 200, contains: []string{`"pid":7`}}.run(t, base)
	if lines := countLines(t, slow); lines != events {
		t.Errorf("%d lines", lines)
	}
	if n := int(drained.Load()); n != atOnce+2 {
		t.Errorf("drained %d times", n)
	}
}

// A client that leaves while it waits takes no turn.
func TestLeavingBeforeTheTurn(t *testing.T) {
	turns := make(turns, 1)
	if err := turns.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if err := turns.take(ctx); err == nil {
		t.Error("two have the one turn")
	}
	turns.giveBack()
	if err := turns.take(t.Context()); err != nil {
		t.Error(err)
	}
}
