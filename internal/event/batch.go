package event

import "net/netip"

// Vector holds the values of one column of a batch, one entry per row.
// Which of the slices are in use follows from the column's kind:
//
//	KindTime    Ints
//	KindInt     Ints, Valid
//	KindString  Codes, Dict
//	KindIP      Codes, Dict (raw address bytes)
//	KindID      Codes, Dict (the scope), Ints (the number)
type Vector struct {
	Ints  []int64 // 0 where absent
	Valid []bool
	Codes []uint32 // 0 where absent, else 1 + position in Dict
	Dict  []string // the distinct values, in order of first use

	index  map[string]uint32 // value to code, for writing
	absent bool              // no row has a value, and the memory is not this vector's
}

// Batch is events of one type, column by column. It grows by Append and the
// Set functions, which write to the newest row; what is not set is absent.
// A batch has one owner at a time and is not safe for concurrent use, but once
// nobody writes to it any more, any number of goroutines may read it.
type Batch struct {
	Type    *Type
	Columns []Vector // as in Type.Columns

	ahead int // see PrepareAhead
	spare int // so many rows more than times are in all other columns
}

// NewBatch returns an empty batch with room for capacity rows. A column takes
// memory when it gets its first value.
func NewBatch(t *Type, capacity int) *Batch {
	b := &Batch{Type: t, Columns: make([]Vector, len(t.Columns))}
	for i, c := range t.Columns {
		b.Columns[i] = Absent(c.Kind, 0)
	}
	b.Columns[Time].make(KindTime, 0, capacity)
	return b
}

// Len returns the number of events.
func (b *Batch) Len() int { return len(b.Columns[Time].Ints) }

// Weight returns how many its events stand for, see Type.Weight.
func (b *Batch) Weight() int64 {
	sum := int64(b.Len())
	if i, ok := b.Type.Column(b.Type.Weight); ok {
		for _, n := range b.Columns[i].Ints {
			sum += max(1, n) - 1
		}
	}
	return sum
}

// Append adds an event at a time in nanoseconds since the Unix epoch.
func (b *Batch) Append(unixNano int64) {
	if b.spare == 0 {
		b.spare = max(1, b.ahead)
		for i := range b.Columns {
			if i != Time {
				b.addAbsent(i, b.spare)
			}
		}
	}
	b.spare--
	b.Columns[Time].Ints = append(b.Columns[Time].Ints, unixNano)
}

// PrepareAhead makes Append prepare so many rows at once, which is quicker for who
// writes very many events. Nobody may read before Finish.
func (b *Batch) PrepareAhead(rows int) { b.ahead = rows }

// Finish gives up what only writing needs. One may still write, but it takes longer.
func (b *Batch) Finish() {
	b.trim()
	for i := range b.Columns {
		b.Columns[i].index = nil
	}
}

// trim removes rows that were prepared and are not in use.
func (b *Batch) trim() {
	if b.spare == 0 {
		return
	}
	b.spare = 0
	rows := b.Len()
	for i := range b.Columns {
		if v := &b.Columns[i]; i != Time {
			v.setLen(rows)
		}
	}
}

// SetInt gives the newest event a number; the column must be KindInt.
func (b *Batch) SetInt(column int, n int64) {
	v := &b.Columns[column]
	if v.absent {
		b.own(column)
	}
	row := b.Len() - 1
	v.Ints[row], v.Valid[row] = n, true
}

// SetString gives the newest event a text; the column must be KindString.
func (b *Batch) SetString(column int, s string) {
	v := &b.Columns[column]
	if v.absent {
		b.own(column)
	}
	row := b.Len() - 1
	if before := v.before(row); before != 0 && v.Dict[before-1] == s {
		v.Codes[row] = before
		return
	}
	v.Codes[row] = v.code(s)
}

// SetBytes is SetString for text that is not a string yet. It allocates only
// for a value that the batch does not hold so far.
func (b *Batch) SetBytes(column int, s []byte) {
	v := &b.Columns[column]
	if v.absent {
		b.own(column)
	}
	row := b.Len() - 1
	if before := v.before(row); before != 0 && v.Dict[before-1] == string(s) {
		v.Codes[row] = before
		return
	}
	code, known := v.index[string(s)]
	if !known {
		code = v.add(string(s))
	}
	v.Codes[row] = code
}

// before returns the code of the row before one, or 0: events that follow each other
// are often alike, which is quicker to see than to look for a text.
func (v *Vector) before(row int) uint32 {
	if row == 0 {
		return 0
	}
	return v.Codes[row-1]
}

// SetIP gives the newest event an address; the column must be KindIP.
// v4-mapped addresses become IPv4. An invalid address leaves it absent.
func (b *Batch) SetIP(column int, ip netip.Addr) {
	switch ip = ip.Unmap(); {
	case ip.Is4():
		raw := ip.As4()
		b.SetBytes(column, raw[:])
	case ip.Is6():
		raw := ip.As16()
		b.SetBytes(column, raw[:])
	}
}

// SetID gives the newest event an id; the column must be KindID.
func (b *Batch) SetID(column int, scope string, n int64) {
	b.SetString(column, scope)
	b.Columns[column].Ints[b.Len()-1] = n
}

func (v *Vector) code(s string) uint32 {
	if code, known := v.index[s]; known {
		return code
	}
	return v.add(s)
}

func (v *Vector) add(s string) uint32 {
	if v.index == nil {
		v.index = make(map[string]uint32)
		for i, known := range v.Dict {
			v.index[known] = uint32(i) + 1
		}
		if code, known := v.index[s]; known {
			return code
		}
	}
	v.Dict = append(v.Dict, s)
	code := uint32(len(v.Dict))
	v.index[s] = code
	return code
}

// AppendRows adds copies of rows of another batch of the same type, nil for
// all of them. It goes column by column and is the quick way to join batches.
func (b *Batch) AppendRows(from *Batch, rows []int32) {
	b.trim()
	for i := range b.Columns {
		v, src := &b.Columns[i], &from.Columns[i]
		switch {
		case src.absent && rows == nil:
			b.addAbsent(i, src.len())
			continue
		case src.absent:
			b.addAbsent(i, len(rows))
			continue
		case v.absent && (src.Ints != nil || src.Codes != nil):
			b.own(i)
		}
		v.appendRows(src, rows)
	}
}

// appendRows needs memory of the vector's own.
func (v *Vector) appendRows(src *Vector, rows []int32) {
	begin := len(v.Codes)
	v.gather(src, rows)
	known := make([]uint32, 1+len(src.Dict)) // code there to code here
	codes := v.Codes[begin:]
	for k, code := range codes {
		own := known[code]
		if own == 0 && code != 0 {
			own = v.code(src.Dict[code-1])
			known[code] = own
		}
		codes[k] = own
	}
}

// gather takes codes as they are.
func (v *Vector) gather(src *Vector, rows []int32) {
	v.Ints = gather(v.Ints, src.Ints, rows)
	v.Valid = gather(v.Valid, src.Valid, rows)
	v.Codes = gather(v.Codes, src.Codes, rows)
}

func gather[T any](dst, src []T, rows []int32) []T {
	if rows == nil || len(src) == 0 {
		return append(dst, src...)
	}
	for _, row := range rows {
		dst = append(dst, src[row])
	}
	return dst
}

// Row is one event of a batch.
type Row struct {
	Batch *Batch
	Index int
}

// Time returns when it happened, in nanoseconds since the Unix epoch.
func (r Row) Time() int64 { return r.Batch.Columns[Time].Ints[r.Index] }

// Int returns the number of a KindInt or KindTime column, and false where it is absent.
func (r Row) Int(column int) (int64, bool) {
	v := &r.Batch.Columns[column]
	return v.Ints[r.Index], v.Valid == nil || v.Valid[r.Index]
}

// String returns the text of a KindString column, the raw bytes of a KindIP
// column or the scope of a KindID column, and false where it is absent.
func (r Row) String(column int) (string, bool) {
	v := &r.Batch.Columns[column]
	code := v.Codes[r.Index]
	if code == 0 {
		return "", false
	}
	return v.Dict[code-1], true
}
