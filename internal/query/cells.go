package query

// cells add up the figures of many sets of events, each set at its position.
// They lie side by side in flat arrays: a rollup of a day has tens of
// thousands of them.
type cells struct {
	width  int     // values of the breakdown that there is room for, the absent one included
	sumsOf int     // columns that are added up
	count  []int64 // events
	counts []int64 // width for each cell: events by code of the breakdown
	sums   []int64 // sumsOf for each cell
}

func newCells(sumsOf int) cells { return cells{width: 1, sumsOf: sumsOf} }

func (c *cells) len() int { return len(c.count) }

// reset removes all cells.
func (c *cells) reset() { c.count, c.counts, c.sums = c.count[:0], c.counts[:0], c.sums[:0] }

// grow makes room for n cells.
func (c *cells) grow(n int) {
	if more := n - len(c.count); more > 0 {
		c.count = append(c.count, make([]int64, more)...)
		c.counts = append(c.counts, make([]int64, more*c.width)...)
		c.sums = append(c.sums, make([]int64, more*c.sumsOf)...)
	}
}

// widen makes room for so many values of the breakdown.
func (c *cells) widen(values int) {
	if values <= c.width {
		return
	}
	wider := make([]int64, len(c.count)*values)
	for i := range c.count {
		copy(wider[i*values:], c.counts[i*c.width:(i+1)*c.width])
	}
	c.width, c.counts = values, wider
}

// merge adds a cell of another set of cells, whose codes of the breakdown are
// translated by codes. There must be room for both.
func (c *cells) merge(at int, other *cells, from int, codes []uint32) {
	c.count[at] += other.count[from]
	for code, n := range other.counts[from*other.width : (from+1)*other.width] {
		if n != 0 {
			c.counts[at*c.width+int(codes[code])] += n
		}
	}
	for s, n := range other.sums[from*other.sumsOf : (from+1)*other.sumsOf] {
		c.sums[at*c.sumsOf+s] += n
	}
}
