// Package format writes events in the formats that other programs read (NDJSON,
// CSV, Parquet) and reads them back. The names of fields are those of the API.
package format

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

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
)

// Names are the formats that can be written.
var Names = []string{NDJSON, CSV, Parquet}

// NewWriter returns a writer of events of the given types, as NDJSON or CSV; see
// NewParquetWriter for Parquet.
func NewWriter(w io.Writer, name string, types []*event.Type) (Writer, error) {
	switch name {
	case NDJSON:
		return &ndjsonWriter{out: bufio.NewWriterSize(w, 1<<16)}, nil
	case CSV:
		return newCSVWriter(w, types)
	}
	return nil, fmt.Errorf("format %q is not known (known are %s)", name, strings.Join(Names, ", "))
}

type ndjsonWriter struct {
	out  *bufio.Writer
	line []byte
}

func (w *ndjsonWriter) Write(row event.Row) error {
	w.line = append(row.AppendJSON(w.line[:0]), '\n')
	_, err := w.out.Write(w.line)
	return err
}

func (w *ndjsonWriter) Close() error { return w.out.Flush() }

// table is the fields of several types side by side: those of the same name
// are one.
type table struct {
	columns []event.Column
	at      map[*event.Type][]int // for each column of the table, that of the type; -1: it has none
}

// newTable fails if two types have columns of one name and different kinds.
func newTable(types []*event.Type) (*table, error) {
	t := &table{at: map[*event.Type][]int{}}
	index := map[string]int{}
	for _, typ := range types {
		for _, c := range typ.Fields() {
			i, known := index[c.Name]
			if !known {
				index[c.Name] = len(t.columns)
				t.columns = append(t.columns, c)
			} else if t.columns[i].Kind != c.Kind {
				return nil, fmt.Errorf("column %s is of kind %v in one type and %v in another: export the types one by one", c.Name, t.columns[i].Kind, c.Kind)
			}
		}
	}
	for _, typ := range types {
		at := make([]int, len(t.columns))
		for i, c := range t.columns {
			at[i] = slices.IndexFunc(typ.Fields(), func(own event.Column) bool { return own.Name == c.Name })
		}
		t.at[typ] = at
	}
	return t, nil
}

// own returns for each column of the table that of the row's type.
func (t *table) own(row event.Row) ([]int, error) {
	at, ok := t.at[row.Batch.Type]
	if !ok {
		return nil, fmt.Errorf("write event: type %s was not announced", row.Batch.Type.Name)
	}
	return at, nil
}
