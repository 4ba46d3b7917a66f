package store

import (
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// columnsOf returns the columns that fields with some names are made of, and
// time; all if there are none.
func columnsOf(t *event.Type, names []string) []int {
	if len(names) == 0 {
		return allColumns(t)
	}
	columns := []int{event.Time}
	for _, i := range t.Fields(names) {
		if i > event.Time {
			columns = append(columns, t.Sources(i)...)
		}
	}
	slices.Sort(columns)
	return slices.Compact(columns)
}

// shown returns a batch in which the columns that nobody asked for are absent.
func (r *search) shown(typeIndex int, b *event.Batch) *event.Batch {
	columns := r.columns[typeIndex]
	if len(columns) == len(b.Columns) {
		return b
	}
	shown := &event.Batch{Type: b.Type, Columns: make([]event.Vector, len(b.Columns))}
	for i, c := range b.Type.Columns {
		shown.Columns[i] = event.Absent(c.Kind, b.Len())
	}
	for _, i := range columns {
		shown.Columns[i] = b.Columns[i]
	}
	return shown
}
