package stream

import (
	"math"
	"math/rand/v2"
	"time"
)

// choice draws from numbers with given weights in constant time, by Walker's
// alias method: rand.Zipf computes logarithms for each draw.
type choice struct {
	share []float64 // of its own number, in each slot
	alias []int32   // the other number of the slot
}

func newChoice(weights []float64) *choice {
	n, sum := len(weights), 0.0
	for _, w := range weights {
		sum += w
	}
	c := &choice{make([]float64, n), make([]int32, n)}
	var small, large []int32
	for i, w := range weights {
		c.share[i], c.alias[i] = w/sum*float64(n), int32(i)
		if c.share[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		c.alias[s] = l
		if c.share[l] -= 1 - c.share[s]; c.share[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		c.share[i] = 1 // what rounding has left over
	}
	return c
}

// zipf gives number i the weight 1/(i+1)^s.
func zipf(n int, s float64) *choice {
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -s)
	}
	return newChoice(weights)
}

func (c *choice) draw(r *rand.Rand) int32 {
	at := r.Float64() * float64(len(c.share))
	i := int32(at)
	if at-float64(i) < c.share[i] {
		return i
	}
	return c.alias[i]
}

// spread draws numbers whose logarithms are spread normally around that of the
// median: sizes and times are. It draws from a table of quantiles, because an
// exponential for each number is the dearest part of a stream.
type spread []float64

func logNormal(median, sigma float64) spread {
	const n = 2048
	s := make(spread, n+1)
	for i := range s {
		share := (float64(i) + 0.01) / (n + 0.02) // not 0, not 1: those are infinitely far
		s[i] = median * math.Exp(sigma*math.Sqrt2*math.Erfinv(2*share-1))
	}
	return s
}

func (s spread) draw(r *rand.Rand) int64 {
	at := r.Float64() * float64(len(s)-1)
	i := int(at)
	return int64(s[i] + (at-float64(i))*(s[i+1]-s[i]))
}

// dayShape is how busy each hour of the day is.
var dayShape = [24]float64{
	0.35, 0.30, 0.25, 0.25, 0.30, 0.40, 0.60, 0.90, 1.20, 1.40, 1.50, 1.50,
	1.40, 1.50, 1.50, 1.40, 1.30, 1.20, 1.10, 1.00, 0.90, 0.70, 0.50, 0.40,
}

const (
	lastHour     = 15  // the stream ends on a working afternoon, whatever the clock says
	weekendShare = 0.6 // of the events of a working day
)

// clock spreads events over the span: it maps their number to a time, which
// goes quicker at night.
type clock struct {
	begin   int64
	hour    float64   // length of a segment in ns
	reached []float64 // share of events before each segment, and 1 at the end
	segment int
	total   float64
}

func newClock(o Options, events int64) clock {
	n := int((o.Span + time.Hour - 1) / time.Hour)
	c := clock{begin: o.Begin().UnixNano(), hour: float64(o.Span) / float64(n), reached: make([]float64, n+1), total: float64(events)}
	for i := range n {
		back := n - 1 - i // hours before the last one
		weight := dayShape[((lastHour-back)%24+24)%24]
		if day := back / 24 % 7; !o.NoWeekends && (day == 3 || day == 4) {
			weight *= weekendShare
		}
		c.reached[i+1] = c.reached[i] + weight
	}
	for i := range c.reached {
		c.reached[i] /= c.reached[n]
	}
	c.reached[n] = 1
	return c
}

// at returns the time of an event; numbers must not fall between calls.
func (c *clock) at(number float64) int64 {
	share := number / c.total
	for c.segment < len(c.reached)-2 && share >= c.reached[c.segment+1] {
		c.segment++
	}
	from, until := c.reached[c.segment], c.reached[c.segment+1]
	within := (share - from) / (until - from)
	return c.begin + int64((float64(c.segment)+within)*c.hour)
}
