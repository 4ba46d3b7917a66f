package block

import (
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// ranking orders the values of a dictionary by how often they occur. It keeps
// its memory.
type ranking struct {
	counts []uint32 // by code
	keys   []uint64
	order  []uint32 // codes that occur
	ranks  []int32  // by code: position in order
}

func (r *ranking) of(codes []uint32, entries int) (order []uint32, ranks []int32) {
	r.counts = sized(r.counts, 1+entries)
	r.ranks = sized(r.ranks, 1+entries)
	clear(r.counts)
	for _, code := range codes {
		r.counts[code]++
	}
	r.keys, r.order = r.keys[:0], r.order[:0]
	for code, n := range r.counts {
		if code != 0 && n != 0 {
			r.keys = append(r.keys, uint64(^n)<<32|uint64(code))
		}
	}
	slices.Sort(r.keys)
	for rank, key := range r.keys {
		code := uint32(key)
		r.order = append(r.order, code)
		r.ranks[code] = int32(rank)
	}
	return r.order, r.ranks
}

// numberSet gives different numbers codes from 1, in order of first use. It is
// a hash table with open addressing, which keeps its memory.
type numberSet struct {
	values []int64  // by code-1
	table  []uint32 // codes, 0 where free; at most half of it is in use
	shift  uint
}

func (s *numberSet) reset() {
	s.values = s.values[:0]
	s.resize(10)
}

func (s *numberSet) resize(bits uint) {
	s.shift = 64 - bits
	s.table = sized(s.table, 1<<bits)
	clear(s.table)
	for i, n := range s.values {
		s.table[s.find(n)] = uint32(i) + 1
	}
}

// find returns where in the table a number is, or belongs.
func (s *numberSet) find(n int64) uint64 {
	at := uint64(n) * 0x9e3779b97f4a7c15 >> s.shift
	for {
		code := s.table[at]
		if code == 0 || s.values[code-1] == n {
			return at
		}
		at = (at + 1) & uint64(len(s.table)-1)
	}
}

func (s *numberSet) code(n int64) uint32 {
	at := s.find(n)
	if code := s.table[at]; code != 0 {
		return code
	}
	s.values = append(s.values, n)
	code := uint32(len(s.values))
	s.table[at] = code
	if 2*len(s.values) > len(s.table) {
		s.resize(64 - s.shift + 1)
	}
	return code
}

// soon is after how many rows encode gives up if half of them have a number
// of their own.
const soon = 4096

// encode sets the codes of a vector's numbers, 0 where they are absent. It
// gives up and reports false if there are more different ones than limit, or
// soon if that is to be expected.
func (s *numberSet) encode(codes []uint32, v *event.Vector, limit int) bool {
	s.reset()
	var last int64
	var lastCode uint32
	for i, n := range v.Ints {
		switch {
		case !v.Valid[i]:
			codes[i] = 0
			continue
		case lastCode == 0 || n != last: // neighbours are often alike
			last, lastCode = n, s.code(n)
			if len(s.values) > limit || len(s.values) > soon/2 && i < soon {
				return false
			}
		}
		codes[i] = lastCode
	}
	return true
}
