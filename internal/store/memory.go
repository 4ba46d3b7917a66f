package store

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// flushRows pending events start a flush before its time. A chunk holds as many.
	flushRows = maxChunkRows
	// maxPendingRows bounds the memory while the file cannot be written: so
	// many connections take about 250 MB. What comes after them is lost.
	maxPendingRows = 1 << 20
)

// placeWriteFailed is where the store itself loses events.
const placeWriteFailed = "write_failed"

// part is what one flush writes. Its number is in the file once it is stored:
// that is how a reader, who looks at memory before the file, knows which
// parts it finds in both.
type part struct {
	number  uint64
	since   time.Time // when it began
	batches []memoryBatch
	rows    int64
	lost    map[lossKey]int64
}

func newPart(number uint64, since time.Time) *part {
	return &part{number: number, since: since, lost: make(map[lossKey]int64)}
}

func (p *part) empty() bool { return p.rows == 0 && len(p.lost) == 0 }

// join returns a part with what is in p and then in next, under next's number.
// A part that failed to be stored must not keep its own: a reader would not
// know that what joined it later is stored with it.
func (p *part) join(next *part) *part {
	joined := &part{
		number: next.number, since: p.since,
		batches: slices.Concat(p.batches, next.batches),
		rows:    p.rows + next.rows, lost: maps.Clone(p.lost),
	}
	for k, n := range next.lost {
		joined.lost[k] += n
	}
	return joined
}

// copy returns a part that later changes to p leave alone.
func (p *part) copy() *part {
	c := *p
	c.batches = slices.Clip(p.batches)
	c.lost = maps.Clone(p.lost)
	return &c
}

// memoryBatch is a batch that nobody writes to any more.
type memoryBatch struct {
	*event.Batch
	min, max int64 // times
}

func measure(b *event.Batch) memoryBatch {
	m := memoryBatch{Batch: b, min: math.MaxInt64, max: math.MinInt64}
	for _, t := range b.Columns[event.Time].Ints {
		m.min, m.max = min(m.min, t), max(m.max, t)
	}
	return m
}

// appendHours appends the hours that the batch has events in.
func (m memoryBatch) appendHours(hours []int64) []int64 {
	first := hourOf(m.min)
	hours = append(hours, first)
	if hourOf(m.max) == first {
		return hours
	}
	last := first
	for _, t := range m.Columns[event.Time].Ints {
		if hour := hourOf(t); hour != last {
			hours, last = append(hours, hour), hour
		}
	}
	return hours
}

// Append takes a batch of one of the store's types over: nobody may write to it
// afterwards. Readers see it at once. It never waits for the disk.
//
// Events are lost, and counted as such, when writing has failed for so long that
// about a million of them are pending, after Close, and when their type is not
// the store's.
func (s *Store) Append(b *event.Batch) {
	n := int64(b.Len())
	if n == 0 {
		return
	}
	m := measure(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.pending.rows
	if s.flushing != nil {
		pending += s.flushing.rows
	}
	if s.closed || s.options.ReadOnly || s.types[b.Type.Name] != b.Type || pending+n > maxPendingRows {
		s.lose(lossKey{b.Type.Name, placeWriteFailed}, n)
		return
	}
	s.pending.batches = append(s.pending.batches, m)
	s.pending.rows += n
	s.appended[b.Type.Name] += n
	if s.pending.rows > flushRows && s.lastError == nil {
		select {
		case s.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Lost counts events of a type that were lost now, at a place such as
// "ring_buffer_full". The next flush keeps it in the file.
func (s *Store) Lost(typeName, place string, n int64) {
	if n <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(lossKey{typeName, place}, n)
}

// lose needs mu.
func (s *Store) lose(key lossKey, n int64) {
	s.lost[key] += n
	s.pending.lost[key] += n
}
