package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// A rollup is the figures of the events of an hour or a day: of all of them,
// and of those with each value of each of some columns. It is kept in
// sections, so that a question reads only what it asks for. Rollups are exact:
// a summary made from them is the same as one made from the events.

// RollupInterval is the shortest time that a rollup can cover. Intervals of
// summaries that are a multiple of it can be answered from rollups.
const RollupInterval = time.Hour

// rollupTotal is the name of the section with the figures of all events.
const rollupTotal = ""

// RollupColumns names the columns whose values rollups tell apart: those that
// summaries show when nobody asks for others, and those with few values.
func RollupColumns(t *event.Type) []string {
	var names []string
	for _, c := range t.Columns {
		if c.Distinct || c.Values != nil || c.Name == t.Breakdown || slices.Contains(t.Top, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// RollupSections names the sections of the rollups of a type.
func RollupSections(t *event.Type) []string {
	return append([]string{rollupTotal}, RollupColumns(t)...)
}

// NewRollup returns an aggregator of what goes into a rollup of a type.
func NewRollup(t *event.Type) *Aggregator {
	return newAggregator(Summary{Type: t, Lists: RollupColumns(t)})
}

// FromRollups tells whether rollups hold all that is asked for: at most one
// filter, and with one nothing else but that column.
func (q Summary) FromRollups() bool {
	held := RollupColumns(q.Type)
	if len(q.Filters) > 1 || len(q.GroupBy) > 1 || q.Interval%RollupInterval != 0 {
		return false
	}
	if len(q.Filters) == 1 {
		if !slices.Contains(held, q.Filters[0].Column) {
			return false
		}
		held = []string{q.Filters[0].Column}
	}
	for _, name := range slices.Concat(q.GroupBy, q.Lists, q.Distinct) {
		if !slices.Contains(held, name) {
			return false
		}
	}
	return true
}

// section is a part of a rollup, read back.
type section struct {
	values    []value  // of its column; the zero value first, which is the absent one
	breakdown []uint32 // codes in the aggregator, by those here
	cells     cells
}

// AppendSection appends a section of an aggregator made by NewRollup:
//
//	version      1 byte
//	breakdown    number of values, then each: length, bytes
//	sums         number of columns, then each name: length, bytes
//	values       number, then each: length, bytes of a text; or the difference
//	             to the number before. Sorted. None in the section of the total.
//	count        of the absent value, then of each value
//	counts       for the absent breakdown, then for each: as count
//	sums         for each column: as count, signed
//
// All numbers are varints.
func (a *Aggregator) AppendSection(dst []byte, name string) []byte {
	l := a.total
	for _, other := range a.lists {
		if other.columns[0].Name == name {
			l = other
		}
	}
	dst = append(dst, sectionVersion)
	dst = binary.AppendUvarint(dst, uint64(len(a.breakdown.values)-1))
	for _, v := range a.breakdown.values[1:] {
		dst = appendText(dst, v.text)
	}
	dst = binary.AppendUvarint(dst, uint64(len(a.sums)))
	for _, at := range a.sums {
		dst = appendText(dst, a.query.Type.Columns[at].Name)
	}
	order := l.sorted()
	dst = binary.AppendUvarint(dst, uint64(len(order)-1))
	if len(l.columns) == 1 {
		dst = l.columns[0].appendValues(dst, order[1:])
	}
	return l.cells.append(dst, order, len(a.breakdown.values))
}

const sectionVersion = 1

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// sorted returns the groups in the order of their values, the absent one first.
func (l *groupList) sorted() []int {
	if len(l.columns) == 0 {
		return []int{0}
	}
	l.cells.grow(1)
	order := make([]int, l.cells.len())
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order[1:], func(x, y int) int { return l.columns[0].compare(uint32(x), uint32(y)) })
	return order
}

func (c *valueColumn) appendValues(dst []byte, order []int) []byte {
	var last int64
	for _, code := range order {
		v := c.values[code]
		if c.Kind == event.KindInt {
			dst = binary.AppendVarint(dst, v.number-last)
			last = v.number
		} else {
			dst = appendText(dst, v.text)
		}
	}
	return dst
}

func (c *cells) append(dst []byte, order []int, breakdown int) []byte {
	c.widen(breakdown)
	for _, i := range order {
		dst = binary.AppendUvarint(dst, uint64(c.count[i]))
	}
	for code := range breakdown {
		for _, i := range order {
			dst = binary.AppendUvarint(dst, uint64(c.counts[i*c.width+code]))
		}
	}
	for s := range c.sumsOf {
		for _, i := range order {
			dst = binary.AppendVarint(dst, c.sums[i*c.sumsOf+s])
		}
	}
	return dst
}

// AddRollup adds a rollup that begins at a time. get returns its sections. The
// question must be one that rollups can answer, see FromRollups.
func (a *Aggregator) AddRollup(begin time.Time, get func(section string) ([]byte, error)) error {
	read := func(name string) (*section, error) {
		data, err := get(name)
		if err != nil {
			return nil, err
		}
		s, err := a.readSection(name, data)
		if err != nil {
			return nil, fmt.Errorf("rollup of %s, section %q: %w", begin.Format(time.RFC3339), name, err)
		}
		return s, nil
	}
	name, keep := rollupTotal, func(int, value) bool { return true }
	if len(a.query.Filters) == 1 {
		name = a.query.Filters[0].Column
		m := a.query.Filters.Compile(a.query.Type)
		if m.Nothing() {
			return nil
		}
		keep = func(g int, v value) bool { return g > 0 && m.columns[0].matchesValue(v) } // 0 is the absent value
	}
	total, err := read(name)
	if err != nil {
		return err
	}
	a.addTotal(begin, total, keep)
	for _, l := range a.lists {
		s, err := read(l.columns[0].Name)
		if err != nil {
			return err
		}
		l.addSection(s, keep, len(a.breakdown.values))
	}
	for _, distinct := range a.query.Distinct {
		s, err := read(distinct)
		if err != nil {
			return err
		}
		c := a.column(distinct)
		for g, v := range s.values {
			if g > 0 && keep(g, v) {
				c.code(v)
			}
		}
	}
	return a.checkSize()
}

func (a *Aggregator) addTotal(begin time.Time, s *section, keep func(int, value) bool) {
	lists, at := []*groupList{a.total}, []int{0}
	if a.series != nil {
		lists, at = append(lists, a.series), append(at, int(bucketOf(begin.UnixNano(), int64(a.query.Interval))-a.first))
	}
	for i, l := range lists {
		l.cells.widen(len(a.breakdown.values))
		for g, v := range s.values {
			if keep(g, v) {
				l.cells.merge(at[i], &s.cells, g, s.breakdown)
			}
		}
	}
}

func (l *groupList) addSection(s *section, keep func(int, value) bool, breakdown int) {
	c := l.columns[0]
	l.cells.widen(breakdown)
	for g, v := range s.values {
		if !keep(g, v) {
			continue
		}
		var code uint32
		if g > 0 {
			code = c.code(v)
		}
		l.cells.grow(int(code) + 1)
		l.cells.merge(int(code), &s.cells, g, s.breakdown)
	}
}

// matchesValue is for values that are not absent.
func (c *columnMatcher) matchesValue(v value) bool {
	if c.kind == event.KindInt {
		_, ok := c.numbers[v.number]
		return ok
	}
	return c.matches(v.text)
}

var errSection = errors.New("is damaged")

// readSection reads what AppendSection wrote. Sums are those that the columns
// have today: a column that was not added up then counts as 0.
func (a *Aggregator) readSection(name string, data []byte) (*section, error) {
	r := reader{data: data, all: string(data)}
	if version := r.byte(); version != sectionVersion {
		return nil, fmt.Errorf("has version %d, this program reads %d", version, sectionVersion)
	}
	s := &section{breakdown: make([]uint32, 1, 8)}
	for range r.count(1) {
		s.breakdown = append(s.breakdown, a.breakdown.code(value{text: r.text()}))
	}
	var sums []int
	for range r.count(1) {
		name := r.text()
		sums = append(sums, slices.IndexFunc(a.sums, func(at int) bool { return a.query.Type.Columns[at].Name == name }))
	}
	s.values = make([]value, 1, 8)
	n := r.count(1)
	if name != rollupTotal {
		s.values = slices.Grow(s.values, n)
		at, _ := a.query.Type.Column(name)
		r.readValues(s, a.query.Type.Columns[at].Kind, n)
	}
	// Every figure takes a byte or more: a number of values that is made up must
	// not make room for all that it promises.
	if r.bad || len(s.values)*(1+len(s.breakdown)+len(sums)) > len(r.data) {
		return nil, errSection
	}
	s.cells = newCells(len(a.sums))
	s.cells.widen(len(s.breakdown))
	s.cells.grow(len(s.values))
	r.readCells(&s.cells, sums)
	if r.bad || len(r.data) != 0 {
		return nil, errSection
	}
	return s, nil
}

func (r *reader) readValues(s *section, kind event.Kind, n int) {
	var number int64
	for range n {
		if kind == event.KindInt {
			number += r.varint()
			s.values = append(s.values, value{number: number})
		} else {
			s.values = append(s.values, value{text: r.text()})
		}
	}
}

func (r *reader) readCells(c *cells, sums []int) {
	for i := range c.count {
		c.count[i] = int64(r.uvarint())
	}
	for code := range c.width {
		for i := range c.count {
			c.counts[i*c.width+code] = int64(r.uvarint())
		}
	}
	for _, to := range sums {
		for i := range c.count {
			if n := r.varint(); to >= 0 {
				c.sums[i*c.sumsOf+to] = n
			}
		}
	}
}

// reader takes numbers and texts from bytes that may be damaged; it never
// reads beyond their end.
type reader struct {
	data []byte // what is left
	all  string // the same from the beginning: texts are parts of it
	bad  bool
}

func (r *reader) byte() byte {
	if len(r.data) == 0 {
		r.bad = true
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[size:]
	return n
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.data)
	if size <= 0 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[size:]
	return n
}

// count reads how many things follow, each of which takes at least so many bytes.
func (r *reader) count(bytesEach int) int {
	n := r.uvarint()
	if n > uint64(len(r.data)/bytesEach) {
		r.bad, r.data = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count(1)
	if r.bad {
		return ""
	}
	at := len(r.all) - len(r.data)
	r.data = r.data[n:]
	return r.all[at : at+n]
}
