package query

import (
	"fmt"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// maxValues bounds the memory of a summary: so many different values of
	// a column, or groups in a list, take some 200 MB.
	maxValues = 1 << 20
	// maxBuckets bounds the length of a series in an answer.
	maxBuckets = 10_000
	// maxGroupBy is the length of a groupKey.
	maxGroupBy = 3
)

// Aggregator computes a summary from batches. It is not safe for concurrent
// use; let each goroutine have its own and merge them.
type Aggregator struct {
	query     Summary
	columns   []*valueColumn // every column whose values are told apart
	breakdown *valueColumn   // the one of them that cells count by
	sums      []int          // columns that are added up
	total     *groupList     // of one group, without a key
	lists     []*groupList   // one for GroupBy, or one for each Top column
	series    []cell
	first     int64 // number of the series' first bucket, counted from the Unix epoch
}

// groupList tells events apart by the values of its columns.
type groupList struct {
	columns []*valueColumn
	groups  map[groupKey]uint32 // position in keys and cells
	keys    []groupKey
	cells   []cell
}

// groupKey holds the codes of a group's values; what is not in use is 0.
type groupKey [maxGroupBy]uint32

// cell adds up the figures of a set of events.
type cell struct {
	count  int64
	counts []int64 // by code of the breakdown; grows as values turn up
	sums   []int64 // as in Aggregator.sums
}

// NewAggregator checks a summary and returns an aggregator that has seen no
// events. The window must have both ends. Errors are a *ParamError.
func NewAggregator(q Summary) (*Aggregator, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	a := &Aggregator{query: q}
	a.breakdown = a.column(q.Type.Breakdown)
	for i, c := range q.Type.Columns {
		if c.Sum {
			a.sums = append(a.sums, i)
		}
		if c.Distinct {
			a.column(c.Name)
		}
	}
	a.total = newGroupList()
	if len(q.GroupBy) > 0 {
		a.lists = []*groupList{newGroupList(a.named(q.GroupBy)...)}
	} else {
		for _, name := range q.Type.Top {
			a.lists = append(a.lists, newGroupList(a.column(name)))
		}
	}
	if q.Interval > 0 {
		var n uint64
		a.first, n = q.buckets()
		a.series = make([]cell, n)
	}
	return a, nil
}

func newGroupList(columns ...*valueColumn) *groupList {
	return &groupList{columns: columns, groups: make(map[groupKey]uint32)}
}

// column returns the column of that name, of which there is one however many
// lists use it.
func (a *Aggregator) column(name string) *valueColumn {
	for _, c := range a.columns {
		if c.Name == name {
			return c
		}
	}
	at, _ := a.query.Type.Column(name) // Validate and NewType saw to it that there is one
	c := newValueColumn(at, a.query.Type.Columns[at])
	a.columns = append(a.columns, c)
	return c
}

func (a *Aggregator) named(names []string) []*valueColumn {
	columns := make([]*valueColumn, len(names))
	for i, name := range names {
		columns[i] = a.column(name)
	}
	return columns
}

// Columns returns the columns of batches that Add reads, beside time.
func (a *Aggregator) Columns() []int {
	var columns []int
	for _, c := range a.columns {
		columns = append(columns, c.at)
	}
	return append(columns, a.sums...)
}

// Add takes the selected rows of a batch of the summary's type, all of them
// within its window. It fails, as a *ParamError, when there are too many
// different values to be held in memory.
func (a *Aggregator) Add(b *event.Batch, sel []int32) error {
	for _, c := range a.columns {
		c.encode(b, sel)
	}
	at := make([]uint32, len(sel))
	a.total.place(at)
	a.tally(a.total.cells, at, b, sel)
	for _, l := range a.lists {
		l.place(at)
		a.tally(l.cells, at, b, sel)
	}
	if a.series != nil {
		for i, row := range sel {
			at[i] = uint32(bucketOf(b.Columns[event.Time].Ints[row], int64(a.query.Interval)) - a.first)
		}
		a.tally(a.series, at, b, sel)
	}
	return a.checkSize()
}

func (a *Aggregator) checkSize() error {
	for _, c := range a.columns {
		if len(c.values) > maxValues {
			return &ParamError{Name: "since", Reason: fmt.Sprintf("reaches over more than %d different values of %s; ask for less time or add a filter", maxValues, c.Name)}
		}
	}
	for _, l := range a.lists {
		if len(l.cells) > maxValues {
			return &ParamError{Name: "group_by", Reason: fmt.Sprintf("makes more than %d groups; ask for less time or add a filter", maxValues)}
		}
	}
	return nil
}

// place finds the group of each row of the batch that the columns have encoded.
// Neighbours are often in the same one, which is then not looked up again.
func (l *groupList) place(at []uint32) {
	var last groupKey
	for i := range at {
		var key groupKey
		for k, c := range l.columns {
			key[k] = c.codes[i]
		}
		if i > 0 && key == last {
			at[i] = at[i-1]
			continue
		}
		at[i], last = l.group(key), key
	}
}

func (l *groupList) group(key groupKey) uint32 {
	g, known := l.groups[key]
	if !known {
		g = uint32(len(l.keys))
		l.groups[key] = g
		l.keys = append(l.keys, key)
		l.cells = append(l.cells, cell{})
	}
	return g
}

// tally adds the selected rows to the cells that they belong to.
func (a *Aggregator) tally(cells []cell, at []uint32, b *event.Batch, sel []int32) {
	for i, g := range at {
		c := &cells[g]
		c.count++
		if code := a.breakdown.codes[i]; code != 0 {
			c.countValue(code, 1)
		}
	}
	for s, column := range a.sums {
		v := &b.Columns[column]
		for i, row := range sel {
			if v.Valid[row] {
				cells[at[i]].add(s, len(a.sums), v.Ints[row])
			}
		}
	}
}

func (c *cell) countValue(code uint32, n int64) {
	for len(c.counts) <= int(code) {
		c.counts = append(c.counts, 0)
	}
	c.counts[code] += n
}

func (c *cell) add(sum, sums int, n int64) {
	if c.sums == nil {
		c.sums = make([]int64, sums)
	}
	c.sums[sum] += n
}

// Merge adds what another aggregator of the same summary has seen.
func (a *Aggregator) Merge(other *Aggregator) error {
	for i, c := range a.columns {
		c.translate(other.columns[i])
	}
	a.total.merge(other.total, a)
	for i, l := range a.lists {
		l.merge(other.lists[i], a)
	}
	for i := range a.series {
		a.series[i].merge(&other.series[i], a)
	}
	return a.checkSize()
}

// merge expects that the columns have just translated those of the other.
func (l *groupList) merge(other *groupList, a *Aggregator) {
	for g, key := range other.keys {
		for k, c := range l.columns {
			key[k] = c.codes[key[k]]
		}
		l.cells[l.group(key)].merge(&other.cells[g], a)
	}
}

func (c *cell) merge(other *cell, a *Aggregator) {
	c.count += other.count
	for code, n := range other.counts {
		if n != 0 {
			c.countValue(a.breakdown.codes[code], n)
		}
	}
	for s, n := range other.sums {
		c.add(s, len(a.sums), n)
	}
}
