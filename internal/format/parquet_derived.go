package format

import (
	"fmt"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// append writes a block, and what is derived from its events, if there is something.
func (p *ParquetWriter) append(data []byte, derived *event.Batch) (err error) {
	if derived == nil {
		return p.out.Append(data)
	}
	if p.derived, err = p.encoder.Append(p.derived[:0], derived); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return p.out.Append(data, p.derived)
}

// chosen returns events without the columns that the file does not have: some of
// these are there only because a field is derived from them.
func (p *ParquetWriter) chosen(b *event.Batch) *event.Batch {
	chosen := &event.Batch{Type: b.Type, Columns: slices.Clone(b.Columns)}
	for i, c := range b.Type.Columns {
		if !slices.Contains(p.fields, c.Name) {
			chosen.Columns[i] = event.Absent(c.Kind, b.Len())
		}
	}
	return chosen
}

// typeOfDerived returns a type with the derived fields of another one that the
// file has; nil if it has none.
func (p *ParquetWriter) typeOfDerived(t *event.Type) (*event.Type, error) {
	if made, known := p.types[t]; known {
		return made, nil
	}
	var columns []event.Column
	for _, c := range t.Fields()[len(t.Columns):] {
		if slices.Contains(p.fields, c.Name) {
			columns = append(columns, c)
		}
	}
	if columns == nil {
		p.types[t] = nil
		return nil, nil
	}
	made, err := event.NewType(event.Type{Name: t.Name, Collection: t.Collection, Breakdown: columns[0].Name, Columns: columns})
	p.types[t] = made
	return made, err
}

func (p *ParquetWriter) deriveOfBlock(t *event.Type, data []byte) (*event.Batch, error) {
	of, err := p.typeOfDerived(t)
	if of == nil || err != nil {
		return nil, err
	}
	opened, err := block.Open(data, t)
	if err != nil {
		return nil, err
	}
	columns := []int{event.Time}
	for field := len(t.Columns); field < len(t.Fields()); field++ {
		columns = append(columns, t.Sources(field)...)
	}
	slices.Sort(columns)
	events, err := opened.Read(slices.Compact(columns))
	if err != nil {
		return nil, err
	}
	return p.derive(events)
}

// derive returns the derived fields of events as columns of a type of their own, or
// nil if the file has none.
func (p *ParquetWriter) derive(events *event.Batch) (*event.Batch, error) {
	of, err := p.typeOfDerived(events.Type)
	if of == nil || err != nil {
		return nil, err
	}
	derived := &event.Batch{Type: of}
	for _, c := range of.Columns {
		if field := events.Type.Positions(c.Name); len(field) > 0 && field[0] >= len(events.Type.Columns) {
			derived.Columns = append(derived.Columns, textsOf(events, field[0]))
		} else {
			derived.Columns = append(derived.Columns, event.Absent(c.Kind, events.Len()))
		}
	}
	derived.Columns[event.Time] = events.Columns[event.Time]
	return derived, nil
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
