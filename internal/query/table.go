package query

import "math/bits"

// table holds a number for each of many keys, which are never 0. It is what a
// map[uint64]int64 is, in half the memory, and several times quicker where every
// event of a long window looks something up: numbers that are not there are 0, nothing
// is removed, and the keys are nobody's choice, so that a simple hash does.
type table struct {
	slots []slot // a power of two of them; key 0: free
	used  int
}

type slot struct {
	key uint64
	n   int64
}

const firstSlots = 16

// at returns the number of a key, to be read and changed until the next call.
func (t *table) at(key uint64) *int64 {
	if 4*t.used >= 3*len(t.slots) {
		t.grow()
	}
	s := t.probe(key)
	if s.key == 0 {
		s.key = key
		t.used++
	}
	return &s.n
}

// find returns the number of a key, 0 if it has none.
func (t *table) find(key uint64) int64 {
	if t.used == 0 {
		return 0
	}
	return t.probe(key).n
}

// probe returns the slot of a key, or the free one where it belongs.
func (t *table) probe(key uint64) *slot {
	mask := uint64(len(t.slots) - 1)
	const golden = 0x9E3779B97F4A7C15 // spreads neighbouring keys over the high bits
	for i := key * golden >> (64 - bits.Len64(mask)); ; i++ {
		if s := &t.slots[i&mask]; s.key == key || s.key == 0 {
			return s
		}
	}
}

func (t *table) grow() {
	old := t.slots
	t.slots = make([]slot, max(firstSlots, 2*len(old)))
	for _, s := range old {
		if s.key != 0 {
			*t.probe(s.key) = s
		}
	}
}

// each calls do with all keys and numbers, in no order.
func (t *table) each(do func(key uint64, n int64)) {
	for _, s := range t.slots {
		if s.key != 0 {
			do(s.key, s.n)
		}
	}
}
