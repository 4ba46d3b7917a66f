package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// AddRollup adds a rollup that begins at a time. The sections are those that
// Sections names, in that order. The question must be one that rollups can
// answer, see FromRollups.
func (a *Aggregator) AddRollup(begin time.Time, sections [][]byte) error {
	if a.rollups == nil {
		a.rollups = newRollups(a.query)
	}
	keep, parts := a.rollups.keep, a.rollups.parts
	if a.rollups.nothing {
		return nil
	}
	for i, name := range a.rollups.sections {
		if err := a.openSection(&parts[i], name, sections[i]); err != nil {
			return fmt.Errorf("rollup of %s, section %q: %w", begin.Format(time.RFC3339), name, err)
		}
	}
	a.addTotal(begin, &parts[0], keep)
	for i, l := range a.lists {
		part := &parts[1+i]
		l.placeSection(begin, part, keep)
		part.addTo(&l.cells, len(a.breakdown.values))
	}
	for i, distinct := range a.query.Distinct {
		parts[1+len(a.lists)+i].codes(a.column(distinct), keep)
	}
	if slices.ContainsFunc(parts, func(s section) bool { return s.bad }) {
		return fmt.Errorf("rollup of %s: %w", begin.Format(time.RFC3339), errSection)
	}
	return a.checkSize()
}

// rollups is what reading one rollup after another needs: a week has hundreds.
type rollups struct {
	sections []string
	parts    []section // of the last one, whose memory the next takes
	keep     keeper
	nothing  bool // no event can match
}

func newRollups(q Summary) *rollups {
	r := &rollups{sections: q.Sections()}
	r.parts = make([]section, len(r.sections))
	m := q.Filters.Compile(q.Type)
	r.nothing = m.Nothing()
	if len(m.columns) > 0 {
		r.keep = m.value
	}
	return r
}

// keeper tells which values are wanted, and whether the absent one is; without one
// all are.
type keeper func(v value, present bool) bool

// placeSection finds the group of each value of a section, and makes room for
// it. Of the list's columns, one has the section's values at most; time is that
// of the rollup.
func (l *groupList) placeSection(begin time.Time, s *section, keep keeper) {
	var k groupKey
	valued := -1
	for i, c := range l.columns {
		if c.Kind == event.KindTime {
			k[i] = c.bucket(begin.UnixNano())
		} else {
			valued = i
		}
	}
	if valued >= 0 {
		s.codes(l.columns[valued], keep)
	} else {
		s.at = s.at[:0]
		for _, wanted := range s.kept(keep) {
			if s.at = append(s.at, k[0]); !wanted {
				s.at[len(s.at)-1] = leftOut
			}
		}
	}
	if len(l.columns) == 1 {
		l.grow(len(l.columns[0].values))
		return
	}
	for i, code := range s.at {
		if code != leftOut {
			k[valued] = code
			s.at[i] = l.group(k)
		}
	}
}

// addTotal adds the figures of all values that are kept.
func (a *Aggregator) addTotal(begin time.Time, s *section, keep keeper) {
	kept := s.kept(keep)
	add := func(l *groupList, cell uint32) {
		s.at = s.at[:0]
		for _, wanted := range kept {
			if wanted {
				s.at = append(s.at, cell)
			} else {
				s.at = append(s.at, leftOut)
			}
		}
		figures := *s // which are read once for each list
		figures.addTo(&l.cells, len(a.breakdown.values))
		s.bad = s.bad || figures.bad
	}
	add(a.total, 0)
	if a.series != nil {
		add(a.series, uint32(bucketOf(begin.UnixNano(), int64(a.query.Interval))-a.first))
	}
}

// section is a part of a rollup that is read.
type section struct {
	reader
	kind      event.Kind
	values    int      // beside the absent one
	breakdown []uint32 // codes in the aggregator, by those here
	sums      []int    // positions among the aggregator's sums, by those here; -1: not asked for
	at        []uint32 // cells of the values, the absent one first; or leftOut
	wanted    []bool   // the result of kept
}

const leftOut = math.MaxUint32

// openSection reads a section up to its values. S has the memory of another.
func (a *Aggregator) openSection(s *section, name string, data []byte) error {
	*s = section{reader: reader{data: data}, breakdown: append(s.breakdown[:0], 0), sums: s.sums[:0], at: s.at[:0], wanted: s.wanted[:0]}
	if version := s.byte(); version != sectionVersion {
		return fmt.Errorf("has version %d, this program reads %d", version, sectionVersion)
	}
	for range s.count(1) {
		text := s.text()
		code, known := a.breakdown.find(text, 0)
		if !known {
			code = a.breakdown.code(value{text: string(text)})
		}
		s.breakdown = append(s.breakdown, code)
	}
	for range s.count(1) {
		name := s.text()
		s.sums = append(s.sums, slices.IndexFunc(a.sums, func(at int) bool { return a.query.Type.Columns[at].Name == string(name) }))
	}
	for len(s.sums) > 0 && s.sums[len(s.sums)-1] < 0 { // these need not be read
		s.sums = s.sums[:len(s.sums)-1]
	}
	s.values = s.count(1)
	if name != rollupTotal {
		at, _ := a.query.Type.Column(name)
		s.kind = a.query.Type.Columns[at].Kind
	}
	// Every figure takes a byte or more: a number of values that is made up must
	// not make room for all that it promises.
	if s.bad || (1+s.values)*(1+len(s.breakdown)+len(s.sums)) > s.left() {
		return errSection
	}
	return nil
}

// eachValue reads the values, in order. A text is good until the next one.
func (s *section) eachValue(do func(text []byte, number int64)) {
	var number int64
	for range s.values {
		if s.kind == event.KindInt {
			number += s.varint()
			do(nil, number)
		} else {
			do(s.text(), 0)
		}
	}
}

// codes reads the values of a column's section and finds their cells: those
// that have the codes of the column.
func (s *section) codes(c *valueColumn, keep keeper) {
	s.at = append(slices.Grow(s.at[:0], 1+s.values), 0)
	if keep != nil && !keep(value{}, false) {
		s.at[0] = leftOut
	}
	s.eachValue(func(text []byte, number int64) {
		var v value
		code, known := c.find(text, number)
		if !known {
			v = value{string(text), number}
		} else if keep != nil {
			v = c.values[code]
		}
		if c.networks != nil { // what is kept is addresses
			v = value{string(text), number}
		}
		switch {
		case keep != nil && !keep(v, true):
			code = leftOut
		case !known:
			code = c.code(v)
		}
		s.at = append(s.at, code)
	})
}

// kept reads the values and tells which are wanted, the absent one first.
func (s *section) kept(keep keeper) []bool {
	s.wanted = append(s.wanted[:0], keep == nil || keep(value{}, false))
	s.eachValue(func(text []byte, number int64) {
		s.wanted = append(s.wanted, keep == nil || keep(value{string(text), number}, true))
	})
	return s.wanted
}

// addTo reads the figures into cells, which have room. Sums that the columns had
// then and nobody asks for are left out.
func (s *section) addTo(c *cells, breakdown int) {
	c.widen(breakdown)
	for _, g := range s.at {
		if n := s.uvarint(); g != leftOut {
			c.count[g] += int64(n)
		}
	}
	for _, code := range s.breakdown {
		for _, g := range s.at {
			if n := s.uvarint(); n != 0 && g != leftOut {
				c.counts[int(g)*c.width+int(code)] += int64(n)
			}
		}
	}
	for _, to := range s.sums {
		for _, g := range s.at {
			if n := s.varint(); to >= 0 && g != leftOut {
				c.sums[int(g)*c.sumsOf+to] += n
			}
		}
	}
}

// value is for filters that are all of one column, which rollups have.
func (m Matcher) value(v value, present bool) bool {
	for _, c := range m.columns {
		is := present && (c.kind == event.KindInt && c.Number(v.number) || c.kind != event.KindInt && c.Text(v.text))
		if is == c.not {
			return false
		}
	}
	return true
}

var errSection = errors.New("is damaged")

// reader takes numbers and texts from bytes that may be damaged; it never
// reads beyond their end.
type reader struct {
	data []byte
	at   int // what is before it was read
	bad  bool
}

func (r *reader) left() int { return len(r.data) - r.at }

func (r *reader) fail() {
	r.bad, r.at = true, len(r.data)
}

func (r *reader) byte() byte {
	if r.left() == 0 {
		r.fail()
		return 0
	}
	r.at++
	return r.data[r.at-1]
}

func (r *reader) uvarint() uint64 {
	if r.at < len(r.data) && r.data[r.at] < 0x80 { // as most are
		r.at++
		return uint64(r.data[r.at-1])
	}
	n, size := binary.Uvarint(r.data[r.at:])
	if size <= 0 {
		r.fail()
		return 0
	}
	r.at += size
	return n
}

func (r *reader) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

// count reads how many things follow, each of which takes at least so many bytes.
func (r *reader) count(bytesEach int) int {
	n := r.uvarint()
	if n > uint64(r.left()/bytesEach) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() []byte {
	n := r.count(1)
	r.at += n
	return r.data[r.at-n : r.at]
}
