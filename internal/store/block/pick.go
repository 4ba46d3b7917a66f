package block

import (
	"math/bits"
	"slices"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// Picking reads a few rows of a page. It decompresses what decoding does, but
// goes past the values that are not wanted.

// readRows reads some rows, in ascending order.
func (c *column) readRows(all int, rows []int32, s *scratch) (event.Vector, error) {
	v := event.NewVector(c.kind, len(rows))
	ids := idParser{}
	done := 0
	err := c.eachPage(all, func(p *page, first int) error {
		n, _ := slices.BinarySearch(rows[done:], int32(first+p.rows))
		if n == 0 {
			return nil
		}
		s.rows = sized(s.rows, n)
		for i, row := range rows[done : done+n] {
			s.rows[i] = row - int32(first)
		}
		part := v.Slice(done, done+n)
		done += n
		return c.pick(&part, p, &ids, s)
	})
	v.Dict = ids.scopes
	if err == nil && c.isText() {
		v.Dict, err = c.dict.used(c.kind, v.Codes, s)
	}
	return v, err
}

// pick sets an empty vector to the rows in s.rows of a page.
func (c *column) pick(v *event.Vector, p *page, ids *idParser, s *scratch) error {
	valid, places := v.Valid, s.rows
	if valid == nil {
		s.valid = sized(s.valid, len(s.rows))
		valid = s.valid
	}
	if p.nulls == 0 {
		fill(valid, true)
	} else {
		s.places = sized(s.places, len(s.rows))
		n, err := pickLevels(valid, s.places, s.rows, p)
		if n == 0 || err != nil {
			return err
		}
		places = s.places[:n]
	}
	values, err := c.values(p, s)
	if err != nil {
		return err
	}
	n := len(places)
	switch {
	case c.kind == event.KindID:
		err = ids.pick(v.Ints[:n], v.Codes[:n], places, p.encoding, values)
	case c.isText():
		err = c.pickCodes(v.Codes[:n], places, p.encoding, values)
	default:
		err = c.pickInts(v.Ints[:n], places, p, values, s)
	}
	if err == nil && n < len(valid) {
		spreadVector(v, valid, n)
	}
	return err
}

// pickLevels sets which of some rows have a value, and the places of those
// values among all of the page. It returns how many there are.
func pickLevels(valid []bool, places, rows []int32, p *page) (n int, err error) {
	h := hybrid{p.levels, 1}
	first, before := 0, 0 // row at which a run begins, and how many values stand before it
	for k := 0; k < len(rows); {
		passed, had := h.skipLevels(int(rows[k]) - first)
		first, before = first+passed, before+had
		length, packed, value, err := h.next(p.rows - first)
		if err != nil {
			return 0, err
		}
		counted, values := 0, 0 // rows of this run and values in them
		for ; k < len(rows) && int(rows[k]) < first+length; k++ {
			at := int(rows[k]) - first
			valid[k] = value == 1
			if packed != nil {
				values += countBits(packed, counted, at)
				valid[k] = packed[at>>3]>>(at&7)&1 == 1
			} else {
				values = at * int(value)
			}
			counted = at
			if valid[k] {
				places[n] = int32(before + values)
				n++
			}
		}
		if packed != nil {
			before += values + countBits(packed, counted, length)
		} else {
			before += length * int(value)
		}
		first += length
	}
	if present := p.rows - p.nulls; n > 0 && int(places[n-1]) >= present {
		return 0, errPresent(int(places[n-1])+1, present)
	}
	return n, nil
}

// countBits counts those that are set from one to another.
func countBits(src []byte, from, to int) (n int) {
	for from < to {
		take := min(64-from&7, to-from)
		n += bits.OnesCount64(load(src, uint(from>>3)) >> (from & 7) << (64 - take))
		from += take
	}
	return n
}

// pickIndexes reads the indexes at some places.
func pickIndexes(dst []uint32, places []int32, src []byte) error {
	h, err := indexes(src)
	if err != nil {
		return err
	}
	mask := uint64(1)<<h.width - 1
	first := 0
	for k := 0; k < len(places); {
		first += h.skip(int(places[k]) - first)
		n, packed, value, err := h.next(MaxRows)
		if err != nil {
			return err
		}
		for ; k < len(places) && int(places[k]) < first+n; k++ {
			dst[k] = value
			if packed != nil {
				bit := uint(int(places[k])-first) * h.width
				dst[k] = uint32(load(packed, bit>>3) >> (bit & 7) & mask)
			}
		}
		first += n
	}
	return nil
}

func (c *column) pickInts(dst []int64, places []int32, p *page, values []byte, s *scratch) error {
	switch p.encoding {
	case format.DeltaBinaryPacked:
		s.ints = sized(s.ints, int(places[len(places)-1])+1)
		if err := decodeDelta(s.ints, p.rows-p.nulls, values); err != nil {
			return err
		}
		for i, place := range places {
			dst[i] = s.ints[place]
		}
		return nil
	case format.RLEDictionary:
		s.indexes = sized(s.indexes, len(dst))
		if err := pickIndexes(s.indexes, places, values); err != nil {
			return err
		}
		return c.dict.numbersOf(dst, s.indexes)
	}
	return errEncoding(p.encoding)
}

func (c *column) pickCodes(dst []uint32, places []int32, encoding format.Encoding, values []byte) error {
	if encoding != format.RLEDictionary {
		return errEncoding(encoding)
	}
	if err := pickIndexes(dst, places, values); err != nil {
		return err
	}
	return c.dict.codesOf(dst)
}
