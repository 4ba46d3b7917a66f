package block

import (
	"fmt"
	"slices"
	"sync"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// column is a column of a block.
type column struct {
	kind       event.Kind
	begin, end int // of the pages, in the file; equal if the block lacks the column
	codec      format.CompressionCodec
	optional   bool

	file  []byte // from begin to end, see Block.Rebase
	pages []page // those of data, from when one is needed
	dict  dictionary
}

// scratch is memory that reading reuses.
type scratch struct {
	page    []byte // decompressed
	indexes []uint32
	ints    []int64
	valid   []bool
	rows    []int32  // wanted, of a page
	places  []int32  // of their values in it
	known   []uint32 // by code, zeros when not in use
	used    []uint32 // codes
	keep    bool     // pages are decompressed to be kept, see Block.Keep
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// sized returns a slice of n elements of any content, in the same memory if
// there is room.
func sized[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// grown returns a slice of at least n elements: those of s, and zeros.
func grown[T any](s []T, n int) []T { return append(s, make([]T, max(0, n-len(s)))...) }

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

// readRange decodes the pages that rows from first on and before end are in, into
// memory that may have been used before.
func (c *column) readRange(rows, first, end int, memory *event.Vector, s *scratch) (event.Vector, error) {
	before, behind := first, end // of these pages
	present := 0                 // in all pages
	err := c.eachPage(rows, func(p *page, begin int) error {
		if begin <= first {
			before = begin
		}
		if begin < end {
			behind = begin + p.rows
		}
		present += p.rows - p.nulls
		return nil
	})
	if err == nil && present == 0 {
		return event.Absent(c.kind, end-first), nil
	}
	v := memory.Reuse(c.kind, behind-before)
	ids := idParser{}
	if err == nil {
		err = c.eachPage(rows, func(p *page, begin int) error {
			if begin < before || begin >= behind {
				return nil
			}
			part := v.Slice(begin-before, begin-before+p.rows)
			return c.decode(&part, p, &ids, s)
		})
	}
	v = v.Slice(first-before, end-before)
	v.Dict = ids.scopes
	switch {
	case err != nil || !c.isText():
	case 2*(end-first) < rows: // most texts are not in use
		v.Dict, err = c.dict.used(c.kind, v.Codes, s)
	default:
		v.Dict, err = c.dict.all(c.kind)
	}
	return v, err
}

// eachPage calls do with the pages of data and the row at which each begins.
// A column that the block lacks has none.
func (c *column) eachPage(rows int, do func(p *page, first int) error) error {
	if err := c.load(rows); err != nil {
		return err
	}
	first := 0
	for i := range c.pages {
		p := &c.pages[i]
		p.locate(c.file)
		if err := do(p, first); err != nil {
			return fmt.Errorf("read page at row %d: %w", first, err)
		}
		first += p.rows
	}
	return nil
}

// load finds the pages and reads the dictionary, once, however often the column
// is read.
func (c *column) load(rows int) error {
	if c.begin == c.end || c.pages != nil {
		return nil
	}
	var pages []page
	rest := c.file
	for first := 0; first < rows; {
		p, after, err := nextPage(rest)
		if err != nil {
			return err
		}
		p.end = len(c.file) - len(after)
		p.to = p.end - len(p.body)
		p.at = p.to - len(p.levels)
		rest = after
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
		pages = append(pages, p)
		first += p.rows
	}
	c.pages = pages
	return nil
}

// values returns the values of a page, decompressed.
func (c *column) values(p *page, s *scratch) ([]byte, error) {
	switch {
	case p.kept != nil:
		return p.kept, nil
	case !s.keep || !p.isCompressed(c.codec):
		return p.values(c.codec, &s.page)
	}
	var own []byte
	values, err := p.values(c.codec, &own)
	if err == nil {
		p.kept = values
	}
	return values, err
}

// decode decodes a page into as many rows of a vector, whatever they hold.
func (c *column) decode(v *event.Vector, p *page, ids *idParser, s *scratch) error {
	present := p.rows - p.nulls
	if present == 0 {
		v.Clear()
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
	values, err := c.values(p, s)
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
