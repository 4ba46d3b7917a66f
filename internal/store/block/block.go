// Package block keeps many events of one type in little space. A block is a
// complete Parquet file, so that other tools read it too: one row group, the
// columns of the API in their order, sorted by time. Beside a block goes an
// Index, which tells cheaply that a block cannot have what is looked for.
//
// Pages are written and read here rather than by parquet-go's Writer and File,
// because a Batch has its values in dictionaries already: they pass to the
// file and back without a look at each row's value, which takes less than a
// third of the time. What parquet-go gives is the format's structures, their
// Thrift encoding, and the encoders of values.
package block

import (
	"fmt"

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
		pages, err := chunk.pages(data)
		if err != nil {
			return nil, fmt.Errorf("open block: column %s: %w", e.name, err)
		}
		b.columns[at].pages, b.columns[at].codec = pages, chunk.codec
		b.columns[at].optional = e.repetition == format.Optional && at != event.Time
	}
	if b.columns[event.Time].pages == nil {
		return nil, fmt.Errorf("open block: it has no column time")
	}
	return b, nil
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
	batch := &event.Batch{Type: b.t, Columns: make([]event.Vector, len(b.t.Columns))}
	return batch, b.fill(batch, columns, func(c *column, s *scratch) (event.Vector, error) { return c.read(b.rows, s) })
}

func (b *Block) fill(batch *event.Batch, columns []int, read func(c *column, s *scratch) (event.Vector, error)) error {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for _, i := range columns {
		if v := &batch.Columns[i]; v.Ints == nil && v.Codes == nil {
			filled, err := read(&b.columns[i], s)
			if err != nil {
				return fmt.Errorf("read column %s: %w", b.t.Columns[i].Name, err)
			}
			*v = filled
		}
	}
	return nil
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
	batch := &event.Batch{Type: b.t, Columns: make([]event.Vector, len(b.t.Columns))}
	return batch, b.fill(batch, columns, func(c *column, s *scratch) (event.Vector, error) {
		return c.readRows(b.rows, rows, s)
	})
}
