package format

import (
	"bufio"
	"encoding/csv"
	"io"

	"github.com/srodi/ebpf-server/internal/event"
)

// csvWriter writes a header line and then a line for each event (RFC 4180);
// an absent value is an empty field.
type csvWriter struct {
	out    *csv.Writer
	table  *table
	fields []string
	text   []byte
}

func newCSVWriter(w io.Writer, types []*event.Type, fields []string) (*csvWriter, error) {
	t, err := newTable(types, fields)
	if err != nil {
		return nil, err
	}
	c := &csvWriter{out: csv.NewWriter(bufio.NewWriterSize(w, 1<<16)), table: t} // which does not buffer it once more
	return c, c.out.Write(t.fields)
}

func (c *csvWriter) Write(row event.Row) error {
	at, err := c.table.own(row)
	if err != nil {
		return err
	}
	c.fields = c.fields[:0]
	for _, own := range at {
		switch own {
		case absent:
			c.fields = append(c.fields, "")
		case event.TypeField:
			c.fields = append(c.fields, row.Batch.Type.Name)
		default:
			c.text, _ = row.AppendText(c.text[:0], own)
			c.fields = append(c.fields, string(c.text))
		}
	}
	return c.out.Write(c.fields)
}

func (c *csvWriter) Close() error {
	c.out.Flush()
	return c.out.Error()
}
