package query

import (
	"net/netip"

	"github.com/srodi/ebpf-server/internal/event"
)

// Matcher finds the events of one type that filters let through.
// It is not changed by use, so any number of goroutines may share it.
type Matcher struct {
	nothing bool // no event of the type can match
	columns []*ColumnMatcher
}

// ColumnMatcher tells which values of one column a filter lets through.
type ColumnMatcher struct {
	column   int
	kind     event.Kind
	numbers  map[int64]struct{}  // KindInt
	texts    map[string]struct{} // KindString
	prefixes []netip.Prefix      // KindIP
	printed  []string            // of them, if all are single addresses; of ids all
	ids      map[id]struct{}     // KindID
}

type id struct {
	scope  string
	number int64
}

// Compile prepares the filters for a type. A type that lacks a column, or to
// which none of its wanted values can belong, matches nothing.
func (f Filters) Compile(t *event.Type) Matcher {
	var m Matcher
	for _, filter := range f {
		i, ok := t.Column(filter.Column)
		if !ok {
			return Matcher{nothing: true}
		}
		c := &ColumnMatcher{
			column: i, kind: t.Columns[i].Kind,
			numbers: map[int64]struct{}{}, texts: map[string]struct{}{}, ids: map[id]struct{}{},
		}
		possible := false
		for _, text := range filter.Values {
			w, err := parseWanted(t.Columns[i], text)
			if err != nil {
				continue // possible for another of the types asked for: ParseFilters checked that
			}
			possible = true
			c.numbers[w.number] = struct{}{}
			c.texts[w.text] = struct{}{}
			c.prefixes = append(c.prefixes, w.prefix)
			switch {
			case w.prefix.IsSingleIP():
				c.printed = append(c.printed, w.prefix.Addr().String())
			case c.kind == event.KindID:
				c.printed = append(c.printed, event.FormatID(w.text, w.number))
			}
			c.ids[id{w.text, w.number}] = struct{}{}
		}
		if !possible {
			return Matcher{nothing: true}
		}
		if len(c.printed) < len(c.prefixes) {
			c.printed = nil
		}
		m.columns = append(m.columns, c)
	}
	return m
}

// Nothing reports that no event of the type can match.
func (m Matcher) Nothing() bool { return m.nothing }

// Filters returns what is asked of each column. All of it must be true.
func (m Matcher) Filters() []*ColumnMatcher { return m.columns }

// Columns returns the columns that Select reads, beside time.
func (m Matcher) Columns() []int {
	columns := make([]int, len(m.columns))
	for i, c := range m.columns {
		columns[i] = c.column
	}
	return columns
}

// Select appends the rows that are in the window and match to sel, in order.
func (m Matcher) Select(b *event.Batch, w Window, sel []int32) []int32 {
	if m.nothing {
		return sel
	}
	since, until := w.Bounds()
	begin := len(sel)
	for row, t := range b.Columns[event.Time].Ints {
		if t >= since && t < until {
			sel = append(sel, int32(row))
		}
	}
	return m.keep(b, sel, begin)
}

// keep cuts a selection from begin on down to the rows that match.
func (m Matcher) keep(b *event.Batch, sel []int32, begin int) []int32 {
	kept := sel[begin:]
	for _, c := range m.columns {
		kept = c.keep(&b.Columns[c.column], kept)
	}
	return sel[:begin+len(kept)]
}

// keep cuts a selection down to the rows that match, in its own memory.
func (c *ColumnMatcher) keep(v *event.Vector, sel []int32) []int32 {
	kept := sel[:0]
	if c.kind == event.KindInt {
		for _, row := range sel {
			if v.Valid[row] && c.Number(v.Ints[row]) {
				kept = append(kept, row)
			}
		}
		return kept
	}
	// Each different value is looked at once; code 0 is an absent one.
	matches := make([]bool, 1+len(v.Dict))
	for i, s := range v.Dict {
		matches[i+1] = c.Text(s)
	}
	for _, row := range sel {
		code := v.Codes[row]
		if !matches[code] {
			continue
		}
		if c.kind == event.KindID {
			if !c.ID(v.Dict[code-1], v.Ints[row]) {
				continue
			}
		}
		kept = append(kept, row)
	}
	return kept
}

// Column returns the position of the column.
func (c *ColumnMatcher) Column() int { return c.column }

// Number looks at a value of a KindInt column.
func (c *ColumnMatcher) Number(n int64) bool {
	_, ok := c.numbers[n]
	return ok
}

// Text looks at a value of a batch's dictionary. Of an id that is the scope;
// see ID.
func (c *ColumnMatcher) Text(s string) bool {
	if c.kind != event.KindIP {
		_, ok := c.texts[s]
		return ok
	}
	ip, ok := netip.AddrFromSlice([]byte(s))
	for _, p := range c.prefixes {
		if ok && p.Contains(ip) {
			return true
		}
	}
	return false
}

// Printed returns the wanted addresses of a KindIP column, or the wanted ids of
// a KindID column, as they are printed; none if networks are wanted too.
func (c *ColumnMatcher) Printed() []string { return c.printed }

// ID looks at a value of a KindID column.
func (c *ColumnMatcher) ID(scope string, n int64) bool {
	_, ok := c.ids[id{scope, n}]
	return ok
}
