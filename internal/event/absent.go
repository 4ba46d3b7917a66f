package event

import "slices"

// sharedRows is how many rows a column may have that takes no memory.
const sharedRows = 1 << 17

// What columns without any value hold: all share these, and nobody writes there.
var (
	noInts  [sharedRows]int64
	noValid [sharedRows]bool
	noCodes [sharedRows]uint32
)

// Absent returns a column of so many rows in which no event has a value. It takes
// no memory of its own, up to sharedRows.
func Absent(kind Kind, rows int) (v Vector) {
	if rows > sharedRows {
		return NewVector(kind, rows)
	}
	v.absent = true
	if kind.hasInts() {
		v.Ints = noInts[:rows]
	}
	if kind.hasValid() {
		v.Valid = noValid[:rows]
	}
	if kind.hasCodes() {
		v.Codes = noCodes[:rows]
	}
	return v
}

// Which slices of a vector are in use.
func (k Kind) hasInts() bool  { return k == KindInt || k == KindTime || k == KindID }
func (k Kind) hasValid() bool { return k == KindInt }
func (k Kind) hasCodes() bool { return k == KindString || k == KindIP || k == KindID }

// setLen changes how many rows there are, within the vector's memory. Only lengths
// are written: a new slice would be more work for the garbage collector.
func (v *Vector) setLen(rows int) {
	if v.Ints != nil {
		v.Ints = v.Ints[:rows]
	}
	if v.Valid != nil {
		v.Valid = v.Valid[:rows]
	}
	if v.Codes != nil {
		v.Codes = v.Codes[:rows]
	}
}

// Absent tells, without a look at the rows, that none has a value. False says
// nothing.
func (v *Vector) Absent() bool { return v.absent }

// NewVector returns a column of so many rows, with memory of its own, in which no
// event has a value yet.
func NewVector(kind Kind, rows int) (v Vector) {
	v.make(kind, rows, rows)
	return v
}

// Reuse returns a column of so many rows of any content, in the vector's memory
// if there is enough, which it keeps for the next. The column is good until then.
func (v *Vector) Reuse(kind Kind, rows int) (column Vector) {
	if kind.hasInts() {
		v.Ints = slices.Grow(v.Ints[:0], rows)[:rows]
		column.Ints = v.Ints[:rows:rows]
	}
	if kind.hasValid() {
		v.Valid = slices.Grow(v.Valid[:0], rows)[:rows]
		column.Valid = v.Valid[:rows:rows]
	}
	if kind.hasCodes() {
		v.Codes = slices.Grow(v.Codes[:0], rows)[:rows]
		column.Codes = v.Codes[:rows:rows]
	}
	return column
}

// Clear makes all values absent. The memory must be the vector's own.
func (v *Vector) Clear() {
	clear(v.Ints)
	clear(v.Valid)
	clear(v.Codes)
}

// Slice returns some rows, in the vector's memory.
func (v *Vector) Slice(from, until int) Vector {
	part := Vector{Dict: v.Dict, absent: v.absent}
	if v.Ints != nil {
		part.Ints = v.Ints[from:until:until]
	}
	if v.Valid != nil {
		part.Valid = v.Valid[from:until:until]
	}
	if v.Codes != nil {
		part.Codes = v.Codes[from:until:until]
	}
	return part
}

func (v *Vector) len() int { return max(len(v.Ints), len(v.Codes)) }

// make gives the vector memory of its own, with so many absent values.
func (v *Vector) make(kind Kind, rows, capacity int) {
	v.absent = false
	if kind.hasInts() {
		v.Ints = make([]int64, rows, capacity)
	}
	if kind.hasValid() {
		v.Valid = make([]bool, rows, capacity)
	}
	if kind.hasCodes() {
		v.Codes = make([]uint32, rows, capacity)
	}
}

// own gives a column memory of its own, so that it can be written to.
func (b *Batch) own(column int) {
	v := &b.Columns[column]
	rows := v.len()
	v.make(b.Type.Columns[column].Kind, rows, max(rows, cap(b.Columns[Time].Ints)))
}

// addAbsent adds absent values to a column.
func (b *Batch) addAbsent(column, rows int) {
	v := &b.Columns[column]
	if all := v.len() + rows; v.absent && all <= sharedRows {
		v.setLen(all)
		return
	}
	if v.absent {
		b.own(column)
	}
	v.addZeros(rows)
}

// addZeros adds absent values; it needs memory of the vector's own.
func (v *Vector) addZeros(rows int) {
	v.Ints, v.Valid, v.Codes = addZeros(v.Ints, rows), addZeros(v.Valid, rows), addZeros(v.Codes, rows)
}

func addZeros[T any](s []T, n int) []T {
	if s == nil { // the column has none
		return nil
	}
	begin := len(s)
	s = slices.Grow(s, n)[:begin+n]
	clear(s[begin:])
	return s
}
