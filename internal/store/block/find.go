package block

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// Filter tells which values of a column are wanted. Absent ones never are.
type Filter interface {
	Column() int
	Number(n int64) bool           // of a KindInt
	Text(s string) bool            // of a KindString, or the bytes of a KindIP
	Printed() []string             // of a KindIP: the only ones, as they are printed; none: see Text
	ID(scope string, n int64) bool // of a KindID
}

// Between returns the positions of the events between two times, from included
// and until not: first is that of the first one, end is behind the last. It
// decodes the pages of time in which the two are, and no others.
func (b *Block) Between(from, until int64) (first, end int, err error) {
	var pages []page
	var starts []int // the position at which each page begins
	c := &b.columns[event.Time]
	err = c.eachPage(b.rows, func(p *page, first int) error {
		pages, starts = append(pages, *p), append(starts, first)
		return nil
	})
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	find := func(t int64) (at int) {
		k := sort.Search(len(pages), func(k int) bool {
			return err != nil || c.decodeTimes(&pages[k], 1, s, &err)[0] >= t
		})
		if k == 0 || err != nil {
			return 0
		}
		p := &pages[k-1] // which begins before t
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
	values, failed := p.values(c.codec, &s.page)
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
// likely leaves few events, and of the others only what these have there.
func (b *Block) Find(first, end int, filters []Filter) (rows []int32, err error) {
	if first < 0 || end > b.rows {
		return nil, fmt.Errorf("find in block: %d to %d are not within %d events", first, end, b.rows)
	}
	if len(filters) == 0 {
		rows = make([]int32, end-first)
		for i := range rows {
			rows[i] = int32(first + i)
		}
		return rows, nil
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	filters = slices.Clone(filters)
	entries := func(f Filter) int { return b.columns[f.Column()].dict.entries }
	for _, f := range filters {
		if err := b.columns[f.Column()].loadDictionary(); err != nil {
			return nil, fmt.Errorf("read column %s: %w", b.t.Columns[f.Column()].Name, err)
		}
	}
	slices.SortStableFunc(filters, func(x, y Filter) int { return entries(y) - entries(x) })
	for i, f := range filters {
		c := &b.columns[f.Column()]
		if i == 0 {
			rows, err = c.scan(f, b.rows, first, end, s)
		} else if len(rows) > 0 {
			rows, err = c.keep(f, b.rows, rows, s)
		}
		if err != nil {
			return nil, fmt.Errorf("read column %s: %w", b.t.Columns[f.Column()].Name, err)
		}
	}
	return rows, nil
}

// loadDictionary reads the dictionary, if the column has one.
func (c *column) loadDictionary() error {
	if c.pages == nil || c.dict.entries > 0 {
		return nil
	}
	p, _, err := nextPage(c.pages)
	if err != nil || p.kind != format.DictionaryPage {
		return err
	}
	return c.dict.load(&p, c.codec)
}

// scan looks at each row from first on and before end.
func (c *column) scan(f Filter, all, first, end int, s *scratch) (rows []int32, err error) {
	wanted, some, err := c.dict.wanted(c.kind, f)
	if err != nil {
		return nil, err
	}
	ids := idParser{}
	err = c.eachPage(all, func(p *page, begin int) error {
		if begin >= end || begin+p.rows <= first || p.encoding == format.RLEDictionary && !some {
			return nil
		}
		from := len(rows)
		if p.encoding == format.RLEDictionary {
			codes, err := c.codes(p, s)
			if err != nil {
				return err
			}
			for i, code := range codes {
				if wanted[code] {
					rows = append(rows, int32(begin+i))
				}
			}
		} else {
			v := c.vector(p.rows)
			if err := c.decode(&v, p, &ids, s); err != nil {
				return err
			}
			v.Dict = ids.scopes
			for i := range p.rows {
				if passes(f, c.kind, &v, i) {
					rows = append(rows, int32(begin+i))
				}
			}
		}
		for from < len(rows) && int(rows[from]) < first { // only in the first page
			rows = slices.Delete(rows, from, from+1)
		}
		for len(rows) > from && int(rows[len(rows)-1]) >= end { // only in the last one
			rows = rows[:len(rows)-1]
		}
		return nil
	})
	return rows, err
}

// wanted tells which codes are, 0 among them, and whether any is.
func (d *dictionary) wanted(kind event.Kind, f Filter) (codes []bool, some bool, err error) {
	codes = make([]bool, 1+d.entries)
	note := func(k int, is bool) {
		codes[1+k] = is
		some = some || is
	}
	if d.entries > 0 && kind == event.KindInt {
		if err := d.loadNumbers(); err != nil {
			return nil, false, err
		}
		for k, n := range d.numbers {
			note(k, f.Number(n))
		}
		return codes, some, nil
	}
	if printed := f.Printed(); kind == event.KindIP && len(printed) > 0 {
		err = d.eachPlain(func(k int, text []byte) error {
			note(k, slices.Contains(printed, string(text)))
			return nil
		})
		return codes, some, err
	}
	err = d.eachText(kind, func(k int, text string) { note(k, f.Text(text)) })
	return codes, some, err
}

// codes decodes a page of a column with a dictionary: 0 for an absent value.
func (c *column) codes(p *page, s *scratch) ([]uint32, error) {
	s.indexes = sized(s.indexes, p.rows)
	clear(s.indexes)
	v := event.Vector{Codes: s.indexes}
	present := p.rows - p.nulls
	if present == 0 {
		return s.indexes, nil
	}
	if p.nulls > 0 {
		s.valid = sized(s.valid, p.rows)
		if n, err := decodeLevels(s.valid, p.levels); err != nil {
			return nil, err
		} else if n != present {
			return nil, errPresent(n, present)
		}
	}
	values, err := p.values(c.codec, &s.page)
	if err != nil {
		return nil, err
	}
	if err := c.decodeCodes(v.Codes[:present], p.encoding, values); err != nil {
		return nil, err
	}
	if p.nulls > 0 {
		spreadVector(&v, s.valid, present)
	}
	return s.indexes, nil
}

// keep looks at some rows.
func (c *column) keep(f Filter, all int, rows []int32, s *scratch) ([]int32, error) {
	v, err := c.readRows(all, rows, s)
	if err != nil {
		return nil, err
	}
	kept := rows[:0]
	for i, row := range rows {
		if passes(f, c.kind, &v, i) {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

func passes(f Filter, kind event.Kind, v *event.Vector, i int) bool {
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
