// Package block keeps many events of one type in little space. A block is a
// complete Parquet file, so that other tools read it too: one row group, the
// columns of the API that any of them has, in their order, sorted by time. Beside
// a block goes an Index, which tells cheaply that a block cannot have what is
// looked for.
//
// Pages are written and read here rather than by parquet-go's Writer and File,
// because a Batch has its values in dictionaries already: they pass to the
// file and back without a look at each row's value, which takes less than a
// third of the time. What parquet-go gives is the format's structures, their
// Thrift encoding, and the encoders of values.
package block

import (
	"fmt"
	"unsafe"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// Version is the version of what is in a block, as its metadata has it. A
	// block of another version is still Parquet; Open reads up to this one.
	Version = 1
	// MaxRows is how many events a block has at most. It bounds what a
	// damaged one makes a reader allocate.
	MaxRows = 1 << 16
)

// Block reads the events of a block. It is not safe for concurrent use.
type Block struct {
	t       *event.Type
	rows    int
	columns []column // as in Type.Columns
	keep    bool     // see Keep
}

// Open reads the footer of a block, as t declares its type now. Data must stay
// as it is while the Block is in use; what the Block returns is a copy. Open
// decodes no column, so that a damaged one is found when it is read.
func Open(data []byte, t *event.Type) (*Block, error) {
	f, err := readFooter(data)
	if err != nil {
		return nil, fmt.Errorf("open block: %w", err)
	}
	if err := f.check(t.Name); err != nil {
		return nil, fmt.Errorf("open block: %w", err)
	}
	b := &Block{t: t, rows: int(f.rows), columns: make([]column, len(t.Columns))}
	for i, c := range t.Columns {
		b.columns[i].kind = c.Kind
	}
	for i, chunk := range f.chunks {
		e := f.schema[1+i]
		at, known := t.Column(string(e.name))
		if !known || physicalType(t.Columns[at].Kind) != e.physical {
			continue // as in a chunk: a column of another kind is an absent one
		}
		c := &b.columns[at]
		if c.begin, c.end, err = chunk.bounds(len(data)); err != nil {
			return nil, fmt.Errorf("open block: column %s: %w", e.name, err)
		}
		c.codec = chunk.codec
		c.optional = e.repetition == format.Optional && at != event.Time
	}
	if c := b.columns[event.Time]; c.begin == c.end {
		return nil, fmt.Errorf("open block: it has no column time")
	}
	b.Rebase(data)
	return b, nil
}

// Rebase tells where the same data is now, so that a Block can be used for
// longer than data stays where it is. After Rebase(nil) it holds on to none.
func (b *Block) Rebase(data []byte) {
	for i := range b.columns {
		c := &b.columns[i]
		c.file = nil
		for k := range c.pages {
			p := &c.pages[k]
			p.levels, p.body = nil, nil
		}
		if data != nil {
			c.file = data[c.begin:c.end]
		}
	}
}

// Keep has Find, ReadRows and ReadRange keep what they decompress, for the next time that
// the Block is asked. Size tells how much that has become.
func (b *Block) Keep() { b.keep = true }

// Size returns about how many bytes of memory the Block takes.
func (b *Block) Size() int {
	size := int(unsafe.Sizeof(*b))
	for i := range b.columns {
		c := &b.columns[i]
		size += int(unsafe.Sizeof(*c)) + c.dict.size() + cap(c.pages)*int(unsafe.Sizeof(page{}))
		for k := range c.pages {
			size += cap(c.pages[k].kept)
		}
	}
	return size
}

// scratch returns what reading some of the events needs.
func (b *Block) scratch() *scratch {
	s := scratches.Get().(*scratch)
	s.keep = b.keep
	return s
}

func physicalType(k event.Kind) format.Type {
	if k == event.KindTime || k == event.KindInt {
		return format.Int64
	}
	return format.ByteArray
}

// Rows returns the number of events.
func (b *Block) Rows() int { return b.rows }

// Read returns all events with the columns that are asked for; the others are
// empty. A column that the block lacks is absent in all events.
func (b *Block) Read(columns []int) (*event.Batch, error) {
	return b.ReadRange(new(Memory), columns, 0, b.rows)
}

// Memory is what the columns of one batch after another lie in: to make new ones of
// ten thousands of rows takes as long as to decode them. The zero Memory is ready.
type Memory struct{ columns []event.Vector }

// ReadRange returns the events from the position first on and before end, with
// the columns that are asked for. What it returned before with this memory is good
// no more, but for the texts.
func (b *Block) ReadRange(m *Memory, columns []int, first, end int) (*event.Batch, error) {
	if first < 0 || first > end || end > b.rows {
		return nil, fmt.Errorf("read range of block: %d to %d are not within %d events", first, end, b.rows)
	}
	s := b.scratch()
	defer scratches.Put(s)
	s.keep = s.keep && end-first < b.rows // nobody has room for all
	m.columns = grown(m.columns, len(b.columns))
	return b.read(columns, func(i int) (event.Vector, error) {
		return b.columns[i].readRange(b.rows, first, end, &m.columns[i], s)
	})
}

func (b *Block) read(columns []int, read func(column int) (event.Vector, error)) (*event.Batch, error) {
	batch := &event.Batch{Type: b.t, Columns: make([]event.Vector, len(b.t.Columns))}
	for _, i := range columns {
		if v := &batch.Columns[i]; v.Ints == nil && v.Codes == nil {
			filled, err := read(i)
			if err != nil {
				return nil, fmt.Errorf("read column %s: %w", b.t.Columns[i].Name, err)
			}
			*v = filled
		}
	}
	return batch, nil
}

// ReadRows returns some events, by their positions in the block, which must
// ascend, with the columns that are asked for. It keeps no value of other
// events in memory.
func (b *Block) ReadRows(columns []int, rows []int32) (*event.Batch, error) {
	for i, row := range rows {
		if row < 0 || int(row) >= b.rows || i > 0 && row <= rows[i-1] {
			return nil, fmt.Errorf("read rows of block: row %d is not one of %d, in ascending order", row, b.rows)
		}
	}
	s := b.scratch()
	defer scratches.Put(s)
	return b.read(columns, func(i int) (event.Vector, error) { return b.columns[i].readRows(b.rows, rows, s) })
}
