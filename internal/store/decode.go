package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// chunk is a decompressed chunk whose columns are decoded when they are asked for.
type chunk struct {
	chunkHeader
	schema  *schema
	body    []byte
	columns [][]byte // of body, as in schema.Columns; nil: no event has a value

	reuse   bool           // what batch returns lies where that of the chunk opened before did
	events  event.Batch    // with reuse
	vectors []event.Vector // with reuse, the memory of its columns
}

// open checks and decompresses a chunk. It keeps no reference to the value.
func (c *codec) open(value []byte, all *schemas) (*chunk, error) {
	k := new(chunk)
	return k, c.openInto(k, value, all)
}

// openInto is open into the memory of another chunk, which is good no more.
func (c *codec) openInto(k *chunk, value []byte, all *schemas) error {
	h, err := readChunkHeader(value)
	if err != nil {
		return err
	}
	if sum := crc32.Checksum(value[5:], castagnoli); sum != binary.BigEndian.Uint32(value[1:]) {
		return fmt.Errorf("chunk is damaged: its checksum is %08x and should be %08x", sum, binary.BigEndian.Uint32(value[1:]))
	}
	s, ok := all.byNumber[h.schemaNumber]
	if !ok {
		return fmt.Errorf("chunk has schema %d, which is not in the file", h.schemaNumber)
	}
	body, err := c.decoder.DecodeAll(value[chunkHeaderSize:], k.body[:0])
	if err != nil {
		return fmt.Errorf("decompress chunk: %w", err)
	}
	k.chunkHeader, k.schema, k.body = h, s, body
	return k.split()
}

// split finds the columns in the body.
func (k *chunk) split() error {
	k.columns = slices.Grow(k.columns[:0], len(k.schema.Columns))[:len(k.schema.Columns)]
	clear(k.columns)
	r := reader{data: k.body}
	for len(r.data) > 0 && r.err == nil {
		i := r.length(uint64(len(k.columns)))
		data := r.bytes()
		if i >= len(k.columns) {
			return fmt.Errorf("chunk has a column %d, and %s has %d", i, k.schema.Name, len(k.columns))
		}
		k.columns[i] = data
	}
	return r.err
}

// column returns the data of a column; nil if the chunk lacks it or has it as another kind.
func (k *chunk) column(c event.Column) []byte {
	at := slices.IndexFunc(k.schema.Columns, func(of schemaColumn) bool { return of.Name == c.Name })
	if at < 0 || kindOf(k.schema.Columns[at].Kind) != c.Kind {
		return nil
	}
	return k.columns[at]
}

// batch returns the events of a chunk with the columns that are asked for, as a
// type declares them now, and time. The others are empty until fill.
func (k *chunk) batch(t *event.Type, columns []int) (*event.Batch, error) {
	b := new(event.Batch)
	if k.reuse {
		b = &k.events
	}
	b.Type, b.Columns = t, slices.Grow(b.Columns[:0], len(t.Columns))[:len(t.Columns)]
	clear(b.Columns)
	if err := k.fill(b, []int{event.Time}); err != nil {
		return nil, err
	}
	return b, k.fill(b, columns)
}

// vector returns a column without any value yet.
func (k *chunk) vector(column int, kind event.Kind) event.Vector {
	if !k.reuse {
		return event.NewVector(kind, k.rows)
	}
	for len(k.vectors) <= column {
		k.vectors = append(k.vectors, event.Vector{})
	}
	v := k.vectors[column].Reuse(kind, k.rows)
	v.Clear()
	return v
}

// fill decodes columns that the batch does not have yet. One that the chunk
// lacks or has as another kind is absent in all its events.
func (k *chunk) fill(b *event.Batch, columns []int) error {
	for _, i := range columns {
		c, v := b.Type.Columns[i], &b.Columns[i]
		if v.Ints != nil || v.Codes != nil {
			continue
		}
		data := k.column(c)
		if len(data) == 0 && c.Kind != event.KindTime {
			*v = event.Absent(c.Kind, k.rows)
			continue
		}
		*v = k.vector(i, c.Kind)
		r := reader{data: data}
		switch c.Kind {
		case event.KindTime:
			r.times(v.Ints, k.chunkHeader)
		case event.KindInt:
			r.ints(v)
		case event.KindString, event.KindIP:
			r.texts(v, c.Kind)
		case event.KindID:
			r.texts(v, c.Kind)
			r.numbers(v)
		}
		if r.err == nil && len(r.data) > 0 {
			r.err = fmt.Errorf("%d bytes too many", len(r.data))
		}
		if r.err != nil {
			return fmt.Errorf("decode column %s: %w", c.Name, r.err)
		}
	}
	return nil
}

// reader takes values off the front of data. After the first error, which it
// keeps, it returns zeros.
type reader struct {
	data []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.data = nil
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.fail("data ends early")
		return 0
	}
	r.data = r.data[size:]
	return n
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.data)
	if size <= 0 {
		r.fail("data ends early")
		return 0
	}
	r.data = r.data[size:]
	return n
}

// length reads a number that must not be above a limit.
func (r *reader) length(limit uint64) int {
	n := r.uvarint()
	if n > limit {
		r.fail("length %d is above %d", n, limit)
		return 0
	}
	return int(n)
}

// bytes reads a length and so many bytes.
func (r *reader) bytes() []byte {
	n := r.length(math.MaxInt32)
	if n > len(r.data) {
		r.fail("data ends early")
		return nil
	}
	taken := r.data[:n]
	r.data = r.data[n:]
	return taken
}

func (r *reader) times(times []int64, h chunkHeader) {
	last := h.min
	for i := range times {
		step := r.uvarint()
		if step > uint64(h.max)-uint64(last) {
			r.fail("time is after the last one of the chunk")
			break
		}
		last += int64(step)
		times[i] = last
	}
	if r.err == nil && (times[0] != h.min || last != h.max) {
		r.fail("times are not those of the chunk's header")
	}
}

func (r *reader) ints(v *event.Vector) {
	size := (len(v.Ints) + 7) / 8
	if len(r.data) < size {
		r.fail("data ends early")
		return
	}
	bits := r.data[:size]
	r.data = r.data[size:]
	var last int64
	for i := 0; i < len(v.Ints) && r.err == nil; i++ {
		if bits[i/8]&(1<<(i%8)) != 0 {
			last += r.varint()
			v.Ints[i], v.Valid[i] = last, true
		}
	}
}

func (r *reader) texts(v *event.Vector, kind event.Kind) {
	n := r.length(uint64(len(v.Codes)))
	v.Dict = make([]string, 0, n)
	for len(v.Dict) < n && r.err == nil {
		s := r.bytes()
		if kind == event.KindIP && len(s) != 4 && len(s) != 16 {
			r.fail("an address of %d bytes", len(s))
		}
		v.Dict = append(v.Dict, string(s))
	}
	for i := 0; i < len(v.Codes) && r.err == nil; i++ {
		v.Codes[i] = uint32(r.length(uint64(n)))
	}
}

func (r *reader) numbers(v *event.Vector) {
	var last int64
	for i := 0; i < len(v.Ints) && r.err == nil; i++ {
		if v.Codes[i] != 0 {
			last += r.varint()
			v.Ints[i] = last
		}
	}
}
