package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/srodi/ebpf-server/internal/event"
)

// chunk is a decompressed chunk whose columns are decoded when they are asked for.
type chunk struct {
	chunkHeader
	schema  *schema
	columns map[string]columnData
}

type columnData struct {
	kind event.Kind
	data []byte
}

// open checks and decompresses a chunk. It keeps no reference to the value.
func (c *codec) open(value []byte, all *schemas) (*chunk, error) {
	h, err := readChunkHeader(value)
	if err != nil {
		return nil, err
	}
	if sum := crc32.Checksum(value[5:], castagnoli); sum != binary.BigEndian.Uint32(value[1:]) {
		return nil, fmt.Errorf("chunk is damaged: its checksum is %08x and should be %08x", sum, binary.BigEndian.Uint32(value[1:]))
	}
	s, ok := all.byNumber[h.schemaNumber]
	if !ok {
		return nil, fmt.Errorf("chunk has schema %d, which is not in the file", h.schemaNumber)
	}
	body, err := c.decoder.DecodeAll(value[chunkHeaderSize:], nil)
	if err != nil {
		return nil, fmt.Errorf("decompress chunk: %w", err)
	}
	k := &chunk{chunkHeader: h, schema: s, columns: make(map[string]columnData, len(s.Columns))}
	return k, k.split(body)
}

// split finds the columns in a body.
func (k *chunk) split(body []byte) error {
	r := reader{data: body}
	for len(r.data) > 0 && r.err == nil {
		i := r.length(uint64(len(k.schema.Columns)))
		data := r.bytes()
		if i >= len(k.schema.Columns) {
			return fmt.Errorf("chunk has a column %d, and %s has %d", i, k.schema.Name, len(k.schema.Columns))
		}
		c := k.schema.Columns[i]
		k.columns[c.Name] = columnData{kindOf(c.Kind), data}
	}
	return r.err
}

// batch returns the events of a chunk with the columns that are asked for, as a
// type declares them now, and time. The others are empty until fill.
func (k *chunk) batch(t *event.Type, columns []int) (*event.Batch, error) {
	b := &event.Batch{Type: t, Columns: make([]event.Vector, len(t.Columns))}
	if err := k.fill(b, []int{event.Time}); err != nil {
		return nil, err
	}
	return b, k.fill(b, columns)
}

// fill decodes columns that the batch does not have yet. One that the chunk
// lacks or has as another kind is absent in all its events.
func (k *chunk) fill(b *event.Batch, columns []int) error {
	for _, i := range columns {
		c, v := b.Type.Columns[i], &b.Columns[i]
		if v.Ints != nil || v.Codes != nil {
			continue
		}
		column := k.columns[c.Name]
		if column.kind != c.Kind {
			column.data = nil
		}
		if len(column.data) == 0 && c.Kind != event.KindTime {
			*v = event.Absent(c.Kind, k.rows)
			continue
		}
		r := reader{data: column.data}
		switch c.Kind {
		case event.KindTime:
			v.Ints = r.times(k.chunkHeader)
		case event.KindInt:
			r.ints(v, k.rows)
		case event.KindString, event.KindIP:
			r.texts(v, k.rows, c.Kind)
		case event.KindID:
			r.texts(v, k.rows, c.Kind)
			r.numbers(v, k.rows)
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

func (r *reader) times(h chunkHeader) []int64 {
	times := make([]int64, h.rows)
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
	return times
}

func (r *reader) ints(v *event.Vector, rows int) {
	v.Ints, v.Valid = make([]int64, rows), make([]bool, rows)
	size := (rows + 7) / 8
	if len(r.data) < size {
		r.fail("data ends early")
		return
	}
	bits := r.data[:size]
	r.data = r.data[size:]
	var last int64
	for i := 0; i < rows && r.err == nil; i++ {
		if bits[i/8]&(1<<(i%8)) != 0 {
			last += r.varint()
			v.Ints[i], v.Valid[i] = last, true
		}
	}
}

func (r *reader) texts(v *event.Vector, rows int, kind event.Kind) {
	v.Codes = make([]uint32, rows)
	n := r.length(uint64(rows))
	v.Dict = make([]string, 0, n)
	for len(v.Dict) < n && r.err == nil {
		s := r.bytes()
		if kind == event.KindIP && len(s) != 4 && len(s) != 16 {
			r.fail("an address of %d bytes", len(s))
		}
		v.Dict = append(v.Dict, string(s))
	}
	for i := 0; i < rows && r.err == nil; i++ {
		v.Codes[i] = uint32(r.length(uint64(n)))
	}
}

func (r *reader) numbers(v *event.Vector, rows int) {
	v.Ints = make([]int64, rows)
	var last int64
	for i := 0; i < rows && r.err == nil; i++ {
		if v.Codes[i] != 0 {
			last += r.varint()
			v.Ints[i] = last
		}
	}
}
