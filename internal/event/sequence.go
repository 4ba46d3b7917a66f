package event

import "slices"

// Sequence is the events of some batches of one type by time, those of one time in
// the order in which the batches have them. It is read a column at a time: all columns of
// an hour together would take 20 MB, and be out of the processor's cache
// again when they are used. It is not safe for concurrent use.
type Sequence struct {
	batches []*Batch
	rows    int
	order   []int32 // rows, counted through all batches; nil: as they come

	// What Column returns: of several batches, or put in order, with memory that each column
	// in turn uses, but for the dictionaries.
	joined        []Vector
	part, ordered Vector
	joins, orders memory
}

// memory is that of a column's rows.
type memory struct {
	ints  []int64
	valid []bool
	codes []uint32
}

// Set makes it the sequence of these batches, of which nothing may change as long
// as it is in use. Memory is used again.
func (s *Sequence) Set(batches ...*Batch) {
	s.Forget()
	s.batches = batches
	sorted, last := true, int64(0)
	for _, b := range batches {
		times := b.Columns[Time].Ints
		if len(times) == 0 {
			continue
		}
		sorted = sorted && slices.IsSorted(times) && (s.rows == 0 || times[0] >= last)
		last = times[len(times)-1]
		s.rows += len(times)
	}
	if !sorted {
		s.order = timeOrder(s.join(Time, 0, s.rows).Ints)
	}
}

// Forget lets go of the batches and of their texts.
func (s *Sequence) Forget() {
	s.batches, s.rows, s.order, s.part, s.ordered = nil, 0, nil, Vector{}, Vector{}
	for i := range s.joined {
		s.joined[i].forget()
	}
}

// Len returns the number of events.
func (s *Sequence) Len() int { return s.rows }

// Type returns that of the events. There must be batches, as for Column and Batch.
func (s *Sequence) Type() *Type { return s.batches[0].Type }

// Column returns a column of the events from one on and before another. It is good
// until the next call.
func (s *Sequence) Column(column, from, until int) *Vector {
	if s.order == nil {
		return s.join(column, from, until)
	}
	kind, all := s.Type().Columns[column].Kind, s.join(column, 0, s.rows)
	v := &s.ordered
	if all.absent {
		*v = Absent(kind, until-from)
		return v
	}
	*v = Vector{Dict: all.Dict}
	v.borrow(kind, &s.orders, until-from)
	v.gather(all, s.order[from:until])
	return v
}

// Batch returns a copy of some of the events, with no other texts than theirs.
func (s *Sequence) Batch(from, until int) *Batch {
	b := NewBatch(s.Type(), until-from)
	for i := range b.Columns {
		if v := s.Column(i, from, until); v.absent {
			b.addAbsent(i, until-from)
		} else {
			b.own(i)
			b.Columns[i].appendRows(v, nil)
		}
	}
	return b
}

// join returns a column of events as they come.
func (s *Sequence) join(column, from, until int) *Vector {
	if len(s.batches) == 1 {
		s.part = s.batches[0].Columns[column].Slice(from, until)
		return &s.part
	}
	t := s.Type()
	if s.joined == nil {
		s.joined = make([]Vector, len(t.Columns))
	}
	kind, v := t.Columns[column].Kind, &s.joined[column]
	v.forget()
	v.absent = true
	begin, rows := 0, 0 // of a batch; so many are joined
	for _, b := range s.batches {
		first, end := max(from-begin, 0), min(until-begin, b.Len())
		begin += b.Len()
		if first >= end {
			continue
		}
		src := b.Columns[column].Slice(first, end)
		if v.absent && !src.absent {
			v.absent = false
			v.borrow(kind, &s.joins, until-from)
			v.addZeros(rows)
		}
		switch {
		case src.absent && !v.absent:
			v.addZeros(end - first)
		case !src.absent:
			v.appendRows(&src, nil)
		}
		rows += end - first
	}
	if v.absent {
		s.part = Absent(kind, until-from)
		return &s.part
	}
	return v
}

// borrow gives a vector memory for rows, of which it has none yet.
func (v *Vector) borrow(kind Kind, m *memory, rows int) {
	if kind.hasInts() {
		m.ints = slices.Grow(m.ints[:0], rows)
		v.Ints = m.ints
	}
	if kind.hasValid() {
		m.valid = slices.Grow(m.valid[:0], rows)
		v.Valid = m.valid
	}
	if kind.hasCodes() {
		m.codes = slices.Grow(m.codes[:0], rows)
		v.Codes = m.codes
	}
}

// forget lets go of everything but the memory of the dictionary.
func (v *Vector) forget() {
	clear(v.Dict)
	clear(v.index)
	*v = Vector{Dict: v.Dict[:0], index: v.index}
}
