package block

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// Picking reads a few rows of a page. It decompresses what decoding does, but
// goes past the values that are not wanted.

// readRows reads some rows, in ascending order.
func (c *column) readRows(all int, rows []int32, s *scratch) (event.Vector, error) {
	v := event.Absent(c.kind, len(rows)) // until a page has a value
	ids := idParser{}
	done := 0
	err := c.eachPage(all, func(p *page, first int) error {
		n, _ := slices.BinarySearch(rows[done:], int32(first+p.rows))
		if n == 0 {
			return nil
		}
		if p.nulls == p.rows {
			done += n
			return nil
		}
		if v.Absent() {
			v = event.NewVector(c.kind, len(rows))
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
	if err == nil && c.isText() && !v.Absent() {
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

// appendPlaces appends the places of those of n indexes that are the one wanted.
func appendPlaces(places []int32, wanted uint32, n int, src []byte) ([]int32, error) {
	h, err := indexes(src)
	if err != nil {
		return places, err
	}
	for first := 0; first < n; {
		length, packed, value, err := h.next(n - first)
		switch {
		case err != nil:
			return places, err
		case packed != nil:
			places = appendPacked(places, wanted, first, length, packed, h.width)
		case value == wanted:
			for i := range length {
				places = append(places, int32(first+i))
			}
		}
		first += length
	}
	return places, nil
}

// appendPacked is for packed indexes, of which the first is at a place. Eight at a
// time it looks whether any can be the one wanted: most are not.
func appendPacked(places []int32, wanted uint32, at, n int, src []byte, width uint) []int32 {
	if width <= 16 && wanted>>width == 0 {
		ones := 1 | 1<<width | 1<<(2*width) | uint64(1)<<(3*width)
		four, same, high := ones<<width-ones, uint64(wanted)*ones, ones<<(width-1)
		half, shift := 4*width>>3, 4*width&7
		for ; n >= 8 && uint(len(src)) >= half+8; at, n, src = at+8, n-8, src[width:] {
			a := (binary.LittleEndian.Uint64(src) ^ same) & four // 0 in the place of one that is wanted
			b := (binary.LittleEndian.Uint64(src[half:])>>shift ^ same) & four
			if ((a-ones)&^a|(b-ones)&^b)&high != 0 { // nothing but a 0 borrows
				places = appendEach(places, wanted, at, 8, src, width)
			}
		}
	}
	return appendEach(places, wanted, at, n, src, width)
}

func appendEach(places []int32, wanted uint32, at, n int, src []byte, width uint) []int32 {
	mask := uint64(1)<<width - 1
	for i := range uint(n) {
		if uint32(load(src, i*width>>3)>>(i*width&7)&mask) == wanted {
			places = append(places, int32(at)+int32(i))
		}
	}
	return places
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
