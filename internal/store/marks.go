package store

import "github.com/srodi/ebpf-server/internal/event"

// mark is an event with which a life begins or ends.
type mark struct {
	thing
	at int64
}

// lifeMarks finds such events.
type lifeMarks struct {
	life             *event.Life
	columns          []int
	id, begins, ends int
	found            int // -1: the type has no such column
}

func newLifeMarks(t *event.Type) lifeMarks {
	m := lifeMarks{life: t.Life, id: t.MustColumn(t.Life.ID), begins: t.MustColumn(t.Life.Begins.Column), ends: t.MustColumn(t.Life.Ends.Column), found: -1}
	m.columns = []int{event.Time, m.id, m.begins, m.ends}
	if name := t.Life.Found.Column; name != "" {
		m.found = t.MustColumn(name)
		m.columns = append(m.columns, m.found)
	}
	return m
}

// lifeMark is a row with a mark.
type lifeMark struct {
	row        int32
	end, found bool // found: see event.Life
}

func (m lifeMarks) of(b *event.Batch) (all []lifeMark) {
	ids, begins, ends := &b.Columns[m.id], marked(&b.Columns[m.begins], m.life.Begins), marked(&b.Columns[m.ends], m.life.Ends)
	var found []bool
	if m.found >= 0 {
		found = marked(&b.Columns[m.found], m.life.Found)
	}
	for row := range b.Len() {
		end := ends[b.Columns[m.ends].Codes[row]]
		if ids.Codes[row] == 0 || !end && !begins[b.Columns[m.begins].Codes[row]] {
			continue
		}
		all = append(all, lifeMark{int32(row), end, found != nil && found[b.Columns[m.found].Codes[row]]})
	}
	return all
}
