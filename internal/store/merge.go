package store

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// merge brings the events of the chunks and batches of one hour into one
// order. A chunk is decoded when it can hold the next event, not before, and
// forgotten when it is through, so a page from a large hour reads little of it.
type merge struct {
	search  *search
	view    *view
	sources []*source // a heap: the one to read next is first
}

// source is a chunk or a batch in memory.
type source struct {
	typeIndex int
	order     int    // in which the sources of a type came
	in        span   // what is wanted of it
	value     []byte // the chunk, until it is decoded
	batch     *event.Batch
	rows      []int32 // those that match and are still to be read, in order; nil before load
	time      int64   // of the next row; before load, the earliest or latest it can be
}

func (m *merge) init() { heap.Init(m) }

// group returns the next events of one time and type, in order; none at the end.
func (m *merge) group() (rows []event.Row, err error) {
	var first *source
	for len(m.sources) > 0 {
		next := m.sources[0]
		if next.rows == nil {
			if err := m.load(next); err != nil {
				return nil, err
			}
			continue
		}
		if first == nil {
			first = &source{time: next.time, typeIndex: next.typeIndex}
		} else if next.time != first.time || next.typeIndex != first.typeIndex {
			break
		}
		rows = append(rows, event.Row{Batch: next.batch, Index: int(next.rows[0])})
		m.advance(next, next.rows[1:])
	}
	return rows, nil
}

// load finds the rows of the first source that match.
func (m *merge) load(src *source) error {
	if err := m.search.ctx.Err(); err != nil {
		return err
	}
	t, matcher := m.search.types[src.typeIndex], m.search.matchers[src.typeIndex]
	var k *chunk
	if src.batch == nil {
		var err error
		if k, err = m.view.s.codec.open(src.value, m.view.s.schemas); err != nil {
			return err
		}
		if src.batch, err = k.batch(t, matcher.Columns()); err != nil {
			return err
		}
	}
	rows := matcher.Select(src.batch, src.in.window(), make([]int32, 0, 64))
	times := src.batch.Columns[event.Time].Ints
	slices.SortStableFunc(rows, func(x, y int32) int { return cmp.Compare(times[x], times[y]) })
	if !m.search.ascending {
		slices.Reverse(rows)
	}
	if k != nil && len(rows) > 0 {
		if err := k.fill(src.batch, allColumns(t)); err != nil {
			return err
		}
		// Only those that match: what is found in many chunks must not keep
		// all of them in memory.
		matching := event.NewBatch(t, len(rows))
		matching.AppendRows(src.batch, rows)
		src.batch, rows = matching, allRows(len(rows))
	}
	m.advance(src, rows)
	return nil
}

// advance leaves the first source with these rows to read.
func (m *merge) advance(src *source, rows []int32) {
	if src.rows = rows; len(rows) == 0 {
		heap.Pop(m)
		return
	}
	src.time = src.batch.Columns[event.Time].Ints[rows[0]]
	heap.Fix(m, 0)
}

func allColumns(t *event.Type) []int {
	columns := make([]int, len(t.Columns))
	for i := range columns {
		columns[i] = i
	}
	return columns
}

// Len, Less, Swap, Push and Pop are for container/heap.

func (m *merge) Len() int { return len(m.sources) }

// Less puts a source that is not loaded before those of the same time: its
// next row may be of that time and come first.
func (m *merge) Less(i, j int) bool {
	a, b := m.sources[i], m.sources[j]
	byTime := cmp.Compare(a.time, b.time)
	rest := cmp.Or(cmp.Compare(a.typeIndex, b.typeIndex), cmp.Compare(a.order, b.order))
	if !m.search.ascending {
		byTime, rest = -byTime, -rest
	}
	if byTime != 0 {
		return byTime < 0
	}
	if aLoaded, bLoaded := a.rows != nil, b.rows != nil; aLoaded != bLoaded {
		return bLoaded
	}
	return rest < 0
}

func (m *merge) Swap(i, j int) { m.sources[i], m.sources[j] = m.sources[j], m.sources[i] }

func (m *merge) Push(x any) { m.sources = append(m.sources, x.(*source)) }

func (m *merge) Pop() any {
	last := m.sources[len(m.sources)-1]
	m.sources = m.sources[:len(m.sources)-1]
	return last
}
