package store

import (
	"cmp"
	"container/heap"
	"errors"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// merge brings the events of file and memory into one order. A source is
// looked into when it can hold the next event, not before, and forgotten when
// it is through, so a page reads little of what there is.
type merge struct {
	search  *search
	view    *view
	want    int       // events that are still to be found
	sources []*source // a heap: the one to read next is first
	ahead   int       // how many blocks are loaded together
	rows    []event.Row
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
	block bool                     // load can be called beside that of other blocks
	contents
	piece int // how many rows were built last
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

// contents are the events of a source that match, in the order of the search.
type contents struct {
	batch *event.Batch // with all columns
	rows  []int32      // of batch, that are still to be read
	rest  []int32      // what comes after them, to be built first
	// build returns some of the rest, which ascend here, with all columns.
	build func(rows []int32) (*event.Batch, error)
	id    *blockID // of a block of which batch is the whole
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
// They are good until the next call.
func (m *merge) group() ([]event.Row, error) {
	rows := m.rows[:0]
	var at int64 // of them all
	var typeIndex int
	for len(m.sources) > 0 {
		next := m.sources[0]
		if next.parts != nil || next.load != nil {
			if err := m.open(next); err != nil {
				return nil, err
			}
			continue
		}
		if len(rows) == 0 {
			at, typeIndex = next.time, next.typeIndex
		} else if next.time != at || next.typeIndex != typeIndex {
			break
		}
		rows = append(rows, event.Row{Batch: next.batch, Index: int(next.rows[0])})
		next.rows = next.rows[1:]
		if err := m.advance(next); err != nil {
			return nil, err
		}
	}
	m.rows = rows
	return rows, nil
}

// open replaces the first source by its parts, or loads it. The blocks that come
// next are loaded beside a block, each on another processor.
func (m *merge) open(src *source) error {
	if err := m.search.ctx.Err(); err != nil {
		return &query.Unfinished{At: time.Unix(0, src.time), Err: err}
	}
	if src.parts != nil {
		heap.Pop(m)
		return src.parts()
	}
	if !src.block {
		if err := m.load(src); err != nil {
			return err
		}
		m.settleFirst()
		return nil
	}
	workers := processors()
	m.ahead = max(m.ahead, workers)
	blocks, err := m.nextBlocks(m.reach())
	if err != nil {
		return err
	}
	blocks = blocks[:min(len(blocks), m.ahead)]
	err = inParallel(workers, len(blocks), func(_, i int) error { return m.load(blocks[i]) })
	found, whole := 0, false
	for _, src := range blocks {
		found += len(src.rows) + len(src.rest)
		whole = whole || src.id != nil
	}
	if found < m.want && !whole { // to wait for the slowest of a few takes longer than a block too many
		enough := len(blocks) * (m.want - found + found - 1) / max(found, 1)
		m.ahead = max(m.ahead, min(4*m.ahead, maxTogether, enough))
	}
	m.settle()
	return err
}

// maxTogether is how many blocks are loaded, and read ahead, together at most.
const maxTogether = 16

// reach is how many blocks the system begins to read: more than are loaded next
// where those will not be the last.
func (m *merge) reach() int {
	if m.want > block.MaxRows {
		return maxTogether
	}
	return m.ahead
}

// settle puts the heap in order after sources were loaded.
func (m *merge) settle() {
	m.sources = slices.DeleteFunc(m.sources, func(src *source) bool { return src.isOpen() && len(src.rows) == 0 })
	heap.Init(m)
}

// settleFirst puts the first source, whose rows have changed, in its place.
func (m *merge) settleFirst() {
	if len(m.sources[0].rows) == 0 {
		heap.Pop(m)
	} else {
		heap.Fix(m, 0)
	}
}

// nextBlocks returns the next blocks that are not loaded; the first source is one.
func (m *merge) nextBlocks(n int) (blocks []*source, err error) {
	var passed []*source
	for len(blocks) < n && len(m.sources) > 0 && err == nil {
		src := heap.Pop(m).(*source)
		if src.parts != nil {
			err = src.parts()
			continue
		}
		passed = append(passed, src)
		if src.block && src.load != nil {
			blocks = append(blocks, src)
		}
	}
	for _, src := range passed {
		heap.Push(m, src)
	}
	return blocks, err
}

// load finds the rows of a source that match, and builds the first of them. It
// has none afterwards if it is damaged. The heap is not in order then.
func (m *merge) load(src *source) error {
	loaded, err := src.load()
	src.load = nil
	if errors.Is(err, errDamaged) {
		return nil
	}
	if err != nil {
		return err
	}
	src.contents = loaded
	return m.prepare(src)
}

// prepare sees to it that a source that is not at its end has a next row.
func (m *merge) prepare(src *source) error {
	if len(src.rows) == 0 && len(src.rest) > 0 {
		// A few at a time, beginning with more than are wanted: the next are not
		// built for nothing.
		n := min(max(4*src.piece, m.want+1, 64), len(src.rest))
		rows := src.rest[:n]
		if !m.search.ascending {
			rows = reversed(rows)
		}
		batch, err := src.build(rows)
		if errors.Is(err, errDamaged) {
			src.rest = nil
			return nil
		}
		if err != nil {
			return err
		}
		src.batch, src.rows, src.rest, src.piece = batch, allRows(n), src.rest[n:], n
		if !m.search.ascending {
			slices.Reverse(src.rows)
		}
	}
	if len(src.rows) > 0 {
		src.time = src.batch.Columns[event.Time].Ints[src.rows[0]]
	}
	return nil
}

func reversed(rows []int32) []int32 {
	other := make([]int32, len(rows))
	for i, row := range rows {
		other[len(rows)-1-i] = row
	}
	return other
}

// advance brings the first source, of which a row was read, to its new place.
func (m *merge) advance(src *source) error {
	if err := m.prepare(src); err != nil {
		return err
	}
	m.settleFirst()
	return nil
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
