package query

import (
	"cmp"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// Result returns the answer, without its coverage.
func (a *Aggregator) Result() *SummaryResult {
	r := a.totals()
	a.addGroups(r)
	a.addSeries(r)
	return r
}

// totals returns what the answer says of all events together.
func (a *Aggregator) totals() *SummaryResult {
	a.setNames()
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
	if len(q.Stats) > 0 {
		r.StatsError = StatsError
	}
	return r
}

func (a *Aggregator) addGroups(r *SummaryResult) {
	lists := a.lists
	if len(a.query.GroupBy) > 0 {
		r.Groups, r.GroupsTotal = a.top(lists[0], false)
		lists = lists[1:]
	}
	if len(lists) > 0 {
		r.Top = make(map[string][]Group)
	}
	for _, l := range lists {
		r.Top[l.columns[0].Name], _ = a.top(l, true)
	}
}

func (a *Aggregator) addSeries(r *SummaryResult) {
	if a.series == nil {
		return
	}
	r.Series = make([]Bucket, a.series.cells.len())
	for i := range r.Series {
		begin := time.Unix(0, (a.first+int64(i))*int64(a.query.Interval)).UTC()
		r.Series[i] = Bucket{Time: begin, Figures: a.figures(a.series, i)}
		if a.before != nil {
			before := a.before.figures(a.before.series, i)
			r.Series[i].Before = &before
		}
	}
}

// top returns the first groups of a list, and how many there are; if wanted
// without the group that has no value. Equal ones are in the order of their keys.
func (a *Aggregator) top(l *groupList, valuesOnly bool) ([]Group, int) {
	ranks := a.ranks(l)
	earlier := func(x, y int) int {
		if ranks[x] != ranks[y] {
			return cmp.Compare(ranks[y], ranks[x])
		}
		kx, ky := l.key(x), l.key(y)
		for k, c := range l.columns {
			if order := c.compare(kx[k], ky[k]); order != 0 {
				return order
			}
		}
		return 0
	}
	if time := slices.IndexFunc(l.columns, func(c *valueColumn) bool { return c.Kind == event.KindTime }); time >= 0 {
		return a.topOfEach(l, time, earlier)
	}
	var order []int // the first so far
	total := 0
	for g, n := range l.cells.count {
		if n == 0 && !l.wasThere(g) || valuesOnly && l.key(g) == (groupKey{}) {
			continue
		}
		total++
		if a.query.Top == 0 {
			order = append(order, g)
			continue
		}
		if len(order) == a.query.Top {
			last := len(order) - 1
			if earlier(order[last], g) < 0 {
				continue
			}
			order = order[:last]
		}
		at, _ := slices.BinarySearchFunc(order, g, earlier)
		order = slices.Insert(order, at, g)
	}
	if a.query.Top == 0 {
		slices.SortFunc(order, earlier)
	}
	return a.groups(l, order), total
}

// topOfEach is top with a column of time: by time, and of each the first groups.
func (a *Aggregator) topOfEach(l *groupList, column int, earlier func(x, y int) int) ([]Group, int) {
	var order []int
	for g, n := range l.cells.count {
		if n > 0 || l.wasThere(g) {
			order = append(order, g)
		}
	}
	byTime := func(x, y int) int { return l.columns[column].compare(l.key(x)[column], l.key(y)[column]) }
	slices.SortFunc(order, func(x, y int) int { return cmp.Or(byTime(x, y), earlier(x, y)) })
	total, same := len(order), 0
	var last int
	order = slices.DeleteFunc(order, func(g int) bool {
		if same == 0 || byTime(last, g) != 0 {
			same = 0
		}
		same, last = same+1, g
		return a.query.Top > 0 && same > a.query.Top
	})
	return a.groups(l, order), total
}

// groups makes what the answer says of some groups of a list.
func (a *Aggregator) groups(l *groupList, order []int) []Group {
	groups := make([]Group, len(order))
	var commands []uint32
	if l.origins != nil && len(order) > 0 {
		commands = l.origins.commands.most()
	}
	for i, g := range order {
		to := &groups[i]
		to.Figures = a.figures(l, g)
		key := l.key(g)
		for k, c := range l.columns {
			to.Key = append(to.Key, KeyValue{Column: c.Name, Value: c.show(key[k])})
		}
		if l.origins != nil {
			to.FirstSeen = time.Unix(0, l.origins.first[g]).UTC()
			to.TopCommand = l.origins.commands.column.values[commands[g]].text
		}
		if l.before != nil {
			before := a.beforeOf(l, g)
			to.Change, to.Before = a.change(l, g), &before
		}
	}
	return groups
}

func (a *Aggregator) figures(l *groupList, g int) Figures {
	f := Figures{Count: l.cells.count[g], Counts: a.counts(l, g), Sums: make(Numbers, len(a.sums))}
	for i, of := range a.sumNames {
		f.Sums[i] = Number{of.name, l.cells.sums[g*l.cells.sumsOf+of.at]}
	}
	for i, p := range l.distinct {
		if i == 0 {
			f.Distinct = make(map[string]int64)
		}
		f.Distinct[p.column.Name] = p.values[g]
	}
	if l.spread != nil {
		f.Stats = make(map[string]Stats)
		for i, column := range a.stats {
			if stats, some := l.spread.of(g, i); some {
				f.Stats[a.query.Type.Columns[column].Name] = stats
			}
		}
	}
	return f
}

// counts returns those by value of the breakdown: of all values that are declared,
// and of those that there are.
func (a *Aggregator) counts(l *groupList, g int) Numbers {
	counts := l.cells.counts[g*l.cells.width : (g+1)*l.cells.width]
	n := len(a.breakdown.Values)
	for _, count := range counts {
		n += int(min(count, 1))
	}
	list := make(Numbers, 0, n)
	for _, of := range a.countNames {
		count := int64(0)
		if of.at >= 0 && of.at < len(counts) {
			count = counts[of.at]
		}
		if count > 0 || of.always {
			list = append(list, Number{of.name, count})
		}
	}
	return list
}

// setNames finds the names of figures and puts them in order.
func (a *Aggregator) setNames() {
	a.countNames, a.sumNames = a.countNames[:0], a.sumNames[:0]
	byName := func(x, y named) int { return cmp.Compare(x.name, y.name) }
	for code, v := range a.breakdown.values[1:] {
		a.countNames = append(a.countNames, named{v.text, 1 + code, slices.Contains(a.breakdown.Values, v.text)})
	}
	for _, declared := range a.breakdown.Values {
		if a.breakdown.known(value{text: declared}) == 0 {
			a.countNames = append(a.countNames, named{declared, -1, true})
		}
	}
	for s, column := range a.sums {
		a.sumNames = append(a.sumNames, named{name: a.query.Type.Columns[column].Name, at: s})
	}
	slices.SortFunc(a.countNames, byName)
	slices.SortFunc(a.sumNames, byName)
}
