package query

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// StatsError is by how much a percentile can be off, as a part of it. Numbers
// below 128 are exact.
const StatsError = 1.0 / (2 << mantissaBits)

// Values are counted in buckets: each number below 128 has its own, and above
// that each power of two is cut into 64, so that the middle of a bucket is
// within 1/128 of every number in it. Negative ones mirror that.
const (
	mantissaBits = 6
	zeroBucket   = 1 << 15 // the bucket of 0, so that those of negative numbers come before it
)

const (
	maxStats = 4
	// maxTally bounds the memory of percentiles: so many buckets of groups that
	// are in use take some 100 MB.
	maxTally = 2 << 20
)

func bucketOfValue(v int64) uint16 {
	n, sign := uint64(v), 1
	if v < 0 {
		n, sign = -n, -1
	}
	at := int(n)
	if n >= 2<<mantissaBits {
		e := bits.Len64(n) - mantissaBits - 1
		at = e<<mantissaBits + int(n>>e)
	}
	return uint16(zeroBucket + sign*at)
}

// middle returns the number that stands for those in a bucket.
func middle(bucket uint16) int64 {
	at, sign := int(bucket)-zeroBucket, int64(1)
	if at < 0 {
		at, sign = -at, -1
	}
	if at < 2<<mantissaBits {
		return sign * int64(at)
	}
	e := at>>mantissaBits - 1
	n := uint64(at-e<<mantissaBits)<<e + 1<<e>>1
	return sign * int64(min(n, math.MaxInt64))
}

// spread holds how the numbers of some columns are spread, for many cells.
type spread struct {
	columns int
	moments []moment // columns for each cell
	tally   table    // how often, by cell, column and bucket
	sorted  []slot   // of tally, once nothing is added any more
}

type moment struct {
	count    int64
	min, max int64
	sum      int128
}

func tallyKey(cell, column int, bucket uint16) uint64 {
	return uint64(cell)<<32 | uint64(column)<<16 | uint64(bucket)
}

func newSpread(columns int) *spread {
	return &spread{columns: columns}
}

func (s *spread) grow(cells int) {
	if more := cells*s.columns - len(s.moments); more > 0 {
		s.moments = append(s.moments, make([]moment, more)...)
	}
}

// add adds the numbers of a column in the rows of a batch to the cells of these.
// There must be room.
func (s *spread) add(column int, m *measured, at []uint32) {
	for i, row := range m.rows {
		cell := int(at[row])
		s.moments[cell*s.columns+column].add(moment{count: m.times[i], min: m.values[i], max: m.values[i], sum: m.sums[i]})
		*s.tally.at(tallyKey(cell, column, m.buckets[i])) += m.times[i]
	}
}

// merge adds another's cells to those that to says.
func (s *spread) merge(other *spread, to []uint32) {
	for i, m := range other.moments {
		if m.count > 0 {
			s.moments[int(to[i/s.columns])*s.columns+i%s.columns].add(m)
		}
	}
	other.tally.each(func(key uint64, n int64) {
		*s.tally.at(uint64(to[key>>32])<<32 | key&math.MaxUint32) += n
	})
}

func (m *moment) add(n moment) {
	if m.count == 0 {
		m.min, m.max = n.min, n.max
	}
	m.count += n.count
	m.min, m.max = min(m.min, n.min), max(m.max, n.max)
	m.sum.add(n.sum)
}

// of returns the stats of a column in a cell, and false if no event has a value.
func (s *spread) of(cell, column int) (Stats, bool) {
	if cell*s.columns >= len(s.moments) || s.moments[cell*s.columns+column].count == 0 {
		return Stats{}, false
	}
	m := s.moments[cell*s.columns+column]
	if s.sorted == nil {
		s.tally.each(func(key uint64, n int64) { s.sorted = append(s.sorted, slot{key, n}) })
		slices.SortFunc(s.sorted, func(a, b slot) int { return cmp.Compare(a.key, b.key) })
	}
	from, _ := slices.BinarySearchFunc(s.sorted, tallyKey(cell, column, 0), func(t slot, key uint64) int { return cmp.Compare(t.key, key) })
	stats := Stats{Count: m.count, Min: m.min, Max: m.max, Avg: m.sum.float() / float64(m.count)}
	percentiles := []struct {
		to         *int64
		hundredths int64
	}{{&stats.P50, 50}, {&stats.P95, 95}, {&stats.P99, 99}}
	seen := int64(0)
	for _, t := range s.sorted[from:] {
		seen += t.n
		for len(percentiles) > 0 && 100*seen >= percentiles[0].hundredths*m.count {
			*percentiles[0].to = max(m.min, min(m.max, middle(uint16(t.key))))
			percentiles = percentiles[1:]
		}
		if len(percentiles) == 0 {
			break
		}
	}
	return stats, true
}

// measured is what the selected rows of a batch have of a column.
type measured struct {
	rows    []int32 // positions in the selection of those that have a value
	values  []int64
	buckets []uint16
	times   []int64 // how often each counts
	sums    []int128
}

// take reads a column. With weights, an event counts as often as they say; a
// column that is summed holds the total of what such an event stands for, of
// which each has an equal part.
func (m *measured) take(c event.Column, v *event.Vector, sel []int32, weights []int64) {
	*m = measured{m.rows[:0], m.values[:0], m.buckets[:0], m.times[:0], m.sums[:0]}
	for i, row := range sel {
		if !v.Valid[row] {
			continue
		}
		n, times := v.Ints[row], int64(1)
		sum := int128Of(n, 1)
		if len(weights) > 0 && weights[i] > 1 {
			times = weights[i]
			if c.Sum {
				n /= times
			} else {
				sum = int128Of(n, times)
			}
		}
		m.rows, m.values, m.buckets = append(m.rows, int32(i)), append(m.values, n), append(m.buckets, bucketOfValue(n))
		m.times, m.sums = append(m.times, times), append(m.sums, sum)
	}
}

// int128 is a sum that cannot overflow, whatever an imported file says.
type int128 struct{ high, low uint64 }

// int128Of returns n as often as times says.
func int128Of(n, times int64) (s int128) {
	if n < 0 {
		s.high, s.low = bits.Mul64(-uint64(n), uint64(times))
		return s.negative()
	}
	s.high, s.low = bits.Mul64(uint64(n), uint64(times))
	return s
}

func (s int128) negative() int128 {
	low, borrow := bits.Sub64(0, s.low, 0)
	high, _ := bits.Sub64(0, s.high, borrow)
	return int128{high, low}
}

func (s *int128) add(n int128) {
	var carry uint64
	s.low, carry = bits.Add64(s.low, n.low, 0)
	s.high, _ = bits.Add64(s.high, n.high, carry)
}

func (s int128) float() float64 {
	if int64(s.high) < 0 {
		return -s.negative().float()
	}
	return float64(s.high)*(1<<64) + float64(s.low)
}
