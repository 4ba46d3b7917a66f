package query

import (
	"math"
	"net/netip"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
)

// Matcher finds the events of one type that filters let through.
// It is not changed by use, so any number of goroutines may share it.
type Matcher struct {
	t       *event.Type
	nothing bool // no event of the type can match
	columns []*ColumnMatcher
}

// ColumnMatcher tells which values of one column a filter lets through.
type ColumnMatcher struct {
	column int
	kind   event.Kind
	not    bool // the others are let through, and absent ones
	any    bool // every value is one

	least, most int64               // KindInt, if there are no numbers
	numbers     map[int64]struct{}  // KindInt
	texts       map[string]struct{} // KindString
	beginnings  []string            // of a KindString
	networks    []netip.Prefix      // KindIP
	printed     []string            // of them, if all are single addresses; of ids all
	ids         map[id]struct{}     // KindID
}

type id struct {
	scope  string
	number int64
}

// Compile prepares the filters for a type. A type that lacks a column, or to
// which none of its wanted values can belong, matches nothing, or all if they are
// unwanted.
func (f Filters) Compile(t *event.Type) Matcher {
	m := Matcher{t: t}
	for _, filter := range f {
		c, possible := filter.compile(t)
		if !possible {
			if filter.Op == NotEqual || filter.Op == Absent {
				continue
			}
			return Matcher{nothing: true}
		}
		m.columns = append(m.columns, c)
	}
	return m
}

// compile reports false if no value of the type can be one that the filter names.
func (f Filter) compile(t *event.Type) (c *ColumnMatcher, possible bool) {
	i, ok := t.Field(f.Column)
	if !ok {
		return nil, false
	}
	c = &ColumnMatcher{
		column: i, kind: t.Shown()[i].Kind, not: f.Op == NotEqual || f.Op == Absent,
		any: f.Op == Present || f.Op == Absent, least: math.MinInt64, most: math.MaxInt64,
	}
	possible = c.any
	for _, text := range f.Values {
		w, err := parseWanted(t.Shown()[i], f.Op, text)
		if err != nil {
			continue // possible for another of the types asked for: ParseFilters checked that
		}
		possible = true
		if f.Op.isRange() {
			c.limit(f.Op, w.number)
		} else {
			c.add(w)
		}
	}
	if len(c.printed) < len(c.networks) {
		c.printed = nil
	}
	return c, possible && c.least <= c.most
}

// limit narrows the range of numbers.
func (c *ColumnMatcher) limit(op Op, n int64) {
	switch {
	case op == Less && n == math.MinInt64, op == Greater && n == math.MaxInt64:
		c.least, c.most = math.MaxInt64, math.MinInt64 // there is none
	case op == Less:
		c.most = min(c.most, n-1)
	case op == LessOrEqual:
		c.most = min(c.most, n)
	case op == Greater:
		c.least = max(c.least, n+1)
	case op == GreaterOrEqual:
		c.least = max(c.least, n)
	}
}

// add adds a value to those of which an event must have one.
func (c *ColumnMatcher) add(w wanted) {
	switch c.kind {
	case event.KindInt:
		c.numbers = with(c.numbers, w.number)
	case event.KindString:
		if w.begins {
			c.beginnings = append(c.beginnings, w.text)
		} else {
			c.texts = with(c.texts, w.text)
		}
	case event.KindIP:
		c.networks = append(c.networks, w.network)
		if w.network.IsSingleIP() {
			c.printed = append(c.printed, w.network.Addr().String())
		}
	case event.KindID:
		c.ids = with(c.ids, id{w.text, w.number})
		c.printed = append(c.printed, event.FormatID(w.text, w.number))
	}
}

func with[K comparable](set map[K]struct{}, key K) map[K]struct{} {
	if set == nil {
		set = make(map[K]struct{})
	}
	set[key] = struct{}{}
	return set
}

// Nothing reports that no event of the type can match.
func (m Matcher) Nothing() bool { return m.nothing }

// Filters returns what is asked of each column. All of it must be true.
func (m Matcher) Filters() []*ColumnMatcher { return m.columns }

// Columns returns the columns that Select reads, beside time.
func (m Matcher) Columns() []int {
	var columns []int
	for _, c := range m.columns {
		columns = append(columns, m.t.Sources(c.column)...)
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
		if c.column < len(b.Columns) {
			kept = c.keep(&b.Columns[c.column], kept)
		} else {
			kept = c.Derive(b, kept)
		}
	}
	return sel[:begin+len(kept)]
}

// keep cuts a selection down to the rows that match, in its own memory.
func (c *ColumnMatcher) keep(v *event.Vector, sel []int32) []int32 {
	kept := sel[:0]
	if c.kind == event.KindInt {
		for _, row := range sel {
			if (v.Valid[row] && c.Number(v.Ints[row])) != c.not {
				kept = append(kept, row)
			}
		}
		return kept
	}
	// Each different value is looked at once; code 0 is an absent one.
	named := make([]bool, 1+len(v.Dict))
	for i, s := range v.Dict {
		named[i+1] = c.kind == event.KindID || c.Text(s)
	}
	for _, row := range sel {
		code := v.Codes[row]
		is := named[code]
		if is && c.kind == event.KindID {
			is = c.ID(v.Dict[code-1], v.Ints[row])
		}
		if is != c.not {
			kept = append(kept, row)
		}
	}
	return kept
}

// Derive is keep for a derived field, which it makes of each row.
func (c *ColumnMatcher) Derive(b *event.Batch, sel []int32) []int32 {
	kept := sel[:0]
	var text []byte
	for _, row := range sel {
		var is bool
		text, is = event.Row{Batch: b, Index: int(row)}.AppendText(text[:0], c.column)
		if (is && c.Text(string(text))) != c.not {
			kept = append(kept, row)
		}
	}
	return kept
}

// Column returns the position of the column in Type.Shown.
func (c *ColumnMatcher) Column() int { return c.column }

// Not tells that the filter lets through what Number, Text or ID refuse, and
// events without a value.
func (c *ColumnMatcher) Not() bool { return c.not }

// Number looks at a value of a KindInt column.
func (c *ColumnMatcher) Number(n int64) bool {
	if c.numbers == nil {
		return n >= c.least && n <= c.most
	}
	_, ok := c.numbers[n]
	return ok
}

// Text looks at a value of a batch's dictionary, which is that of a KindString
// or KindIP column.
func (c *ColumnMatcher) Text(s string) bool {
	if c.any {
		return true
	}
	if c.kind == event.KindString {
		_, ok := c.texts[s]
		for i := 0; !ok && i < len(c.beginnings); i++ {
			ok = strings.HasPrefix(s, c.beginnings[i])
		}
		return ok
	}
	ip, ok := netip.AddrFromSlice([]byte(s))
	for _, network := range c.networks {
		if ok && network.Contains(ip) {
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
	return ok || c.any
}
