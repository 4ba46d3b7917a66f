package query

// maxPairs bounds the memory of what is counted within groups: so many pairs of
// a group and a value take some 100 MB.
const maxPairs = 2 << 20

// pairs counts which values of a column occur in which cells, and how often.
type pairs struct {
	column *valueColumn
	times  table   // by cell and code of the value
	values []int64 // different ones in each cell, without the absent one
}

func newPairs(c *valueColumn) *pairs { return &pairs{column: c} }

func (p *pairs) grow(cells int) {
	if more := cells - len(p.values); more > 0 {
		p.values = append(p.values, make([]int64, more)...)
	}
}

// add takes the rows that the column has encoded. There must be room.
func (p *pairs) add(at []uint32, weights []int64) {
	for i, cell := range at {
		if code := p.column.codes[i]; code != 0 {
			n := int64(1)
			if len(weights) > 0 {
				n = weights[i]
			}
			p.count(uint64(cell)<<32|uint64(code), n)
		}
	}
}

func (p *pairs) count(pair uint64, n int64) {
	times := p.times.at(pair)
	if *times == 0 {
		p.values[pair>>32]++
	}
	*times += n
}

// merge expects that the column has just translated that of the other.
func (p *pairs) merge(other *pairs, to []uint32) {
	other.times.each(func(pair uint64, n int64) {
		p.count(uint64(to[pair>>32])<<32|uint64(p.column.codes[uint32(pair)]), n)
	})
}

// most returns the code of the most frequent value of each cell; of equally
// frequent ones the first in their order.
func (p *pairs) most() []uint32 {
	codes, times := make([]uint32, len(p.values)), make([]int64, len(p.values))
	p.times.each(func(pair uint64, n int64) {
		cell, code := pair>>32, uint32(pair)
		if n > times[cell] || n == times[cell] && p.column.compare(code, codes[cell]) < 0 {
			codes[cell], times[cell] = code, n
		}
	})
	return codes
}
