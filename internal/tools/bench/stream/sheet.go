package stream

import (
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// sheet is a batch in the making. It writes the columns directly: a lookup in
// a map for each value, as Batch.SetString has it, would cost more than all the rest.
type sheet struct {
	made  event.Batch
	rows  int
	used  []bool   // by column: it has a value
	texts []*texts // by column, for those that have a dictionary
}

// texts are the values that a column can have.
type texts struct {
	values []string
	codes  []uint32 // of each value in the present batch, 0 when it is not in it
	used   []int32
}

func newSheet(t *event.Type) sheet {
	return sheet{made: event.Batch{Type: t, Columns: make([]event.Vector, len(t.Columns))}, texts: make([]*texts, len(t.Columns)), used: make([]bool, len(t.Columns))}
}

// dictionary says what values a column can have; set names them by position.
func (s *sheet) dictionary(column int, values []string) {
	s.texts[column] = &texts{values: values, codes: make([]uint32, len(values))}
}

// begin makes room for a batch. All of it is zero, which means absent.
func (s *sheet) begin(limit int) {
	s.rows = 0
	if cap(s.made.Columns[event.Time].Ints) >= limit {
		return
	}
	for i, c := range s.made.Type.Columns {
		v := &s.made.Columns[i]
		switch c.Kind {
		case event.KindTime:
			v.Ints = make([]int64, limit)
		case event.KindInt:
			v.Ints, v.Valid = make([]int64, limit), make([]bool, limit)
		case event.KindString, event.KindIP:
			v.Codes = make([]uint32, limit)
		case event.KindID:
			v.Ints, v.Codes = make([]int64, limit), make([]uint32, limit)
		}
	}
}

// row begins an event.
func (s *sheet) row(unixNano int64) {
	s.made.Columns[event.Time].Ints[s.rows], s.used[event.Time] = unixNano, true
	s.rows++
}

func (s *sheet) number(column int, n int64) {
	v := &s.made.Columns[column]
	v.Ints[s.rows-1], v.Valid[s.rows-1], s.used[column] = n, true, true
}

func (s *sheet) text(column int, value int32) {
	v, t := &s.made.Columns[column], s.texts[column]
	code := t.codes[value]
	if code == 0 {
		v.Dict = append(v.Dict, t.values[value])
		code = uint32(len(v.Dict))
		t.codes[value] = code
		t.used = append(t.used, value)
	}
	v.Codes[s.rows-1], s.used[column] = code, true
}

func (s *sheet) id(column int, scope int32, n int64) {
	s.text(column, scope)
	s.made.Columns[column].Ints[s.rows-1] = n
}

// batch returns the rows as a batch of their own and forgets them.
func (s *sheet) batch() *event.Batch {
	b := &event.Batch{Type: s.made.Type, Columns: make([]event.Vector, len(s.made.Columns))}
	for i, v := range s.made.Columns {
		if !s.used[i] {
			b.Columns[i] = event.Absent(b.Type.Columns[i].Kind, s.rows)
			continue
		}
		b.Columns[i] = event.Vector{
			Ints: slices.Clone(cut(v.Ints, s.rows)), Valid: slices.Clone(cut(v.Valid, s.rows)),
			Codes: slices.Clone(cut(v.Codes, s.rows)), Dict: slices.Clone(v.Dict),
		}
	}
	for i := range s.made.Columns {
		if !s.used[i] {
			continue
		}
		v := &s.made.Columns[i]
		s.used[i] = false
		clear(cut(v.Ints, s.rows))
		clear(cut(v.Valid, s.rows))
		clear(cut(v.Codes, s.rows))
		v.Dict = v.Dict[:0]
		if t := s.texts[i]; t != nil {
			for _, value := range t.used {
				t.codes[value] = 0
			}
			t.used = t.used[:0]
		}
	}
	return b
}

func cut[T any](all []T, n int) []T { return all[:min(n, len(all))] }
