package block

import (
	"fmt"
	"slices"
	"sync"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// column is a column of a block. One that the block lacks has no pages.
type column struct {
	kind     event.Kind
	pages    []byte
	codec    format.CompressionCodec
	optional bool
	dict     dictionary
}

// scratch is memory that reading reuses.
type scratch struct {
	page    []byte // decompressed
	indexes []uint32
	ints    []int64
	valid   []bool
	rows    []int32 // wanted, of a page
	places  []int32 // of their values in it
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// sized returns a slice of n elements of any content, in the same memory if
// there is room.
func sized[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

func (c *column) isText() bool { return c.kind == event.KindString || c.kind == event.KindIP }

// fill doubles what is filled until all is, which takes far less time than one
// after the other.
func fill[T any](s []T, value T) {
	if len(s) > 0 {
		s[0] = value
	}
	for n := 1; n < len(s); n *= 2 {
		copy(s[n:], s[:n])
	}
}

// vector returns an empty vector of so many rows.
func (c *column) vector(rows int) (v event.Vector) {
	if !c.isText() {
		v.Ints = make([]int64, rows)
	}
	if c.kind == event.KindInt {
		v.Valid = make([]bool, rows)
	}
	if c.isText() || c.kind == event.KindID {
		v.Codes = make([]uint32, rows)
	}
	return v
}

// span returns some rows of a vector, for writing into it.
func span(v *event.Vector, from, to int) (part event.Vector) {
	if v.Ints != nil {
		part.Ints = v.Ints[from:to]
	}
	if v.Valid != nil {
		part.Valid = v.Valid[from:to]
	}
	if v.Codes != nil {
		part.Codes = v.Codes[from:to]
	}
	return part
}

// read decodes the whole column.
func (c *column) read(rows int, s *scratch) (event.Vector, error) {
	v := c.vector(rows)
	ids := idParser{}
	err := c.eachPage(rows, func(p *page, first int) error {
		part := span(&v, first, first+p.rows)
		return c.decode(&part, p, &ids, s)
	})
	v.Dict = ids.scopes
	if err == nil && c.isText() {
		v.Dict, err = c.dict.all(c.kind)
	}
	return v, err
}

// eachPage calls do with the pages of data and the row at which each begins.
// A column that the block lacks has none.
func (c *column) eachPage(rows int, do func(p *page, first int) error) error {
	if c.pages == nil {
		return nil
	}
	first := 0
	for data := c.pages; first < rows; {
		p, rest, err := nextPage(data)
		if err != nil {
			return err
		}
		data = rest
		switch p.kind {
		case format.DictionaryPage:
			if err := c.dict.load(&p, c.codec); err != nil {
				return fmt.Errorf("read dictionary: %w", err)
			}
			continue
		case format.DataPageV2:
		default:
			return fmt.Errorf("found a page of type %v; this program reads DATA_PAGE_V2", p.kind)
		}
		if p.rows == 0 || p.rows > rows-first || p.nulls > 0 && !c.optional {
			return fmt.Errorf("page of %d rows, %d of them empty, cannot stand at row %d of %d", p.rows, p.nulls, first, rows)
		}
		if err := do(&p, first); err != nil {
			return fmt.Errorf("read page at row %d: %w", first, err)
		}
		first += p.rows
	}
	return nil
}

// decode decodes a page into as many rows of an empty vector.
func (c *column) decode(v *event.Vector, p *page, ids *idParser, s *scratch) error {
	present := p.rows - p.nulls
	if present == 0 {
		return nil
	}
	valid := v.Valid
	if valid == nil {
		s.valid = sized(s.valid, p.rows)
		valid = s.valid
	}
	if p.nulls == 0 {
		fill(valid, true)
	} else if n, err := decodeLevels(valid, p.levels); err != nil {
		return err
	} else if n != present {
		return errPresent(n, present)
	}
	values, err := p.values(c.codec, &s.page)
	if err != nil {
		return err
	}
	switch {
	case c.kind == event.KindID:
		err = ids.decode(v.Ints[:present], v.Codes[:present], p.encoding, values)
	case c.isText():
		err = c.decodeCodes(v.Codes[:present], p.encoding, values)
	default:
		err = c.decodeInts(v.Ints[:present], p.encoding, values, s)
	}
	if err == nil && p.nulls > 0 {
		spreadVector(v, valid, present)
	}
	return err
}

func (c *column) decodeInts(dst []int64, encoding format.Encoding, values []byte, s *scratch) error {
	switch encoding {
	case format.DeltaBinaryPacked:
		return decodeDelta(dst, len(dst), values)
	case format.RLEDictionary:
		s.indexes = sized(s.indexes, len(dst))
		if err := decodeIndexes(s.indexes, values); err != nil {
			return err
		}
		return c.dict.numbersOf(dst, s.indexes)
	}
	return errEncoding(encoding)
}

func (c *column) decodeCodes(dst []uint32, encoding format.Encoding, values []byte) error {
	if encoding != format.RLEDictionary {
		return errEncoding(encoding)
	}
	if err := decodeIndexes(dst, values); err != nil {
		return err
	}
	return c.dict.codesOf(dst)
}

func spreadVector(v *event.Vector, valid []bool, present int) {
	if v.Ints != nil {
		spread(v.Ints, valid, present)
	}
	if v.Codes != nil {
		spread(v.Codes, valid, present)
	}
}

func errPresent(n, want int) error {
	return fmt.Errorf("%d rows have a value, and the page should have %d", n, want)
}

func errEncoding(e format.Encoding) error {
	return fmt.Errorf("values are encoded as %v, which this program does not read for such a column", e)
}
