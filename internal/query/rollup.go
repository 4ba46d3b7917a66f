package query

import (
	"encoding/binary"
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

// Reset forgets what an aggregator made by NewRollup has counted and keeps its
// memory: an hour of many values takes some MB, in thousands of steps.
func (a *Aggregator) Reset() {
	for _, c := range a.columns {
		c.reset()
	}
	for _, l := range a.all() {
		l.cells.reset()
	}
	a.total.grow(1)
}

// AddColumn is the first step of Add, for an aggregator made by NewRollup and who
// has one column of the events at a time. All columns must come, whichever
// of them it needs, then AddRows.
func (a *Aggregator) AddColumn(column int, v *event.Vector, rows []int32) {
	for _, c := range a.columns {
		if c.column == column {
			c.encode(v, rows)
		}
	}
	if i := slices.Index(a.sums, column); i >= 0 {
		if a.copied == nil {
			a.copied = make([][]int64, len(a.sums))
		}
		a.copied[i] = append(a.copied[i][:0], v.Ints...)
	}
	if column == a.weight {
		a.gatherWeights(v, rows)
	}
}

// AddRows counts the events whose columns have come. It fails as Add does.
func (a *Aggregator) AddRows(rows []int32) error {
	a.gatherAddends(a.copied, rows)
	a.at = slices.Grow(a.at[:0], len(rows))[:len(rows)]
	for _, l := range a.all() {
		a.tally(l, l.place(a.at))
	}
	return a.checkSize()
}

// Sections names the sections of rollups that hold the answer, if rollups can
// answer at all, see FromRollups.
func (q Summary) Sections() []string {
	total := rollupTotal
	if len(q.Filters) > 0 {
		total = q.Filters[0].Column
	}
	names := []string{total}
	if column, ok := q.rollupKey(); ok && column != "" {
		names = append(names, column)
	} else if len(q.GroupBy) > 0 { // time alone
		names = append(names, total)
	}
	return slices.Concat(names, q.Lists, q.Distinct)
}

// rollupKey returns the column whose values tell the groups apart, beside time;
// none for time alone. Rollups know no combinations of columns.
func (q Summary) rollupKey() (column string, ok bool) {
	for _, text := range q.GroupBy {
		if text == timeColumn {
			continue
		}
		if column != "" {
			return "", false
		}
		k, _ := parseKey(q.Type, text)
		column = q.Type.Columns[k.column].Name
	}
	return column, true
}

// FromRollups tells whether rollups hold all that is asked for: filters of one
// column at most, and with these nothing else but that column.
func (q Summary) FromRollups() bool {
	held := RollupColumns(q.Type)
	column, ok := q.rollupKey()
	perGroup := len(q.GroupBy) > 0 && len(q.Distinct) > 0 && !q.keysOnly
	weighted := q.Unweighted && q.Type.Weight != "" // as rollups are
	if !ok || perGroup || weighted || len(q.Stats) > 0 || q.FirstSeen || q.Interval%RollupInterval != 0 {
		return false
	}
	if len(q.Filters) > 0 && slices.Contains(q.Distinct, q.Type.Breakdown) {
		return false // every value of the breakdown is noted, also where the filters leave none
	}
	for _, f := range q.Filters {
		if !slices.Contains(held, f.Column) {
			return false
		}
		held = []string{f.Column}
	}
	names := slices.Concat(q.Lists, q.Distinct)
	if column != "" {
		names = append(names, column)
	}
	for _, name := range names {
		if !slices.Contains(held, name) {
			return false
		}
	}
	return true
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
	return l.columns[0].sorted(l.cells.len())
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
