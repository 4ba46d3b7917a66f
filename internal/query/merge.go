package query

// Merge adds what another aggregator of the same summary has seen.
func (a *Aggregator) Merge(other *Aggregator) error {
	for i, c := range a.columns {
		c.translate(other.columns[i])
	}
	theirs := other.all()
	for i, l := range a.all() {
		l.cells.widen(len(a.breakdown.values))
		l.merge(theirs[i], a.breakdown.codes)
	}
	return a.checkSize()
}

// merge expects that the columns have just translated those of the other.
func (l *groupList) merge(other *groupList, breakdown []uint32) {
	to := l.translate(other)
	for g := range other.cells.count {
		l.cells.merge(int(to[g]), &other.cells, g, breakdown)
	}
	if l.spread != nil {
		l.spread.merge(other.spread, to)
	}
	for i, p := range l.distinct {
		p.merge(other.distinct[i], to)
	}
	if l.origins != nil {
		l.origins.merge(other.origins, to)
	}
}

// translate finds the groups here of those of another list, by their positions
// there, and makes room for them.
func (l *groupList) translate(other *groupList) []uint32 {
	switch len(l.columns) {
	case 0:
		to := make([]uint32, other.cells.len())
		for g := range to {
			to[g] = uint32(g)
		}
		return to
	case 1:
		l.grow(len(l.columns[0].values))
		return l.columns[0].codes
	}
	to := make([]uint32, len(other.keys))
	for g, key := range other.keys {
		for k, c := range l.columns {
			key[k] = c.codes[key[k]]
		}
		to[g] = l.group(key)
	}
	return to
}
