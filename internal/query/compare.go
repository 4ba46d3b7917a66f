package query

import "slices"

// Compared returns the answer, without its coverage, beside that of an earlier
// window: before has seen the events of Summary.Before. Neither can be used
// any more.
func (a *Aggregator) Compared(before *Aggregator) (*SummaryResult, error) {
	r, earlier := a.totals(), before.totals()
	r.Before = &Earlier{Since: earlier.Since, Until: earlier.Until, Figures: earlier.Figures}
	a.before = before
	for i, c := range a.columns {
		c.translate(before.columns[i])
	}
	others := before.all()
	for i, l := range a.all() {
		l.match(others[i], len(a.breakdown.values))
	}
	if err := a.checkSize(); err != nil {
		return nil, err
	}
	a.addGroups(r)
	a.addSeries(r)
	if len(a.query.GroupBy) > 0 {
		r.Changes = a.changes(a.lists[0])
	}
	return r, nil
}

// match finds the groups of another list here. Those that are only there get
// cells without events. The columns have just translated those of the other.
func (l *groupList) match(other *groupList, breakdown int) {
	to := l.translate(other)
	l.cells.widen(breakdown)
	l.other, l.before = other, slices.Repeat([]int{-1}, l.cells.len())
	for g, n := range other.cells.count {
		if n > 0 {
			l.before[to[g]] = g
		}
	}
}

// wasThere tells whether a group has events in the earlier window.
func (l *groupList) wasThere(g int) bool { return l.before != nil && l.before[g] >= 0 }

// beforeOf returns the figures that a group had.
func (a *Aggregator) beforeOf(l *groupList, g int) Figures {
	if l.wasThere(g) {
		return a.before.figures(l.other, l.before[g])
	}
	none := a.newList()
	none.grow(1)
	f := a.figures(none, 0)
	if len(l.distinct) > 0 {
		f.Distinct = make(map[string]int64)
	}
	for _, p := range l.distinct {
		f.Distinct[p.column.Name] = 0
	}
	return f
}

func (a *Aggregator) changes(l *groupList) map[string]int {
	changes := map[string]int{ChangeNew: 0, ChangeGone: 0, ChangeChanged: 0, ChangeSame: 0}
	for g, n := range l.cells.count {
		if n > 0 || l.wasThere(g) {
			changes[a.change(l, g)]++
		}
	}
	return changes
}

func (a *Aggregator) change(l *groupList, g int) string {
	switch {
	case !l.wasThere(g):
		return ChangeNew
	case l.cells.count[g] == 0:
		return ChangeGone
	case l.cells.equal(g, &l.other.cells, l.before[g], a.breakdown.codes):
		return ChangeSame
	}
	return ChangeChanged
}

// equal tells whether a cell has the figures of one of other cells, whose codes of
// the breakdown are translated by codes.
func (c *cells) equal(at int, other *cells, from int, codes []uint32) bool {
	if c.count[at] != other.count[from] {
		return false
	}
	for code, n := range other.counts[from*other.width : (from+1)*other.width] {
		if n != 0 && c.counts[at*c.width+int(codes[code])] != n {
			return false
		}
	}
	return slices.Equal(c.sums[at*c.sumsOf:(at+1)*c.sumsOf], other.sums[from*other.sumsOf:(from+1)*other.sumsOf])
}
