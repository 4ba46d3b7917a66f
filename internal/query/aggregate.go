package query

import (
	"fmt"
	"slices"

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
	// maxTimeGroups bounds the groups of an answer that has some for each interval.
	maxTimeGroups = 100_000
)

// Aggregator computes a summary from batches. It is not safe for concurrent
// use; let each goroutine have its own and merge them.
type Aggregator struct {
	query     Summary
	columns   []*valueColumn // every column whose values are told apart
	breakdown *valueColumn   // the one of them that cells count by
	sums      []int          // columns that are added up
	stats     []int          // columns of which it is told how their numbers are spread
	weight    int            // the column that says how many an event stands for; -1: there is none
	total     *groupList     // of one group, without a key
	lists     []*groupList   // one for GroupBy, or one for each of Lists
	series    *groupList     // of one group for each bucket, without keys; or nil
	first     int64          // number of the series' first bucket, counted from the Unix epoch
	before    *Aggregator    // with a comparison: that of the earlier window
	rollups   *rollups       // from when the first comes

	countNames, sumNames []named // of the answer, in their order

	at      []uint32   // scratch: the group of each row
	copied  [][]int64  // scratch: columns that are added up, see AddColumn
	summed  []int32    // scratch: positions in the selection of the rows that have something to add up
	addends []int64    // scratch: of each of these, a number for each of sums
	weights []int64    // scratch: how many each row stands for, if there is such a column
	numbers []measured // scratch: what they have of each of stats
}

// groupList tells events apart by the values of its columns. With one column
// the code of a value is the position of its group.
type groupList struct {
	columns []*valueColumn
	groups  table // with several columns: 1 + position in keys and cells, by groupKey.packed
	keys    []groupKey
	cells   cells

	spread   *spread  // with stats
	distinct []*pairs // the different values in each group, of each of the columns asked for
	origins  *origins // when and by whom the values of a group were first used

	other  *groupList // with a comparison: that of the earlier window
	before []int      // the cell of each group there; -1: it has none
}

// groupKey holds the codes of a group's values; what is not in use is 0.
type groupKey [maxGroupBy]uint32

// packed returns the key as one number, which is not 0. Codes are below twice
// maxValues at any time, which is 21 bits.
func (k groupKey) packed() uint64 {
	return 1<<63 | uint64(k[0]) | uint64(k[1])<<21 | uint64(k[2])<<42
}

// NewAggregator checks a summary and returns an aggregator that has seen no
// events. The window must have both ends. Errors are a *ParamError.
func NewAggregator(q Summary) (*Aggregator, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	return newAggregator(q), nil
}

// newAggregator is for summaries that are valid.
func newAggregator(q Summary) *Aggregator {
	a := &Aggregator{query: q, weight: -1}
	if at, ok := q.Type.Column(q.Type.Weight); ok && !q.Unweighted {
		a.weight = at
	}
	a.breakdown = a.column(q.Type.Breakdown)
	for _, name := range q.Stats {
		at, _ := q.Type.Column(name)
		a.stats = append(a.stats, at)
	}
	a.numbers = make([]measured, len(a.stats))
	for i, c := range q.Type.Columns {
		if c.Sum && (q.Sums == nil || slices.Contains(q.Sums, c.Name)) {
			a.sums = append(a.sums, i)
		}
	}
	for _, name := range q.Distinct {
		a.column(name)
	}
	a.total = a.newList()
	a.total.grow(1)
	if len(q.GroupBy) > 0 {
		a.lists = []*groupList{a.newGroups()}
	}
	for _, name := range q.Lists {
		a.lists = append(a.lists, a.newList(name))
	}
	if q.Interval > 0 && !q.groupsByTime() {
		var n uint64
		a.first, n = q.buckets()
		a.series = a.newList()
		a.series.grow(int(n))
	}
	return a
}

// newGroups returns the list of GroupBy, with all that is told of groups alone.
func (a *Aggregator) newGroups() *groupList {
	l := a.newList(a.query.GroupBy...)
	if a.query.keysOnly {
		l.spread = nil
		return l
	}
	for _, name := range a.query.Distinct {
		l.distinct = append(l.distinct, newPairs(a.column(name)))
	}
	if a.query.FirstSeen {
		l.origins = newOrigins(a.column(commandColumn))
	}
	return l
}

func (a *Aggregator) newList(names ...string) *groupList {
	l := &groupList{cells: newCells(len(a.sums))}
	for _, name := range names {
		l.columns = append(l.columns, a.column(name))
	}
	if len(a.stats) > 0 {
		l.spread = newSpread(len(a.stats))
	}
	return l
}

// grow makes room for so many groups.
func (l *groupList) grow(n int) {
	l.cells.grow(n)
	if l.spread != nil {
		l.spread.grow(n)
	}
	for _, p := range l.distinct {
		p.grow(n)
	}
	if l.origins != nil {
		l.origins.grow(n)
	}
}

// column returns the column of that name, of which there is one however many
// lists use it.
func (a *Aggregator) column(name string) *valueColumn {
	for _, c := range a.columns {
		if c.asked == name {
			return c
		}
	}
	c := newValueColumn(a.query.Type, name)
	c.interval, c.shift = int64(a.query.Interval), a.query.shift
	a.columns = append(a.columns, c)
	return c
}

// all returns every list, with the total and the series.
func (a *Aggregator) all() []*groupList {
	all := append([]*groupList{a.total}, a.lists...)
	if a.series != nil {
		all = append(all, a.series)
	}
	return all
}

// Columns returns the columns of batches that Add reads.
func (a *Aggregator) Columns() []int {
	var columns []int
	for _, c := range a.columns {
		columns = append(columns, c.column)
	}
	if a.series != nil || a.query.FirstSeen {
		columns = append(columns, event.Time)
	}
	columns = append(columns, a.stats...)
	if a.weight >= 0 {
		columns = append(columns, a.weight)
	}
	return append(columns, a.sums...)
}

// Add takes the selected rows of a batch of the summary's type, all of them
// within its window. It fails, as a *ParamError, when there are too many
// different values to be held in memory.
func (a *Aggregator) Add(b *event.Batch, sel []int32) error {
	for _, c := range a.columns {
		c.encode(&b.Columns[c.column], sel)
	}
	var sums [][]int64
	for _, at := range a.sums {
		sums = append(sums, b.Columns[at].Ints)
	}
	for from := 0; from < len(sel); from += pieceRows {
		until := min(from+pieceRows, len(sel))
		for _, c := range a.columns {
			c.codes = c.encoded[from:until]
		}
		a.addPiece(b, sums, sel[from:until])
	}
	return a.checkSize()
}

// pieceRows are added at once: what is noted of each of them takes little memory
// then, which stays in the processor's cache.
const pieceRows = 4096

// addPiece adds the rows whose codes the columns have. Sums are the columns that
// are added up.
func (a *Aggregator) addPiece(b *event.Batch, sums [][]int64, sel []int32) {
	a.gatherAddends(sums, sel)
	if a.weight >= 0 {
		a.gatherWeights(&b.Columns[a.weight], sel)
	}
	for i, column := range a.stats {
		a.numbers[i].take(a.query.Type.Columns[column], &b.Columns[column], sel, a.weights)
	}
	a.at = slices.Grow(a.at[:0], len(sel))[:len(sel)]
	a.addTo(a.total, a.total.place(a.at), b, sel)
	for _, l := range a.lists {
		a.addTo(l, l.place(a.at), b, sel)
	}
	if a.series != nil {
		for i, row := range sel {
			a.at[i] = uint32(bucketOf(b.Columns[event.Time].Ints[row], int64(a.query.Interval)) - a.first)
		}
		a.addTo(a.series, a.at, b, sel)
	}
}

// addTo adds the selected rows to the groups that they belong to.
func (a *Aggregator) addTo(l *groupList, at []uint32, b *event.Batch, sel []int32) {
	if l == a.total {
		a.tallyTotal(len(at))
	} else {
		a.tally(l, at)
	}
	if l.spread != nil {
		for column := range a.numbers {
			l.spread.add(column, &a.numbers[column], at)
		}
	}
	for _, p := range l.distinct {
		p.add(at, nil)
	}
	if l.origins != nil {
		l.origins.add(at, b.Columns[event.Time].Ints, sel, a.weights)
	}
}

func (a *Aggregator) checkSize() error {
	for _, c := range a.columns {
		if len(c.values) > maxValues {
			return &ParamError{Name: "since", Reason: fmt.Sprintf("reaches over more than %d different values of %s; ask for less time or add a filter", maxValues, c.Name)}
		}
	}
	for _, l := range a.all() {
		if l.cells.len() > maxValues {
			return &ParamError{Name: a.query.groupParam(), Reason: fmt.Sprintf("makes more than %d groups; ask for less time or add a filter", maxValues)}
		}
		if l.spread != nil && max(l.spread.tally.used, len(l.spread.moments)) > maxTally {
			return &ParamError{Name: "stats", Reason: "takes too much memory for so many groups; ask for less time, fewer columns or larger networks, or add a filter"}
		}
		for _, p := range l.distinct {
			if p.times.used > maxPairs {
				return &ParamError{Name: "distinct", Reason: fmt.Sprintf("would tell apart more than %d values of %s in the groups; ask for less time, add a filter, or leave out %s", maxPairs, p.column.Name, a.query.groupParam())}
			}
		}
	}
	return nil
}

// place finds the group of each row that the columns have encoded, and makes
// room for it. The answer is at, or the codes of the only column.
func (l *groupList) place(at []uint32) []uint32 {
	switch len(l.columns) {
	case 0:
		clear(at)
		return at
	case 1:
		l.grow(len(l.columns[0].values))
		return l.columns[0].codes
	}
	for i := range at {
		var key groupKey
		for k, c := range l.columns {
			key[k] = c.codes[i]
		}
		at[i] = l.group(key)
	}
	return at
}

// group is for lists of several columns.
func (l *groupList) group(key groupKey) uint32 {
	g := l.groups.at(key.packed())
	if *g == 0 {
		l.keys = append(l.keys, key)
		*g = int64(len(l.keys))
		l.grow(len(l.keys))
	}
	return uint32(*g - 1)
}

// key returns the codes of a group's values.
func (l *groupList) key(g int) groupKey {
	switch len(l.columns) {
	case 0:
		return groupKey{}
	case 1:
		return groupKey{uint32(g)}
	}
	return l.keys[g]
}
