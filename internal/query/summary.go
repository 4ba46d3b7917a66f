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
		case slices.Contains(q.GroupBy[:i], name):
			return &ParamError{Name: "group_by", Value: name, Reason: "is named twice"}
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
		Distinct: make(map[string]int64),
	}
	a.total.group(groupKey{}) // there even when there were no events
	r.Figures = a.figures(&a.total.cells[0])
	for _, c := range a.columns {
		if c.Distinct {
			r.Distinct[c.Name] = int64(len(c.values) - 1)
		}
	}
	switch {
	case len(q.GroupBy) > 0:
		r.Groups, r.GroupsTotal = a.top(a.lists[0], false), len(a.lists[0].keys)
	case len(a.lists) > 0:
		r.Top = make(map[string][]Group)
		for _, l := range a.lists {
			r.Top[l.columns[0].Name] = a.top(l, true)
		}
	}
	if a.series != nil {
		r.Series = make([]Bucket, len(a.series))
		for i := range a.series {
			begin := time.Unix(0, (a.first+int64(i))*int64(q.Interval)).UTC()
			r.Series[i] = Bucket{Time: begin, Figures: a.figures(&a.series[i])}
		}
	}
	return r
}

// top returns the largest groups of a list, equal ones in the order of their
// keys, if wanted without the group that has no value.
func (a *Aggregator) top(l *groupList, valuesOnly bool) []Group {
	order := make([]uint32, 0, len(l.keys))
	for g, key := range l.keys {
		if !valuesOnly || key != (groupKey{}) {
			order = append(order, uint32(g))
		}
	}
	slices.SortFunc(order, func(x, y uint32) int {
		c := cmp.Compare(l.cells[y].count, l.cells[x].count)
		for k := 0; c == 0 && k < len(l.columns); k++ {
			c = l.columns[k].compare(l.keys[x][k], l.keys[y][k])
		}
		return c
	})
	if a.query.Top > 0 && len(order) > a.query.Top {
		order = order[:a.query.Top]
	}
	groups := make([]Group, len(order))
	for i, g := range order {
		groups[i].Figures = a.figures(&l.cells[g])
		for k, c := range l.columns {
			groups[i].Key = append(groups[i].Key, KeyValue{Column: c.Name, Value: c.show(l.keys[g][k])})
		}
	}
	return groups
}

func (a *Aggregator) figures(c *cell) Figures {
	f := Figures{Count: c.count, Counts: make(map[string]int64), Sums: make(map[string]int64)}
	for _, declared := range a.breakdown.Values {
		f.Counts[declared] = 0
	}
	for code, n := range c.counts {
		if n > 0 {
			f.Counts[a.breakdown.values[code].text] = n
		}
	}
	for s, column := range a.sums {
		var n int64
		if c.sums != nil {
			n = c.sums[s]
		}
		f.Sums[a.query.Type.Columns[column].Name] = n
	}
	return f
}
