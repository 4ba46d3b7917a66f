package store

import (
	"cmp"
	"container/heap"
	"errors"

	"github.com/srodi/ebpf-server/internal/event"
)

// merge brings the events of file and memory into one order. A source is
// looked into when it can hold the next event, not before, and forgotten when
// it is through, so a page reads little of what there is.
type merge struct {
	search  *search
	view    *view
	want    int       // events that are still to be found
	sources []*source // a heap: the one to read next is first
}

// source is a segment or an hour of rows, until its parts take its place; or a
// block, a chunk or a batch in memory.
type source struct {
	typeIndex int
	order     order
	in        span  // what is wanted of it
	time      int64 // of the next row; before it is loaded, the earliest or latest it can be

	parts func() error             // adds what it is made of; nil if it is not made of parts
	load  func() (contents, error) // nil once it is loaded
	contents
	rows  []int32      // those that match and are still to be read, in order
	built *event.Batch // the first of them, with all columns; nil if contents.batch has those
	used  int          // rows of built that were read
	piece int          // how many rows were built last
}

// order is that of events of the same time and type, which is the order in
// which they came: sealing makes blocks of the first rows, and numbers them.
type order struct {
	place  int // in order of the constants below
	number int64
}

const (
	inBlock = iota
	inChunk
	inMemory
)

// contents are events with the time and the columns of the filters.
type contents struct {
	batch *event.Batch
	id    *blockID // of a block
	// build returns some rows, which ascend, with all columns; nil if batch has them all.
	build func(rows []int32) (*event.Batch, error)
}

// add puts a source into the heap that has events between two times.
func (m *merge) add(src *source, first, last int64) {
	src.time = max(first, src.in.from)
	if !m.search.ascending {
		src.time = min(last, src.in.until-1)
	}
	heap.Push(m, src)
}

// group returns the next events of one time and type, in order; none at the end.
func (m *merge) group() (rows []event.Row, err error) {
	var first *source
	for len(m.sources) > 0 {
		next := m.sources[0]
		if next.parts != nil || next.load != nil {
			if err := m.open(next); err != nil {
				return nil, err
			}
			continue
		}
		if first == nil {
			first = &source{time: next.time, typeIndex: next.typeIndex}
		} else if next.time != first.time || next.typeIndex != first.typeIndex {
			break
		}
		row, err := m.row(next)
		if errors.Is(err, errDamaged) {
			m.advance(next, nil)
			continue
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
		m.advance(next, next.rows[1:])
	}
	return rows, nil
}

// open replaces the first source by its parts, or finds the rows of it that match.
func (m *merge) open(src *source) error {
	if err := m.search.ctx.Err(); err != nil {
		return err
	}
	if src.parts != nil {
		heap.Pop(m)
		return src.parts()
	}
	var err error
	if src.contents, err = src.load(); err != nil {
		if errors.Is(err, errDamaged) {
			heap.Pop(m)
			return nil
		}
		return err
	}
	src.load = nil
	rows := m.search.matchers[src.typeIndex].Select(src.batch, src.in.window(), make([]int32, 0, 64))
	m.advance(src, m.search.sorted(src.batch, rows))
	return nil
}

// row returns the next row of a source with all columns. They are built a few
// at a time, beginning with as many as are wanted.
func (m *merge) row(src *source) (event.Row, error) {
	if src.build == nil {
		return event.Row{Batch: src.batch, Index: int(src.rows[0])}, nil
	}
	if src.built == nil || src.used == src.piece {
		n := min(max(4*src.piece, m.want, 64), len(src.rows))
		rows := src.rows[:n]
		if !m.search.ascending {
			rows = reversed(rows)
		}
		var err error
		if src.built, err = src.build(rows); err != nil {
			return event.Row{}, err
		}
		src.used, src.piece = 0, n
	}
	at := src.used
	if src.used++; !m.search.ascending {
		at = src.piece - 1 - at
	}
	return event.Row{Batch: src.built, Index: at}, nil
}

func reversed(rows []int32) []int32 {
	other := make([]int32, len(rows))
	for i, row := range rows {
		other[len(rows)-1-i] = row
	}
	return other
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
	rest := cmp.Or(cmp.Compare(a.typeIndex, b.typeIndex), cmp.Compare(a.order.place, b.order.place), cmp.Compare(a.order.number, b.order.number))
	if !m.search.ascending {
		byTime, rest = -byTime, -rest
	}
	if byTime != 0 {
		return byTime < 0
	}
	if aOpen, bOpen := a.isOpen(), b.isOpen(); aOpen != bOpen {
		return bOpen
	}
	return rest < 0
}

func (src *source) isOpen() bool { return src.parts == nil && src.load == nil }

func (m *merge) Swap(i, j int) { m.sources[i], m.sources[j] = m.sources[j], m.sources[i] }

func (m *merge) Push(x any) { m.sources = append(m.sources, x.(*source)) }

func (m *merge) Pop() any {
	last := m.sources[len(m.sources)-1]
	m.sources = m.sources[:len(m.sources)-1]
	return last
}
