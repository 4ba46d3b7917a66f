package format

import (
	"errors"
	"fmt"
	"io"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// ParquetWriter writes one Parquet file: numbers as INT64, times as timestamps
// in nanoseconds, everything else as text, absent values as null. Each row group
// holds events of one type, in the order in which they are given. It is written
// as soon as it is full, and is all that is kept in memory of a type.
type ParquetWriter struct {
	out     *block.Writer
	encoder *block.Encoder
	pending []*event.Batch // one of each type, less than a row group
	encoded []byte
	columns []event.Column // of the file
	derived map[*event.Type]*derived
}

// NewParquetWriter returns a writer of events of the given types. With names of
// fields the file has these columns, and time and type. Nothing is complete before Close, which leaves the underlying
// writer open.
func NewParquetWriter(w io.Writer, types []*event.Type, fields ...string) (*ParquetWriter, error) {
	if len(fields) > 0 {
		fields = append([]string{"time"}, fields...)
	}
	t, err := newTable(types, fields)
	if err != nil {
		return nil, err
	}
	encoder, err := block.NewEncoder()
	if err != nil {
		return nil, err
	}
	out, err := block.NewWriter(w, t.columns)
	return &ParquetWriter{out: out, encoder: encoder, columns: t.columns, derived: map[*event.Type]*derived{}}, err
}

// Batch takes over events. A row group is sorted by time in itself; they must
// come in that order for the whole file to be so.
func (p *ParquetWriter) Batch(b *event.Batch) error {
	i := p.place(b.Type.Name)
	if i < 0 {
		i = len(p.pending)
		p.pending = append(p.pending, event.NewBatch(b.Type, 0))
	}
	switch before := p.pending[i]; {
	case before.Len() == 0:
		p.pending[i] = b
	case before.Len()+b.Len() <= block.MaxRows:
		before.AppendRows(b, nil)
	default:
		p.pending[i] = b
		if err := p.rowGroup(before); err != nil {
			return err
		}
	}
	full := p.pending[i]
	if full.Len() < block.MaxRows {
		return nil
	}
	p.pending[i] = event.NewBatch(b.Type, 0)
	return p.rowGroup(full)
}

// Block writes events that are a block already, as it is, and beside it their
// derived fields. Those of the same type that came before it are before it in
// the file.
func (p *ParquetWriter) Block(t *event.Type, data []byte) error {
	if i := p.place(t.Name); i >= 0 {
		before := p.pending[i]
		p.pending = append(p.pending[:i], p.pending[i+1:]...)
		if err := p.rowGroup(before); err != nil {
			return err
		}
	}
	more, err := p.derivedOfBlock(t, data)
	if err != nil {
		return err
	}
	return p.out.Append(data, more...)
}

// Close writes what is left.
func (p *ParquetWriter) Close() error {
	for _, b := range p.pending {
		if err := p.rowGroup(b); err != nil {
			return err
		}
	}
	return p.out.Close()
}

// place returns where in pending the events of a type are, or -1.
func (p *ParquetWriter) place(typeName string) int {
	for i, b := range p.pending {
		if b.Type.Name == typeName {
			return i
		}
	}
	return -1
}

// rowGroup writes events as a row group, or as several if their texts are too long.
func (p *ParquetWriter) rowGroup(b *event.Batch) (err error) {
	n := int32(b.Len())
	if n == 0 {
		return nil
	}
	b = event.Sort(b)
	p.encoded, err = p.encoder.Append(p.encoded[:0], p.shown(b))
	switch {
	case err == nil:
		more, err := p.derivedOf(b)
		if err != nil {
			return err
		}
		return p.out.Append(p.encoded, more...)
	case !errors.Is(err, block.ErrTooLarge) || n == 1:
		return fmt.Errorf("write Parquet: %w", err)
	}
	for _, part := range [][2]int32{{0, n / 2}, {n / 2, n}} {
		half := event.NewBatch(b.Type, int(part[1]-part[0]))
		var rows []int32
		for row := part[0]; row < part[1]; row++ {
			rows = append(rows, row)
		}
		half.AppendRows(b, rows)
		if err := p.rowGroup(half); err != nil {
			return err
		}
	}
	return nil
}
