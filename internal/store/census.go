package store

import (
	"context"
	"errors"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// census finds out what is open. Events need not be looked at in order of time:
// open is what has an event of its beginning and none of its end.
type census struct {
	s         *Store
	ctx       context.Context
	q         query.At
	recording recorded
	in        span // of events that are looked at
	days      []int64
	removals  uint64           // when it began, see view.removals
	inFile    bool             // what is in memory only is left out, and what was carried over
	times     map[string]int64 // of those that were chosen, by their ids

	mu     sync.Mutex // for all below
	scopes []string   // of ids
	open   map[thing]int64
	// ended are those whose beginning was not met so far, with the time of their
	// end. It can only be on the same day or before, and so they are forgotten
	// after each day; or carried, see carried.go.
	ended map[thing]int64
}

// thing is what an id names.
type thing struct {
	scope  int // place in scopes
	number int64
}

// takeAll looks at what was carried over, and then at everything else, each day
// in a view of its own: events move only within a day, or are carried over.
func (c *census) takeAll() error {
	matcher := c.q.Filters.Compile(c.q.Type)
	if matcher.Nothing() {
		return nil
	}
	takers := make([]*taker, processors())
	for i := range takers {
		takers[i] = newTaker(c, matcher)
	}
	c.ended = map[thing]int64{}
	if err := c.take(takers, c.carriedTasks); err != nil {
		return err
	}
	before := c.ended // of what began in a pinned window and ended behind it
	for _, day := range c.days {
		c.ended = maps.Clone(before)
		if err := c.take(takers, func(v *view) ([]task, error) { return c.tasks(v, day) }); err != nil {
			return err
		}
	}
	return nil
}

// task looks at some of the events.
type task func(*taker) error

func (c *census) take(takers []*taker, find func(v *view) ([]task, error)) error {
	return c.s.view(func(v *view) error {
		tasks, err := find(v)
		if err != nil {
			return err
		}
		return inParallel(len(takers), len(tasks), func(worker, i int) error {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			return tasks[i](takers[worker])
		})
	})
}

// carriedTasks are the chunks that were carried over.
func (c *census) carriedTasks(v *view) (tasks []task, err error) {
	if c.inFile {
		return nil, nil
	}
	return tasks, v.carriedChunks(c.q.Type.Name, c.in, func(value []byte, failed func(error) error) error {
		tasks = append(tasks, func(n *taker) error { return failed(n.chunk(value, c.in)) })
		return nil
	})
}

// tasks are the blocks, chunks and batches with events of a day, also those that
// are hidden since they are too old: what they begin may be open still.
func (c *census) tasks(v *view, day int64) (tasks []task, err error) {
	whole := segment{day, hoursOfDay}.span()
	in := span{max(whole.from, c.in.from), min(whole.until, c.in.until)}
	err = v.blocksOf(c.q.Type, day, in, nil, func(b storedBlock) {
		tasks = append(tasks, func(n *taker) error { return n.block(b, in) })
	})
	if err != nil {
		return nil, err
	}
	chunk := func(value []byte, failed func(error) error) {
		tasks = append(tasks, func(n *taker) error { return failed(n.chunk(value, in)) })
	}
	return tasks, v.rowsIn(c.q.Type.Name, in, chunk, func(b *event.Batch) {
		if !c.inFile {
			tasks = append(tasks, func(n *taker) error { n.batch(b, in); return nil })
		}
	})
}

// taker is what a goroutine takes a census with.
type taker struct {
	*census
	matcher          query.Matcher
	columns          []int
	id, begins, ends int // columns

	bits   int     // so many tell a row's slot
	slots  []int32 // of a hash table of the rows with a beginning: the row and 1, or 0
	begun  []int32 // these rows
	over   []bool  // by row: the end is here as well
	wanted []bool  // by row: the filters let it through
	rest   []int32 // rows with an end whose beginning is not here
	rows   []int32

	opened chunk        // the last one
	events block.Memory // of the last block
}

func newTaker(c *census, matcher query.Matcher) *taker {
	life := c.q.Type.Life
	n := &taker{census: c, matcher: matcher, opened: chunk{reuse: true}}
	n.id, n.begins, n.ends = c.q.Type.MustColumn(life.ID), c.q.Type.MustColumn(life.Begins.Column), c.q.Type.MustColumn(life.Ends.Column)
	n.columns = append([]int{event.Time, n.id, n.begins, n.ends}, matcher.Columns()...)
	return n
}

func (n *taker) block(stored storedBlock, in span) error {
	var b *event.Batch
	err := n.s.readBlock(stored, n.q.Type, func(opened *block.Block) (err error) {
		first, end := 0, opened.Rows()
		if stored.min < in.from || stored.max >= in.until {
			if first, end, err = opened.Between(in.from, in.until); err != nil {
				return err
			}
		}
		b, err = opened.ReadRange(&n.events, n.columns, first, end)
		return err
	})
	if errors.Is(err, errDamaged) { // it is left out, and the coverage says so
		return nil
	}
	if err == nil {
		n.batch(b, in)
	}
	return err
}

func (n *taker) chunk(value []byte, in span) error {
	if err := n.s.codec.openInto(&n.opened, value, n.s.schemas); err != nil {
		return err
	}
	b, err := n.opened.batch(n.q.Type, n.columns)
	if err == nil {
		n.batch(b, in)
	}
	return err
}

// batch finds what begins or ends here and not both, and adds it to the census.
func (n *taker) batch(b *event.Batch, in span) {
	rows := b.Len()
	for first := 0; first < rows; first += block.MaxRows { // what a table is for
		n.some(b, in, first, min(rows, first+block.MaxRows))
	}
}

func (n *taker) some(b *event.Batch, in span, first, end int) {
	ids, times := &b.Columns[n.id], b.Columns[event.Time].Ints
	begins, ends := marked(&b.Columns[n.begins], n.q.Type.Life.Begins), marked(&b.Columns[n.ends], n.q.Type.Life.Ends)
	n.clearSlots(end - first)
	n.begun, n.rest = n.begun[:0], n.rest[:0]
	n.over, n.wanted = sizedClear(n.over, b.Len()), sizedClear(n.wanted, b.Len())
	for row := first; row < end; row++ {
		if times[row] < in.from || times[row] >= in.until || ids.Codes[row] == 0 {
			continue
		}
		if begins[b.Columns[n.begins].Codes[row]] {
			n.slots[n.slot(ids, row)] = int32(row) + 1
			n.begun = append(n.begun, int32(row))
		}
	}
	for row := first; row < end; row++ {
		if !ends[b.Columns[n.ends].Codes[row]] || times[row] < in.from || times[row] >= in.until || ids.Codes[row] == 0 {
			continue
		}
		if begun := n.slots[n.slot(ids, row)]; begun != 0 {
			n.over[begun-1] = true
		} else {
			n.rest = append(n.rest, int32(row))
		}
	}
	n.rows = n.matcher.Select(b, in.window(), n.rows[:0])
	for _, row := range n.rows {
		n.wanted[row] = true
	}
	n.add(ids, times)
}

// add adds what is left over to the census.
func (n *taker) add(ids *event.Vector, times []int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.things(ids)
	for _, row := range n.begun {
		// One that was found by two runs has two beginnings.
		if n.over[n.slots[n.slot(ids, int(row))]-1] || !n.wanted[row] {
			continue
		}
		if _, over := n.ended[of(row)]; !over {
			n.open[of(row)] = times[row]
		}
	}
	for _, row := range n.rest {
		delete(n.open, of(row))
		n.ended[of(row)] = times[row]
	}
}

// things returns what tells the thing that a row with an id is about. It needs mu.
func (c *census) things(ids *event.Vector) func(row int32) thing {
	scopes := make([]int, len(ids.Dict))
	for i, scope := range ids.Dict {
		if scopes[i] = slices.Index(c.scopes, scope); scopes[i] < 0 {
			scopes[i] = len(c.scopes)
			c.scopes = append(c.scopes, scope)
		}
	}
	return func(row int32) thing { return thing{scopes[ids.Codes[row]-1], ids.Ints[row]} }
}

// clearSlots makes the table one of twice as many free slots as there are rows, or
// more. Chunks can have few of them, and an hour hundreds of chunks.
func (n *taker) clearSlots(rows int) {
	n.bits = bits.Len(uint(2*rows - 1))
	n.slots = slices.Grow(n.slots[:0], 1<<n.bits)[:1<<n.bits]
	clear(n.slots)
}

// slot returns that of a row with the same id, or else a free one.
func (n *taker) slot(ids *event.Vector, row int) int {
	const golden = 0x9e3779b97f4a7c15 // spreads numbers that follow each other
	at := int(uint64(ids.Ints[row]) * golden >> (64 - n.bits))
	for {
		other := int(n.slots[at]) - 1
		if other < 0 || ids.Ints[other] == ids.Ints[row] && ids.Codes[other] == ids.Codes[row] {
			return at
		}
		at = (at + 1) & (len(n.slots) - 1)
	}
}

// marked tells of each code in a column whether it is a value of the mark.
func marked(v *event.Vector, m event.Mark) []bool {
	codes := make([]bool, 1+len(v.Dict))
	for i, text := range v.Dict {
		codes[1+i] = slices.Contains(m.Values, text)
	}
	return codes
}

// sizedClear returns n zeros, in the same memory if there is room.
func sizedClear(s []bool, n int) []bool {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}
