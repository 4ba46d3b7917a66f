package query

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// Validate reports what is wrong with a summary, as a *ParamError.
func (q Summary) Validate() error {
	if err := q.validateGroups(); err != nil {
		return err
	}
	for param, names := range map[string][]string{"distinct": q.Distinct, "lists": q.Lists} {
		for _, name := range names {
			if at, ok := q.Type.Column(name); !ok || at == event.Time {
				return &ParamError{Name: param, Value: name, Reason: "is not a column of " + q.Type.Name + " whose values can be counted"}
			}
		}
	}
	for _, name := range q.Sums {
		if at, ok := q.Type.Column(name); !ok || !q.Type.Columns[at].Sum {
			return &ParamError{Name: "sums", Value: name, Reason: "is not a column of " + q.Type.Name + " that is added up"}
		}
	}
	if q.Top < 0 {
		return &ParamError{Name: "top", Value: strconv.Itoa(q.Top), Reason: "is negative"}
	}
	if err := q.Window.Validate(); err != nil {
		return err
	}
	if q.Interval < 0 {
		return &ParamError{Name: "interval", Value: q.Interval.String(), Reason: "is negative"}
	}
	if q.Interval > 0 && !q.Window.Since.IsZero() && !q.Window.Until.IsZero() {
		if _, n := q.buckets(); n > maxBuckets {
			return &ParamError{Name: "interval", Value: q.Interval.String(), Reason: fmt.Sprintf("makes %d buckets of the window (at most %d)", n, maxBuckets)}
		}
	}
	return nil
}

func (q Summary) validateGroups() error {
	if len(q.GroupBy) > maxGroupBy {
		return &ParamError{Name: "group_by", Reason: fmt.Sprintf("names more than %d columns", maxGroupBy)}
	}
	for i, name := range q.GroupBy {
		at, ok := q.Type.Column(name)
		switch {
		case !ok:
			return &ParamError{Name: "group_by", Value: name, Reason: "is not a column of " + q.Type.Name}
		case at == event.Time:
			return &ParamError{Name: "group_by", Value: name, Reason: "makes no groups; use interval"}
		case name == q.Type.Weight:
			return &ParamError{Name: "group_by", Value: name, Reason: "is what is counted, and makes no groups"}
		case slices.Contains(q.GroupBy[:i], name):
			return &ParamError{Name: "group_by", Value: name, Reason: "is named twice"}
		}
	}
	return nil
}

// buckets returns the number of the first bucket of the series, counted from
// the Unix epoch, and how many there are.
func (q Summary) buckets() (first int64, n uint64) {
	since, until := q.Window.Bounds()
	first = bucketOf(since, int64(q.Interval))
	if until > since {
		n = uint64(bucketOf(until-1, int64(q.Interval))) - uint64(first) + 1
	}
	return first, n
}

// bucketOf rounds down, before the epoch too.
func bucketOf(t, interval int64) int64 {
	n := t / interval
	if t%interval < 0 {
		n--
	}
	return n
}

// Result returns the answer, without its coverage.
func (a *Aggregator) Result() *SummaryResult {
	q := a.query
	r := &SummaryResult{
		Type: q.Type.Name, Since: q.Window.Since.UTC(), Until: q.Window.Until.UTC(),
		Figures: a.figures(a.total, 0),
	}
	if len(q.Distinct) > 0 {
		r.Distinct = make(map[string]int64)
	}
	for _, name := range q.Distinct {
		r.Distinct[name] = int64(len(a.column(name).values) - 1)
	}
	lists := a.lists
	if len(q.GroupBy) > 0 {
		r.Groups, r.GroupsTotal = a.top(lists[0], false)
		lists = lists[1:]
	}
	if len(lists) > 0 {
		r.Top = make(map[string][]Group)
	}
	for _, l := range lists {
		r.Top[l.columns[0].Name], _ = a.top(l, true)
	}
	if a.series != nil {
		r.Series = make([]Bucket, a.series.cells.len())
		for i := range r.Series {
			begin := time.Unix(0, (a.first+int64(i))*int64(q.Interval)).UTC()
			r.Series[i] = Bucket{Time: begin, Figures: a.figures(a.series, i)}
		}
	}
	return r
}

// top returns the largest groups of a list, equal ones in the order of their
// keys, and how many there are; if wanted without the group that has no value.
func (a *Aggregator) top(l *groupList, valuesOnly bool) ([]Group, int) {
	larger := func(x, y int) int {
		c := cmp.Compare(l.cells.count[y], l.cells.count[x])
		kx, ky := l.key(x), l.key(y)
		for k := 0; c == 0 && k < len(l.columns); k++ {
			c = l.columns[k].compare(kx[k], ky[k])
		}
		return c
	}
	var order []int // the largest so far
	total := 0
	for g, n := range l.cells.count {
		if n == 0 || valuesOnly && l.key(g) == (groupKey{}) {
			continue
		}
		total++
		if a.query.Top == 0 {
			order = append(order, g)
			continue
		}
		if len(order) == a.query.Top {
			last := len(order) - 1
			if larger(order[last], g) < 0 {
				continue
			}
			order = order[:last]
		}
		at, _ := slices.BinarySearchFunc(order, g, larger)
		order = slices.Insert(order, at, g)
	}
	if a.query.Top == 0 {
		slices.SortFunc(order, larger)
	}
	groups := make([]Group, len(order))
	for i, g := range order {
		groups[i].Figures = a.figures(l, g)
		key := l.key(g)
		for k, c := range l.columns {
			groups[i].Key = append(groups[i].Key, KeyValue{Column: c.Name, Value: c.show(key[k])})
		}
	}
	return groups, total
}

func (a *Aggregator) figures(l *groupList, g int) Figures {
	f := Figures{Count: l.cells.count[g], Counts: make(map[string]int64), Sums: make(map[string]int64)}
	for _, declared := range a.breakdown.Values {
		f.Counts[declared] = 0
	}
	for code, n := range l.cells.counts[g*l.cells.width : (g+1)*l.cells.width] {
		if n > 0 && code > 0 {
			f.Counts[a.breakdown.values[code].text] = n
		}
	}
	for s, column := range a.sums {
		f.Sums[a.query.Type.Columns[column].Name] = l.cells.sums[g*l.cells.sumsOf+s]
	}
	return f
}
