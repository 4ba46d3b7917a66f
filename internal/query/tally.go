package query

import (
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// gatherAddends collects what is added up, once for all lists: many events have
// nothing of it. Which ones cannot be predicted, so there is no branch on it.
func (a *Aggregator) gatherAddends(columns [][]int64, sel []int32) {
	a.summed, a.addends = a.summed[:0], a.addends[:0]
	if len(columns) == 0 {
		return
	}
	a.summed = slices.Grow(a.summed, len(sel))[:len(sel)]
	a.addends = slices.Grow(a.addends, len(sel)*len(columns))[:len(sel)*len(columns)]
	n := 0 // how many there are; what stands behind is written over
	for i, row := range sel {
		some := int64(0)
		addends := a.addends[n*len(columns):][:len(columns)]
		for s, ints := range columns {
			addends[s] = ints[row]
			some |= ints[row]
		}
		a.summed[n] = int32(i)
		any := 0
		if some != 0 {
			any = 1
		}
		n += any
	}
	a.summed, a.addends = a.summed[:n], a.addends[:n*len(columns)]
}

// gatherWeights is for types with a weight. An event without it is one, as those
// are that were recorded before there was such a column.
func (a *Aggregator) gatherWeights(v *event.Vector, sel []int32) {
	a.weights = slices.Grow(a.weights[:0], len(sel))[:len(sel)]
	for i, row := range sel {
		a.weights[i] = max(1, v.Ints[row])
	}
}

// tally counts the selected rows and adds up their numbers.
func (a *Aggregator) tally(l *groupList, at []uint32) {
	c := &l.cells
	c.widen(len(a.breakdown.values))
	width := uint32(c.width)
	codes := a.breakdown.codes[:len(at)]
	if a.weight < 0 {
		for i, g := range at {
			c.count[g]++
			c.counts[g*width+codes[i]]++
		}
	} else {
		for i, g := range at {
			c.count[g] += a.weights[i]
			c.counts[g*width+codes[i]] += a.weights[i]
		}
	}
	n := len(a.sums)
	for k, i := range a.summed {
		first := int(at[i]) * n
		sums := c.sums[first : first+n]
		for s, addend := range a.addends[k*n : k*n+n] {
			sums[s] += addend
		}
	}
}

// tallyTotal is tally for the one group of all rows. Added to memory one by one, each
// number would wait for the one before.
func (a *Aggregator) tallyTotal(rows int) {
	c := &a.total.cells
	c.widen(len(a.breakdown.values))
	codes := a.breakdown.codes[:rows]
	if a.weight < 0 {
		c.count[0] += int64(rows)
		for _, code := range codes {
			c.counts[code]++
		}
	} else {
		var count int64
		for i, code := range codes {
			count += a.weights[i]
			c.counts[code] += a.weights[i]
		}
		c.count[0] += count
	}
	for s := range a.sums {
		var sum int64
		for i := s; i < len(a.addends); i += len(a.sums) {
			sum += a.addends[i]
		}
		c.sums[s] += sum
	}
}
