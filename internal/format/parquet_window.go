package format

import (
	"slices"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
)

// window is some rows of a Parquet file. They become events column by column,
// and each different text is looked at once. A row with anything unusual is
// left to Reader.record, as a line of NDJSON is.
type window struct {
	r       *Reader
	c       *collector
	bad     func(*BadRecord) error
	done    int64 // rows before it
	n       int   // rows of it
	columns []*fileColumn

	doubtful []bool // rows
	times    []int64
	types    []*event.Type // by row
}

func (w *window) column(name string) *fileColumn {
	for _, c := range w.columns {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (w *window) events() error {
	w.doubtful = append(w.doubtful[:0], make([]bool, w.n)...)
	w.readTimes()
	for _, t := range w.readTypes() {
		if err := w.eventsOf(t); err != nil {
			return err
		}
	}
	for row, doubtful := range w.doubtful {
		if !doubtful {
			continue
		}
		err := w.r.record(w.fields(row), w.c)
		if isBad(err) {
			err = w.bad(&BadRecord{w.done + int64(row) + 1, err})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fields returns a row as record takes it.
func (w *window) fields(row int) map[string]any {
	fields := make(map[string]any, len(w.columns))
	for _, c := range w.columns {
		if value := c.value(row); value != nil {
			fields[c.name] = value
		}
	}
	return fields
}

func (w *window) readTimes() {
	w.times = append(w.times[:0], make([]int64, w.n)...)
	c := w.column("time")
	for row := range w.n {
		ok := c != nil && c.hasNumbers() && c.present[row]
		if ok {
			w.times[row], ok = c.time(c.ints[row])
		}
		w.doubtful[row] = !ok
	}
}

// readTypes finds the type of each row, and returns those that there are.
func (w *window) readTypes() (found []*event.Type) {
	w.types = append(w.types[:0], make([]*event.Type, w.n)...)
	c := w.column("type")
	if c == nil || c.hasNumbers() {
		for row := range w.doubtful {
			w.doubtful[row] = true
		}
		return nil
	}
	known := make([]*event.Type, 1+len(c.texts))
	for i, text := range c.texts {
		known[1+i] = w.r.types[text]
	}
	for row, code := range c.codes {
		t := known[code]
		w.types[row] = t
		if t == nil {
			w.doubtful[row] = true
		} else if !slices.Contains(found, t) {
			found = append(found, t)
		}
	}
	return found
}

// eventsOf hands on the rows of a type in which it finds nothing to doubt.
func (w *window) eventsOf(t *event.Type) error {
	var rows []int32
	for row := range w.n {
		if w.types[row] == t && !w.doubtful[row] {
			rows = append(rows, int32(row))
		}
	}
	b := &event.Batch{Type: t, Columns: make([]event.Vector, len(t.Columns))}
	for _, c := range w.columns {
		if c.name == "type" || c.name == "time" || t.IsDerived(c.name) {
			continue
		}
		if i, known := t.Column(c.name); known {
			b.Columns[i] = w.vector(c, &t.Columns[i], rows)
		} else {
			w.doubt(rows, func(row int32) bool { return c.present[row] })
		}
	}
	b.Columns[event.Time].Ints = w.times
	for i, c := range t.Columns {
		if v := &b.Columns[i]; v.Ints == nil && v.Codes == nil {
			*v = event.Absent(c.Kind, w.n)
		}
	}
	rows = slices.DeleteFunc(rows, func(row int32) bool { return w.doubtful[row] })
	if len(rows) == w.n {
		rows = nil // all: it takes less time
	} else if len(rows) == 0 {
		return nil
	}
	return w.c.addRows(b, rows)
}

func (w *window) doubt(rows []int32, is func(row int32) bool) {
	for _, row := range rows {
		if is(row) {
			w.doubtful[row] = true
		}
	}
}

// vector returns a column as a batch holds it, good for those of some rows that
// it does not doubt.
func (w *window) vector(c *fileColumn, declared *event.Column, rows []int32) event.Vector {
	switch kind := declared.Kind; {
	case c.hasNumbers() != (kind == event.KindInt):
		w.doubt(rows, func(row int32) bool { return c.present[row] })
		return event.Absent(kind, w.n)
	case kind == event.KindInt:
		return event.Vector{Ints: c.ints, Valid: c.present}
	case kind == event.KindIP:
		return w.ips(c, rows)
	case kind == event.KindID:
		return w.ids(c, rows)
	case declared.Values != nil:
		wrong := make([]bool, 1+len(c.texts))
		for i, text := range c.texts {
			wrong[1+i] = !slices.Contains(declared.Values, text)
		}
		w.doubt(rows, func(row int32) bool { return wrong[c.codes[row]] })
	}
	return event.Vector{Codes: c.codes, Dict: c.texts}
}

func (w *window) ips(c *fileColumn, rows []int32) event.Vector {
	c.parsed = append(c.parsed, make([]parsed, len(c.texts)-len(c.parsed))...)
	w.doubt(rows, func(row int32) bool {
		if c.codes[row] == 0 {
			return false
		}
		p := &c.parsed[c.codes[row]-1]
		if !p.done {
			raw, err := event.ParseIP(c.texts[c.codes[row]-1])
			*p = parsed{raw, true, err == nil}
		}
		return !p.ok
	})
	v := event.Vector{Codes: c.codes, Dict: make([]string, len(c.parsed))}
	for i, p := range c.parsed {
		v.Dict[i] = p.raw
	}
	return v
}

// ids are nearly all different: each is looked at where it stands.
func (w *window) ids(c *fileColumn, rows []int32) event.Vector {
	v := event.Vector{Ints: make([]int64, w.n), Codes: make([]uint32, w.n)}
	last := "" // which no scope is
	w.doubt(rows, func(row int32) bool {
		if c.codes[row] == 0 {
			return false
		}
		scope, n, err := event.ParseID(c.texts[c.codes[row]-1])
		if err != nil {
			return true
		}
		if scope != last { // or else the one before once more
			last = scope
			v.Dict = append(v.Dict, strings.Clone(scope))
		}
		v.Ints[row], v.Codes[row] = n, uint32(len(v.Dict))
		return false
	})
	return v
}
