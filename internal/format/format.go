// Package format writes events in the formats that other programs read (NDJSON,
// CSV, Parquet) and reads them back, with the names of the API; and connections as
// the conn.log of Zeek.
package format

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// Writer writes events one by one, as text. Nothing is complete before Close,
// which leaves the underlying writer open.
type Writer interface {
	Write(event.Row) error
	Close() error
}

// The formats.
const (
	NDJSON  = "ndjson"
	CSV     = "csv"
	Parquet = "parquet"
	Zeek    = "zeek"
)

// Names are the formats of events of any types; Zeek is of connections alone.
var Names = []string{NDJSON, CSV, Parquet}

// NewWriter returns a writer of events of the given types, with some of their
// fields or all. Who has many events at once writes Parquet with a ParquetWriter.
func NewWriter(w io.Writer, name string, types []*event.Type, fields ...string) (Writer, error) {
	switch name {
	case NDJSON:
		return &ndjsonWriter{out: bufio.NewWriterSize(w, 1<<16), json: JSON(fields)}, nil
	case CSV:
		return newCSVWriter(w, types, fields)
	case Parquet:
		return newParquetRows(w, types, fields)
	case Zeek:
		return newZeekWriter(w, time.Now())
	}
	return nil, fmt.Errorf("format %q is not known (known are %s and %s)", name, strings.Join(Names, ", "), Zeek)
}

// JSON returns what appends an event as a JSON object, with some of its fields or
// all.
func JSON(fields []string) func(dst []byte, row event.Row) []byte {
	if len(fields) == 0 {
		return func(dst []byte, row event.Row) []byte { return row.AppendJSON(dst) }
	}
	at := map[*event.Type][]int{}
	return func(dst []byte, row event.Row) []byte {
		columns, known := at[row.Batch.Type]
		if !known {
			columns = row.Batch.Type.Fields(fields)
			at[row.Batch.Type] = columns
		}
		return row.AppendFields(dst, columns)
	}
}

type ndjsonWriter struct {
	out  *bufio.Writer
	json func(dst []byte, row event.Row) []byte
	line []byte
}

func (w *ndjsonWriter) Write(row event.Row) error {
	w.line = append(w.json(w.line[:0], row), '\n')
	_, err := w.out.Write(w.line)
	return err
}

func (w *ndjsonWriter) Close() error { return w.out.Flush() }

// table is the fields of several types side by side: columns of the same name
// are one.
type table struct {
	fields  []string
	columns []event.Column        // of them, without "type"
	at      map[*event.Type][]int // for each field, the position of the type's column, event.TypeField or absent
}

const absent = event.TypeField - 1

// newTable fails if two types have columns of one name and different kinds.
// Without names it has all fields.
func newTable(types []*event.Type, fields []string) (*table, error) {
	t := &table{fields: fields, at: map[*event.Type][]int{}}
	if len(fields) == 0 {
		t.fields = []string{"time", "type"}
	}
	index := map[string]int{}
	for _, typ := range types {
		for _, c := range typ.Shown() {
			i, known := index[c.Name]
			switch {
			case len(fields) > 0 && !slices.Contains(fields, c.Name):
			case !known:
				index[c.Name] = len(t.columns)
				t.columns = append(t.columns, c)
				if !slices.Contains(t.fields, c.Name) {
					t.fields = append(t.fields, c.Name)
				}
			case t.columns[i].Kind != c.Kind:
				return nil, fmt.Errorf("column %s is of kind %v in one type and %v in another: export the types one by one", c.Name, t.columns[i].Kind, c.Kind)
			}
		}
	}
	for _, typ := range types {
		for _, name := range t.fields {
			at := absent
			if own := typ.Fields([]string{name}); len(own) > 0 {
				at = own[0]
			}
			t.at[typ] = append(t.at[typ], at)
		}
	}
	return t, nil
}

// own returns for each field of the table the column of the row's type.
func (t *table) own(row event.Row) ([]int, error) {
	at, ok := t.at[row.Batch.Type]
	if !ok {
		return nil, fmt.Errorf("write event: type %s was not announced", row.Batch.Type.Name)
	}
	return at, nil
}
