package format

import (
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/srodi/ebpf-server/internal/event"
)

// rowsAtOnce is how many events go to the Parquet writer in one call.
const rowsAtOnce = 1024

// rowGroupRows is the size of the row groups that are written: as many as fit
// in a block of the store.
const rowGroupRows = 65536

// parquetWriter writes one Parquet file: numbers as INT64, times as timestamps
// in nanoseconds, everything else as text, absent values as null.
type parquetWriter struct {
	out     *parquet.GenericWriter[any]
	table   *table
	columns []int // for each column of the file, that of the table; typeColumn for the type's name
	rows    []parquet.Row
}

// typeColumn stands for the field "type", which is no column of a type.
const typeColumn = -1

func newParquetWriter(w io.Writer, types []*event.Type) (*parquetWriter, error) {
	t, err := newTable(types)
	if err != nil {
		return nil, err
	}
	fields := parquet.Group{"type": parquet.Encoded(parquet.String(), &parquet.RLEDictionary)}
	for i, c := range t.columns {
		fields[c.Name] = node(i, c)
	}
	schema := parquet.NewSchema("events", fields)
	p := &parquetWriter{table: t, out: parquet.NewGenericWriter[any](w, schema, parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}), parquet.MaxRowsPerRowGroup(rowGroupRows))}
	for _, path := range schema.Columns() {
		p.columns = append(p.columns, slices.IndexFunc(t.columns, func(c event.Column) bool { return c.Name == path[0] }))
	}
	return p, nil
}

func node(i int, c event.Column) parquet.Node {
	if i == event.Time {
		return parquet.Encoded(parquet.Timestamp(parquet.Nanosecond), &parquet.DeltaBinaryPacked)
	}
	switch c.Kind {
	case event.KindInt:
		return parquet.Optional(parquet.Leaf(parquet.Int64Type))
	case event.KindID:
		return parquet.Optional(parquet.Encoded(parquet.String(), &parquet.DeltaByteArray))
	}
	return parquet.Optional(parquet.Encoded(parquet.String(), &parquet.RLEDictionary))
}

func (p *parquetWriter) Write(row event.Row) error {
	at, err := p.table.own(row)
	if err != nil {
		return err
	}
	values := make(parquet.Row, 0, len(p.columns))
	for column, i := range p.columns {
		v, level := p.value(row, at, i), 0
		if !v.IsNull() && i != typeColumn && i != event.Time { // those two are required
			level = 1
		}
		values = append(values, v.Level(0, level, column))
	}
	if p.rows = append(p.rows, values); len(p.rows) == rowsAtOnce {
		return p.flush()
	}
	return nil
}

func (p *parquetWriter) value(row event.Row, at []int, i int) parquet.Value {
	if i == typeColumn {
		return parquet.ByteArrayValue([]byte(row.Batch.Type.Name))
	}
	own := at[i]
	if own < 0 {
		return parquet.NullValue()
	}
	if kind := p.table.columns[i].Kind; kind == event.KindInt || kind == event.KindTime {
		if n, ok := row.Int(own); ok {
			return parquet.Int64Value(n)
		}
		return parquet.NullValue()
	}
	text, ok := row.AppendText(nil, own)
	if !ok {
		return parquet.NullValue()
	}
	return parquet.ByteArrayValue(text)
}

func (p *parquetWriter) flush() error {
	_, err := p.out.WriteRows(p.rows)
	p.rows = p.rows[:0]
	return err
}

func (p *parquetWriter) Close() error {
	if err := p.flush(); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return p.out.Close()
}
