package store

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

const (
	// flushRows more events than the last flush left start one before its time.
	flushRows = maxChunkRows
	// bulkRows pending events, about 19 MB of connections, make AppendWait wait.
	bulkRows = 7 * flushRows / 4
	// directRows events of an hour that is over become a block at once. Fewer
	// are rows first, which make a larger block together.
	directRows = block.MaxRows / 4
	// doneRows are enough if there are events of a later hour already.
	doneRows = 1024
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
	latest  map[string]int64 // see latestHours
	lost    map[lossKey]int64
	lostAt  time.Time // the first of these may have been lost so early; zero: after since

	filtered map[filteredKey]int64 // not worth a flush of its own: it goes with the next
}

func newPart(number uint64, since time.Time) *part {
	return &part{number: number, since: since, lost: make(map[lossKey]int64), filtered: make(map[filteredKey]int64)}
}

func (p *part) empty() bool { return p.rows == 0 && len(p.lost) == 0 }

// join returns a part with what is in p and then in next, under next's number.
// A part that failed to be stored must not keep its own: a reader would not
// know that what joined it later is stored with it.
func (p *part) join(next *part) *part {
	joined := &part{
		number: next.number, since: p.since,
		batches: slices.Concat(p.batches, next.batches),
		rows:    p.rows + next.rows, lost: maps.Clone(p.lost), lostAt: p.lostAt, filtered: maps.Clone(p.filtered),
	}
	joined.lostBy(next.lostAt)
	for k, n := range next.lost {
		joined.lost[k] += n
	}
	for k, n := range next.filtered {
		joined.filtered[k] += n
	}
	return joined
}

// split returns what a flush before its time takes of a part, and what stays
// in memory for a better one: full blocks are taken, and hours that are over and
// done with, since there are events of a later one. If much would stay, all hours that
// are over and make blocks of some size are taken, and if that does not help, everything.
func (p *part) split(isOver func(hour int64) bool) (taken, left *part) {
	rows, latest := make(map[hourOfType]int), p.latestHours()
	for _, m := range p.batches {
		rows[m.place()] += m.Len()
	}
	for _, enough := range []int{math.MaxInt, directRows} {
		room := make(map[hourOfType]int) // in blocks
		for at, n := range rows {
			done := n >= doneRows && at.hour < latest[at.typeName]
			if room[at] = n - n%block.MaxRows; (done || n >= enough) && isOver(at.hour) {
				room[at] = n
			}
		}
		taken, left = p.takeOut(room)
		if taken.latest = latest; left.rows <= bulkRows-flushRows {
			return taken, left
		}
	}
	return p, newPart(p.number+1, p.since)
}

// latestHours returns the last hour of each type that there are events of, also what
// stayed behind when the part was split off.
func (p *part) latestHours() map[string]int64 {
	latest := make(map[string]int64)
	maps.Copy(latest, p.latest)
	for _, m := range p.batches {
		latest[m.Type.Name] = max(latest[m.Type.Name], m.place().hour)
	}
	return latest
}

// takeOut returns the first rows of each place, as many as there is room for, and the rest.
func (p *part) takeOut(room map[hourOfType]int) (taken, left *part) {
	taken, left = newPart(p.number, p.since), newPart(p.number+1, p.since)
	taken.lost, taken.lostAt, taken.filtered = p.lost, p.lostAt, p.filtered
	for _, m := range p.batches {
		at := m.place()
		n := min(room[at], m.Len())
		room[at] -= n
		taken.add(m.rows(0, n))
		left.add(m.rows(n, m.Len()))
	}
	return taken, left
}

// add adds some events, or none.
func (p *part) add(m memoryBatch) {
	if m.Len() > 0 {
		p.batches = append(p.batches, m)
		p.rows += int64(m.Len())
	}
}

// oldest returns when the first of its events arrived, or the given time if there are
// none.
func (p *part) oldest(none time.Time) time.Time {
	if len(p.batches) == 0 {
		return none
	}
	return p.batches[0].arrived // batches keep their order
}

// lostBy notes when something that is reported now may have been lost.
func (p *part) lostBy(since time.Time) {
	if !since.IsZero() && (p.lostAt.IsZero() || since.Before(p.lostAt)) {
		p.lostAt = since
	}
}

// copy returns a part that later changes to p leave alone.
func (p *part) copy() *part {
	c := *p
	c.batches = slices.Clip(p.batches)
	c.lost, c.filtered = maps.Clone(p.lost), maps.Clone(p.filtered)
	return &c
}

// memoryBatch is a batch of one hour that nobody writes to any more.
type memoryBatch struct {
	*event.Batch
	min, max int64     // times
	arrived  time.Time // when Append was called
}

func measure(b *event.Batch, arrived time.Time) memoryBatch {
	m := memoryBatch{Batch: b, arrived: arrived, min: math.MaxInt64, max: math.MinInt64}
	for _, t := range b.Columns[event.Time].Ints {
		m.min, m.max = min(m.min, t), max(m.max, t)
	}
	return m
}

// rows returns some of the events, in the batch's memory.
func (m memoryBatch) rows(from, until int) memoryBatch {
	if from == 0 && until == m.Len() {
		return m
	}
	return measure(slice(m.Batch, from, until), m.arrived)
}

func (m memoryBatch) place() hourOfType { return hourOfType{m.Type.Name, hourOf(m.min)} }

// byHour returns a batch as one for each hour that it has events in.
func byHour(b *event.Batch, arrived time.Time) (all []memoryBatch) {
	m := measure(b, arrived)
	if hourOf(m.min) == hourOf(m.max) {
		return []memoryBatch{m}
	}
	hours := rowsByHour(b)
	for _, hour := range slices.Sorted(maps.Keys(hours)) {
		piece := event.NewBatch(b.Type, len(hours[hour]))
		piece.AppendRows(b, hours[hour])
		all = append(all, measure(piece, arrived))
	}
	return all
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
	batches := byHour(b, s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.pending.rows
	if s.flushing != nil {
		pending += s.flushing.rows
	}
	if s.closed || s.options.ReadOnly || s.types[b.Type.Name] != b.Type || pending+n > maxPendingRows {
		s.lose(lossKey{b.Type.Name, placeWriteFailed}, b.Weight())
		return
	}
	s.pending.batches = append(s.pending.batches, batches...)
	s.pending.rows += n
	s.appended[b.Type.Name] += n
	if s.pending.rows > s.left+flushRows && s.lastError == nil {
		wakeUp(s.wake)
	}
}

// AppendWait is Append for bulk imports: when much is pending it waits until some
// of that is written, so that nothing is lost and little memory is needed. The
// events are safe after the next Flush.
func (s *Store) AppendWait(ctx context.Context, b *event.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	pending, closed := s.pending.rows, s.closed
	if s.flushing != nil {
		pending += s.flushing.rows
	}
	s.mu.Unlock()
	switch {
	case s.options.ReadOnly:
		return ErrReadOnly
	case closed:
		return ErrClosed
	case pending > bulkRows: // waits for a flush that goes on, too
		if err := s.flush(flushFull); err != nil {
			return err
		}
	}
	s.Append(b)
	return nil
}

// Lost counts events of a type that were lost now, at a place such as
// "ring_buffer_full". The next flush keeps it in the file.
//
// The events were lost after since; the zero time stands for the last flush.
func (s *Store) Lost(typeName, place string, since time.Time, n int64) {
	if n <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(lossKey{typeName, place}, n)
	s.pending.lostBy(since)
}

// Filtered counts events of a type that a rule of some kind, such as "excluded",
// left out between since and now. The next flush that has something to write
// keeps it in the file.
func (s *Store) Filtered(typeName, kind string, since time.Time, n int64) {
	if n <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.filtered[filteredKey{typeName, kind, minutesOf(since, s.now())}] += n
}

// lose needs mu.
func (s *Store) lose(key lossKey, n int64) {
	s.lost[key] += n
	s.pending.lost[key] += n
}

func wakeUp(sleeper chan struct{}) {
	select {
	case sleeper <- struct{}{}:
	default: // it is awake
	}
}
