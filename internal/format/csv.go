package format

import (
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

func newCSVWriter(w io.Writer, types []*event.Type) (*csvWriter, error) {
	t, err := newTable(types)
	if err != nil {
		return nil, err
	}
	c := &csvWriter{out: csv.NewWriter(w), table: t}
	c.fields = append(c.fields, "time", "type")
	for _, column := range t.columns[1:] {
		c.fields = append(c.fields, column.Name)
	}
	return c, c.out.Write(c.fields)
}

func (c *csvWriter) Write(row event.Row) error {
	at, err := c.table.own(row)
	if err != nil {
		return err
	}
	c.fields = c.fields[:0]
	for i, own := range at {
		c.text = c.text[:0]
		if own >= 0 {
			c.text, _ = row.AppendText(c.text, own)
		}
		c.fields = append(c.fields, string(c.text))
		if i == event.Time {
			c.fields = append(c.fields, row.Batch.Type.Name)
		}
	}
	return c.out.Write(c.fields)
}

func (c *csvWriter) Close() error {
	c.out.Flush()
	return c.out.Error()
}
