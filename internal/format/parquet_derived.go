package format

import (
	"fmt"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// derived makes the derived fields of a type that a file has. They are encoded
// as a block of their own, which joins that of the columns.
type derived struct {
	as      *event.Type // has the fields as columns
	fields  []int       // their positions in Type.Shown
	sources []int       // the columns that they follow from
	encoded []byte
}

func (p *ParquetWriter) has(name string) bool {
	return slices.ContainsFunc(p.columns, func(c event.Column) bool { return c.Name == name })
}

// derivedFields returns what makes the derived fields of a type; nil if there are none.
func (p *ParquetWriter) derivedFields(t *event.Type) (*derived, error) {
	if d, known := p.derived[t]; known {
		return d, nil
	}
	var d derived
	var columns []event.Column
	for i, c := range t.Shown() {
		if i >= len(t.Columns) && p.has(c.Name) {
			columns = append(columns, c)
			d.fields = append(d.fields, i)
			d.sources = append(d.sources, t.Sources(i)...)
		}
	}
	p.derived[t] = nil
	if len(columns) == 0 {
		return nil, nil
	}
	var err error
	if d.as, err = event.NewType(event.Type{Name: t.Name, Collection: t.Collection, Breakdown: columns[0].Name, Columns: columns}); err != nil {
		return nil, err
	}
	p.derived[t] = &d
	return &d, nil
}

// derivedOfBlock returns the block of derived fields for one of columns.
func (p *ParquetWriter) derivedOfBlock(t *event.Type, data []byte) ([][]byte, error) {
	d, err := p.derivedFields(t)
	if d == nil {
		return nil, err
	}
	opened, err := block.Open(data, t)
	if err != nil {
		return nil, err
	}
	events, err := opened.Read(append(d.sources, event.Time))
	if err != nil {
		return nil, err
	}
	return p.derivedOf(events)
}

// derivedOf is the same for events that are sorted by time.
func (p *ParquetWriter) derivedOf(events *event.Batch) ([][]byte, error) {
	d, err := p.derivedFields(events.Type)
	if d == nil {
		return nil, err
	}
	b := &event.Batch{Type: d.as}
	for _, c := range d.as.Columns {
		b.Columns = append(b.Columns, event.Absent(c.Kind, events.Len()))
	}
	b.Columns[event.Time] = events.Columns[event.Time]
	for _, field := range d.fields {
		b.Columns[d.as.MustColumn(events.Type.Shown()[field].Name)] = textsOf(events, field)
	}
	if d.encoded, err = p.encoder.Append(d.encoded[:0], b); err != nil {
		return nil, fmt.Errorf("write Parquet: %w", err)
	}
	return [][]byte{d.encoded}, nil
}

// textsOf returns a field of all events.
func textsOf(events *event.Batch, field int) event.Vector {
	v := event.Vector{Codes: make([]uint32, events.Len())}
	codes := make(map[string]uint32, events.Len())
	var text []byte
	for i := range v.Codes {
		var ok bool
		if text, ok = (event.Row{Batch: events, Index: i}).AppendText(text[:0], field); !ok {
			continue
		}
		code, known := codes[string(text)]
		if !known {
			v.Dict = append(v.Dict, string(text))
			code = uint32(len(v.Dict))
			codes[v.Dict[code-1]] = code
		}
		v.Codes[i] = code
	}
	return v
}

// shown returns a batch without values in columns that the file does not have:
// derived fields may have needed them.
func (p *ParquetWriter) shown(b *event.Batch) *event.Batch {
	shown := &event.Batch{Type: b.Type, Columns: slices.Clone(b.Columns)}
	for i, c := range b.Type.Columns {
		if !b.Columns[i].Absent() && !p.has(c.Name) {
			shown.Columns[i] = event.Absent(c.Kind, b.Len())
		}
	}
	return shown
}
