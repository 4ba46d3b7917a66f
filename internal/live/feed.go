// Package live holds the latest events in the order in which they arrive, for
// those who follow them. Nobody who follows can hold up who records: what is
// not taken in time is let go, and who comes too late is told so.
package live

import (
	"sort"
	"sync"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// maxBytes is how much memory the held batches take at most. It is what came
// in the last minutes on a quiet host, and some 80,000 events of a flood.
const maxBytes = 16 << 20

// Feed holds the latest events. All methods are safe for concurrent use.
type Feed struct {
	limit int
	now   func() time.Time // for tests

	mu      sync.Mutex // for all below
	start   query.Position
	held    []held // oldest first
	bytes   int    // of all held
	gone    query.Position
	last    query.Position
	arrived chan struct{} // closed when events arrive, if somebody waits
}

// held is a batch that arrived.
type held struct {
	*event.Batch
	first int64 // number of its first event
	time  int64 // when it arrived
	bytes int
}

func (h held) position(row int) query.Position {
	return query.Position{Number: h.first + int64(row), Time: h.time}
}

func (h held) last() query.Position { return h.position(h.Len() - 1) }

// NewFeed returns one that holds nothing yet.
func NewFeed() *Feed { return newFeed(maxBytes, time.Now) }

func newFeed(limit int, now func() time.Time) *Feed {
	f := &Feed{limit: limit, now: now, start: query.Position{Time: now().UnixNano()}}
	f.gone, f.last = f.start, f.start
	return f
}

// Append takes a batch that nobody writes to any more.
func (f *Feed) Append(b *event.Batch) {
	if b.Len() == 0 {
		return
	}
	bytes := b.Size()
	f.mu.Lock()
	defer f.mu.Unlock()
	// Times only grow: a position with a later one than the next is none of ours.
	h := held{Batch: b, first: f.last.Number + 1, time: max(f.last.Time, f.now().UnixNano()), bytes: bytes}
	f.held = append(f.held, h)
	f.last = h.last()
	for f.bytes += bytes; f.bytes > f.limit && len(f.held) > 1; f.held = f.held[1:] {
		f.gone = f.held[0].last()
		f.bytes -= f.held[0].bytes
		f.held[0] = held{} // the array behind the slice must not keep it
	}
	if f.arrived != nil {
		close(f.arrived)
		f.arrived = nil
	}
}

// Now returns the position behind the last event.
func (f *Feed) Now() query.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// Next returns what came behind a position, or a channel that is closed when
// something comes.
func (f *Feed) Next(after query.Position) (query.Arrival, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.knows(after) {
		missed := &query.Missed{Until: time.Unix(0, f.gone.Time).UTC()}
		if after.Time < f.gone.Time {
			missed.Since = time.Unix(0, after.Time).UTC()
		}
		return query.Arrival{Missed: missed, Last: f.gone}, nil
	}
	if n := f.gone.Number - after.Number; n > 0 {
		missed := &query.Missed{Count: n, Since: time.Unix(0, after.Time).UTC(), Until: time.Unix(0, f.gone.Time).UTC()}
		return query.Arrival{Missed: missed, Last: f.gone}, nil
	}
	if after.Number == f.last.Number {
		if f.arrived == nil {
			f.arrived = make(chan struct{})
		}
		return query.Arrival{}, f.arrived
	}
	h := f.held[f.find(after.Number+1)]
	row := int(after.Number + 1 - h.first)
	return query.Arrival{Batch: h.Batch, Row: row, First: h.position(row), Last: h.last()}, nil
}

// find returns the place of the batch that has an event, by its number.
func (f *Feed) find(number int64) int {
	return sort.Search(len(f.held), func(i int) bool { return f.held[i].first > number }) - 1
}

// knows tells whether a position is one of this run. One that is not held any
// more is taken at its word.
func (f *Feed) knows(p query.Position) bool {
	switch {
	case p.Time < f.start.Time || p.Number > f.last.Number:
		return false
	case p.Number < f.gone.Number:
		return p.Time <= f.gone.Time
	case p.Number == f.gone.Number:
		return p == f.gone
	}
	return f.held[f.find(p.Number)].time == p.Time
}
