package block

import (
	"fmt"
	"slices"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// placeOfType is where the column "type" stands, as in the API: behind time.
const placeOfType = event.Time + 1

// schema is the columns of a file: those that are declared, and "type".
type schema struct {
	columns []event.Column
	paths   [][]string // their names, as a footer has them
	at      map[string]int
}

func newSchema(declared []event.Column) schema {
	s := schema{
		columns: slices.Insert(slices.Clone(declared), placeOfType, event.Column{Name: "type", Kind: event.KindString}),
		at:      make(map[string]int, len(declared)+1),
	}
	for i, c := range s.columns {
		s.paths = append(s.paths, []string{c.Name})
		s.at[c.Name] = i
	}
	return s
}

func (s *schema) optional(i int) bool { return i != event.Time && i != placeOfType }

// places returns where the columns of a block stand in the schema, or an error
// if their pages mean something else there.
func (s *schema) places(f *footer) ([]int, error) {
	var places []int
	for _, e := range f.schema[1:] {
		at, known := s.at[string(e.name)]
		switch {
		case !known:
			return nil, fmt.Errorf("column %s is not one of the file", e.name)
		case e.physical != physicalType(s.columns[at].Kind), (e.repetition == format.Optional) != s.optional(at):
			return nil, fmt.Errorf("column %s is of another kind in the file", e.name)
		case slices.Contains(places, at):
			return nil, fmt.Errorf("column %s is there twice", e.name)
		}
		places = append(places, at)
	}
	for _, at := range []int{event.Time, placeOfType} {
		if !slices.Contains(places, at) {
			return nil, fmt.Errorf("column %s is missing", s.columns[at].Name)
		}
	}
	return places, nil
}

// IsWhole tells whether a block's columns are all declared by a type as it is
// now: a Writer can take the block as it is then, without decoding it.
func IsWhole(data []byte, t *event.Type) bool {
	f, err := readFooter(data)
	if err != nil || f.check(t.Name) != nil {
		return false
	}
	s := newSchema(t.Columns)
	_, err = s.places(f)
	return err == nil
}
