package block

import (
	"bytes"
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"unsafe"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// Filter tells which values of a column are wanted. Absent ones never are, unless
// it is the other way round.
type Filter interface {
	Column() int                   // its position in Type.Shown
	Not() bool                     // wanted is what the others refuse, and absent values
	Number(n int64) bool           // of a KindInt
	Text(s string) bool            // of a KindString, or the bytes of a KindIP; s is good for the call
	Printed() []string             // of a KindIP or KindID: the only ones, as they are printed; none: see Text and ID
	ID(scope string, n int64) bool // of a KindID
	// Derive cuts rows of a batch down to those that pass; of a derived field.
	Derive(b *event.Batch, rows []int32) []int32
}

// Between returns the positions of the events between two times, from included
// and until not: first is that of the first one, end is behind the last. It
// decodes the pages of time in which the two are, and no others.
func (b *Block) Between(from, until int64) (first, end int, err error) {
	var pages []*page
	var starts []int // the position at which each page begins
	c := &b.columns[event.Time]
	err = c.eachPage(b.rows, func(p *page, first int) error {
		pages, starts = append(pages, p), append(starts, first)
		return nil
	})
	s := b.scratch()
	defer scratches.Put(s)
	find := func(t int64) (at int) {
		k := sort.Search(len(pages), func(k int) bool {
			return err != nil || c.decodeTimes(pages[k], 1, s, &err)[0] >= t
		})
		if k == 0 || err != nil {
			return 0
		}
		p := pages[k-1] // which begins before t
		at, _ = slices.BinarySearch(c.decodeTimes(p, p.rows, s, &err), t)
		return starts[k-1] + at
	}
	if err == nil {
		first, end = find(from), find(until)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read column time: %w", err)
	}
	return first, max(first, end), nil
}

// decodeTimes returns the first n times of a page: zeros if there is an error.
func (c *column) decodeTimes(p *page, n int, s *scratch, err *error) []int64 {
	s.ints = sized(s.ints, n)
	clear(s.ints)
	values, failed := c.values(p, s)
	if failed == nil && p.encoding != format.DeltaBinaryPacked {
		failed = errEncoding(p.encoding)
	}
	if failed == nil {
		failed = decodeDelta(s.ints, p.rows, values)
	}
	*err = cmp.Or(*err, failed)
	return s.ints
}

// Find returns the positions of the events from first on and before end that
// pass all filters, in order. It reads all of one column, the one that most
// likely leaves few events, and of the others only what these have there. Derived
// fields come last. The memory of into, if it is enough, is used for the positions.
func (b *Block) Find(into []int32, first, end int, filters []Filter) (rows []int32, err error) {
	if i := slices.IndexFunc(filters, func(f Filter) bool { return f.Column() >= len(b.columns) }); i >= 0 {
		rest := slices.Concat(filters[:i], filters[i+1:])
		if rows, err = b.Find(into, first, end, rest); err != nil || len(rows) == 0 {
			return nil, err
		}
		return b.derive(filters[i], rows)
	}
	if first < 0 || end > b.rows {
		return nil, fmt.Errorf("find in block: %d to %d are not within %d events", first, end, b.rows)
	}
	if len(filters) == 0 {
		rows = sized(into, end-first)
		for i := range rows {
			rows[i] = int32(first + i)
		}
		return rows, nil
	}
	s := b.scratch()
	defer scratches.Put(s)
	filters = slices.Clone(filters)
	entries := func(f Filter) int {
		if f.Not() { // and leaves many
			return -1
		}
		return b.columns[f.Column()].dict.entries
	}
	for _, f := range filters {
		if err := b.columns[f.Column()].load(b.rows); err != nil {
			return nil, fmt.Errorf("read column %s: %w", b.t.Columns[f.Column()].Name, err)
		}
	}
	slices.SortStableFunc(filters, func(x, y Filter) int { return entries(y) - entries(x) })
	for i, f := range filters {
		c := &b.columns[f.Column()]
		if i == 0 {
			rows, err = c.scan(into[:0], f, b.rows, first, end, s)
		} else if len(rows) > 0 {
			rows, err = c.keep(f, b.rows, rows, s)
		}
		if err != nil {
			return nil, fmt.Errorf("read column %s: %w", b.t.Columns[f.Column()].Name, err)
		}
	}
	return rows, nil
}

// derive looks at a derived field of some rows.
func (b *Block) derive(f Filter, rows []int32) ([]int32, error) {
	sources, err := b.ReadRows(b.t.Sources(f.Column()), rows)
	if err != nil {
		return nil, err
	}
	at := make([]int32, len(rows)) // positions in the batch, which become those in the block
	for i := range at {
		at[i] = int32(i)
	}
	at = f.Derive(sources, at)
	for i, row := range at {
		at[i] = rows[row]
	}
	return at, nil
}

// scan looks at each row from first on and before end.
func (c *column) scan(into []int32, f Filter, all, first, end int, s *scratch) (rows []int32, err error) {
	if rows, err = c.scanNamed(into, f, all, first, end, s); err != nil || !f.Not() {
		return rows, err
	}
	others := make([]int32, 0, end-first-len(rows))
	for row := int32(first); row < int32(end); row++ {
		if len(rows) > 0 && rows[0] == row {
			rows = rows[1:]
			continue
		}
		others = append(others, row)
	}
	return others, nil
}

// scanNamed appends the rows with the values that a filter names, wanted or not.
func (c *column) scanNamed(rows []int32, f Filter, all, first, end int, s *scratch) ([]int32, error) {
	wanted, some, err := c.dict.wanted(c.kind, f)
	if err != nil {
		return nil, err
	}
	ids := idParser{}
	err = c.eachPage(all, func(p *page, begin int) error {
		if begin >= end || begin+p.rows <= first || p.encoding == format.RLEDictionary && !some {
			return nil
		}
		s.rows = s.rows[:0]
		switch some, err := c.mayHave(p, f, s); {
		case err != nil:
			return err
		case p.encoding == format.RLEDictionary:
			if err := c.scanIndexes(p, wanted, s); err != nil {
				return err
			}
		case some:
			v := event.NewVector(c.kind, p.rows)
			if err := c.decode(&v, p, &ids, s); err != nil {
				return err
			}
			v.Dict = ids.scopes
			for i := range p.rows {
				if named(f, c.kind, &v, i) {
					s.rows = append(s.rows, int32(i))
				}
			}
		}
		for _, row := range s.rows {
			if at := begin + int(row); at >= first && at < end {
				rows = append(rows, int32(at))
			}
		}
		return nil
	})
	return rows, err
}

// mayHave tells cheaply whether a page of ids may have one that is wanted: most
// have none, and to look for a text in all of it takes a fraction of the time of
// reading each.
func (c *column) mayHave(p *page, f Filter, s *scratch) (bool, error) {
	printed := f.Printed()
	if c.kind != event.KindID || p.encoding != format.Plain || p.rows == p.nulls || len(printed) == 0 || len(printed) > fewIDs {
		return true, nil
	}
	values, err := c.values(p, s)
	for _, id := range printed {
		_, number, _ := strings.Cut(id, "-") // all have the same scope, which would only hold up
		if bytes.Contains(values, []byte(number)) {
			return true, err
		}
	}
	return false, err
}

// fewIDs are looked for one after the other.
const fewIDs = 8

// scanIndexes sets s.rows to those rows of a page whose values are wanted.
func (c *column) scanIndexes(p *page, wanted []bool, s *scratch) error {
	present := p.rows - p.nulls
	if present == 0 {
		return nil
	}
	values, err := c.values(p, s)
	if err != nil {
		return err
	}
	only := slices.Index(wanted, true)
	if !slices.Contains(wanted[only+1:], true) {
		if s.rows, err = appendPlaces(s.rows, uint32(only), present, values); err != nil {
			return err
		}
	} else {
		s.indexes = sized(s.indexes, present)
		if err := decodeIndexes(s.indexes, values); err != nil {
			return err
		}
		for i, k := range s.indexes {
			switch {
			case int(k) >= len(wanted):
				return errIndex(k, len(wanted))
			case wanted[k]:
				s.rows = append(s.rows, int32(i))
			}
		}
	}
	if p.nulls == 0 {
		return nil
	}
	return rowsOf(s.rows, p)
}

// rowsOf turns places among the values of a page, which ascend, into their rows.
func rowsOf(places []int32, p *page) error {
	h := hybrid{p.levels, 1}
	first, before := 0, 0 // row at which a run begins, and how many values stand before it
	for len(places) > 0 {
		if first >= p.rows {
			return errPresent(before, p.rows-p.nulls)
		}
		length, packed, value, err := h.next(p.rows - first)
		if err != nil {
			return err
		}
		if packed == nil {
			for ; value == 1 && len(places) > 0 && int(places[0]) < before+length; places = places[1:] {
				places[0] += int32(first - before)
			}
			before += length * int(value)
			first += length
			continue
		}
		for at := 0; at < length; at += 64 {
			word := load(packed, uint(at>>3))
			if rest := length - at; rest < 64 {
				word &= 1<<rest - 1
			}
			n := bits.OnesCount64(word)
			for last := before; len(places) > 0 && int(places[0]) < before+n; places = places[1:] {
				for ; last < int(places[0]); last++ {
					word &= word - 1 // without its lowest bit
				}
				places[0] = int32(first + at + bits.TrailingZeros64(word))
			}
			before += n
		}
		first += length
	}
	return nil
}

// wanted tells which entries are, and whether any is.
func (d *dictionary) wanted(kind event.Kind, f Filter) (entries []bool, some bool, err error) {
	entries = make([]bool, d.entries)
	note := func(k int, is bool) {
		entries[k] = is
		some = some || is
	}
	if d.entries > 0 && kind == event.KindInt {
		if err := d.loadNumbers(); err != nil {
			return nil, false, err
		}
		for k, number := range d.numbers {
			note(k, f.Number(number))
		}
		return entries, some, nil
	}
	if kind == event.KindString {
		err = d.eachPlain(func(k int, text []byte) error {
			note(k, f.Text(unsafe.String(unsafe.SliceData(text), len(text)))) // no copy of each: it is not kept
			return nil
		})
		return entries, some, err
	}
	if printed := f.Printed(); kind == event.KindIP && len(printed) > 0 {
		err = d.eachPlain(func(k int, text []byte) error {
			note(k, slices.Contains(printed, string(text)))
			return nil
		})
		return entries, some, err
	}
	err = d.eachText(kind, func(k int, text string) { note(k, f.Text(text)) })
	return entries, some, err
}

// keep looks at some rows.
func (c *column) keep(f Filter, all int, rows []int32, s *scratch) ([]int32, error) {
	v, err := c.readRows(all, rows, s)
	if err != nil {
		return nil, err
	}
	kept := rows[:0]
	for i, row := range rows {
		if named(f, c.kind, &v, i) != f.Not() {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

// named tells whether a row has a value that a filter names.
func named(f Filter, kind event.Kind, v *event.Vector, i int) bool {
	switch {
	case kind == event.KindInt:
		return v.Valid[i] && f.Number(v.Ints[i])
	case v.Codes[i] == 0:
		return false
	case kind == event.KindID:
		return f.ID(v.Dict[v.Codes[i]-1], v.Ints[i])
	}
	return f.Text(v.Dict[v.Codes[i]-1])
}
