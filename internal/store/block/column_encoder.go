package block

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// pageRows is a balance: to read one event is to decompress a page of each
	// column, but each page costs some 35 bytes and starts compression anew.
	// It is one more than a multiple of 128: parquet-go encodes differences in
	// blocks of so many, and wastes most of one that is not full.
	pageRows = 32*128 + 1
	// pageBits is how much the indexes of a page take: where there are few
	// different values a page has more rows, up to all.
	pageBits = 1 << 16
	// idPageRows is for ids, which before compression are larger by far.
	idPageRows = 2048
)

// columnEncoder makes the pages of one column after the other. All memory is
// used again for the next.
type columnEncoder struct {
	compressor *zstd.Encoder

	// The column's values are in one of indexes, ints and texts, as its
	// encoding has it.
	rows     int
	nulls    int
	levels   []uint8 // one for each row: 1 where it has a value
	encoding format.Encoding
	indexes  []int32 // in the dictionary
	ints     []int64
	texts    []byte // as PLAIN
	ends     []int  // 0, and where each value in texts ends

	codes   []uint32 // of numbers, as a Vector has them for texts
	numbers numberSet
	ranking ranking

	pages      []encodedPage
	plain      []byte // levels and values of pages of data
	compressed []byte // values of all pages
	one        []byte // levels or values of the page at hand
}

// encodedPage is a page on its way to the file.
type encodedPage struct {
	kind        format.PageType
	encoding    format.Encoding
	rows, nulls int
	levels      []byte
	values      []byte
	compressed  []byte // the values again
}

func (e *columnEncoder) reset(rows int) {
	e.rows, e.nulls, e.levels = rows, 0, e.levels[:0]
	e.indexes, e.ints, e.texts, e.ends = e.indexes[:0], e.ints[:0], e.texts[:0], append(e.ends[:0], 0)
	e.pages, e.plain, e.compressed = e.pages[:0], e.plain[:0], e.compressed[:0]
}

// encodeConstant makes the pages of a column that has the same text in each
// row and cannot be absent.
func (e *columnEncoder) encodeConstant(text string, rows int) {
	e.reset(rows)
	e.texts = appendText(e.texts, text)
	e.addDictionary(1)
	e.indexes = sized(e.indexes, rows)
	clear(e.indexes)
	e.addPages(rows)
}

// encode makes the pages of a vector, none if no row has a value: a block lacks
// such a column, as those of connections lack a dozen on most hosts.
func (e *columnEncoder) encode(v *event.Vector, kind event.Kind, rows int) (err error) {
	e.reset(rows)
	perPage := pageRows
	switch {
	case v.Absent():
		e.nulls = rows
	case kind == event.KindTime:
		e.encoding, e.ints = format.DeltaBinaryPacked, append(e.ints, v.Ints...)
	case kind == event.KindInt:
		e.levels, e.nulls = appendLevels(e.levels, v.Valid)
		e.encodeInts(v)
	case kind == event.KindString, kind == event.KindIP:
		e.levels, e.nulls = appendLevels(e.levels, v.Codes)
		err = e.encodeTexts(v, kind)
	case kind == event.KindID:
		e.levels, e.nulls = appendLevels(e.levels, v.Codes)
		e.encodeIDs(v)
		perPage = idPageRows
	}
	switch {
	case err != nil:
		return err
	case e.nulls == rows:
		return nil
	case e.encoding == format.RLEDictionary:
		perPage = max(pageRows, pageBits/max(1, bits.Len(uint(e.pages[0].rows-1))))
		perPage -= perPage % 8 // so that levels fill their bytes
	}
	e.addPages(perPage)
	for _, p := range e.pages {
		if size := len(p.levels) + len(p.values); size > maxPage {
			return fmt.Errorf("page of %d bytes: %w", size, ErrTooLarge)
		}
	}
	return nil
}

// appendLevels appends 1 for a value and 0 for an absent one, which is the
// zero of its type, and counts the latter.
func appendLevels[T bool | uint32](dst []uint8, values []T) (levels []uint8, nulls int) {
	begin := len(dst)
	dst = slices.Grow(dst, len(values))[:begin+len(values)]
	var absent T
	for i, v := range values {
		level := uint8(0)
		if v != absent {
			level = 1
		}
		dst[begin+i] = level
	}
	return dst, len(values) - bytes.Count(dst[begin:], []byte{1})
}

// encodeInts takes a dictionary where a number occurs eight times or more, on
// average, and differences otherwise.
func (e *columnEncoder) encodeInts(v *event.Vector) {
	e.codes = sized(e.codes, e.rows)
	if e.numbers.encode(e.codes, v, max(64, (e.rows-e.nulls)/8)) {
		order := e.rank(e.codes, len(e.numbers.values))
		for _, code := range order {
			e.texts = binary.LittleEndian.AppendUint64(e.texts, uint64(e.numbers.values[code-1]))
		}
		e.addDictionary(len(order))
		return
	}
	e.encoding = format.DeltaBinaryPacked
	for i, n := range v.Ints {
		if v.Valid[i] {
			e.ints = append(e.ints, n)
		}
	}
}

// differentInts returns the different values of the vector that was just encoded.
func (e *columnEncoder) differentInts(v *event.Vector) []int64 {
	if v.Absent() {
		return nil
	}
	if e.encoding != format.RLEDictionary { // it gave up
		e.numbers.reset()
		for i, n := range v.Ints {
			if v.Valid[i] {
				e.numbers.code(n)
			}
		}
	}
	return e.numbers.values
}

// differentTexts returns the codes of the different values of the vector that was just
// encoded.
func (e *columnEncoder) differentTexts(v *event.Vector) []uint32 {
	if v.Absent() {
		return nil
	}
	return e.ranking.order
}

func (e *columnEncoder) encodeTexts(v *event.Vector, kind event.Kind) (err error) {
	order := e.rank(v.Codes, len(v.Dict))
	for _, code := range order {
		if text := v.Dict[code-1]; kind == event.KindString {
			e.texts = appendText(e.texts, validText(text))
		} else if e.texts, err = appendIP(e.texts, text); err != nil {
			return err
		}
	}
	e.addDictionary(len(order))
	return nil
}

// encodeIDs writes them in full: what makes them small is that most begin as
// the one before, and that one which ends a connection was seen not long ago.
func (e *columnEncoder) encodeIDs(v *event.Vector) {
	e.encoding = format.Plain
	prefixes := make([]string, len(v.Dict))
	for k, scope := range v.Dict {
		prefixes[k] = validText(scope) + "-"
	}
	for i, code := range v.Codes {
		if code != 0 {
			e.texts = appendID(e.texts, prefixes[code-1], v.Ints[i])
			e.ends = append(e.ends, len(e.texts))
		}
	}
}

// rank sets indexes and returns the codes of the dictionary's entries: those
// that are in use, the most frequent first, because small indexes that occur
// often compress better.
func (e *columnEncoder) rank(codes []uint32, entries int) (order []uint32) {
	order, ranks := e.ranking.of(codes, entries)
	e.indexes = sized(e.indexes, len(codes))
	n := 0
	for _, code := range codes {
		e.indexes[n] = ranks[code]
		if code != 0 { // no branch: which rows have a value cannot be predicted
			n++
		}
	}
	e.indexes = e.indexes[:n]
	return order
}

// addDictionary makes a page of texts.
func (e *columnEncoder) addDictionary(entries int) {
	e.encoding = format.RLEDictionary
	if entries > 0 {
		e.addPage(encodedPage{kind: format.DictionaryPage, encoding: format.Plain, rows: entries, values: e.texts})
	}
}

func (e *columnEncoder) addPage(p encodedPage) {
	if p.encoding == format.DeltaBinaryPacked {
		p.compressed = p.values // nothing is left in it that repeats
	} else {
		begin := len(e.compressed)
		e.compressed = e.compressor.EncodeAll(p.values, e.compressed)
		p.compressed = e.compressed[begin:]
	}
	e.pages = append(e.pages, p)
}

// addPages makes pages of data.
func (e *columnEncoder) addPages(perPage int) {
	value := 0
	for first := 0; first < e.rows; first += perPage {
		p := encodedPage{kind: format.DataPageV2, encoding: e.encoding, rows: min(perPage, e.rows-first)}
		if len(e.levels) > 0 {
			levels := e.levels[first : first+p.rows]
			if e.nulls > 0 {
				p.nulls = p.rows - bytes.Count(levels, []byte{1})
			}
			begin := len(e.plain)
			e.plain = e.appendLevels(e.plain, levels)
			p.levels = e.plain[begin:]
		}
		begin, next := len(e.plain), value+p.rows-p.nulls
		e.plain = e.appendValues(e.plain, value, next)
		p.values = e.plain[begin:]
		value = next
		e.addPage(p)
	}
}

// The errors of parquet-go's encoders are about widths that do not occur here.
var (
	levelEncoding      = &rle.Encoding{BitWidth: 1}
	dictionaryEncoding = new(rle.DictionaryEncoding)
	deltaEncoding      = new(delta.BinaryPackedEncoding)
)

func (e *columnEncoder) appendLevels(dst []byte, levels []uint8) []byte {
	e.one, _ = levelEncoding.EncodeLevels(e.one, levels)
	return append(dst, e.one...)
}

// appendValues appends some of the values.
func (e *columnEncoder) appendValues(dst []byte, from, to int) []byte {
	switch e.encoding {
	case format.RLEDictionary:
		e.one, _ = dictionaryEncoding.EncodeInt32(e.one, e.indexes[from:to])
	case format.DeltaBinaryPacked:
		e.one, _ = deltaEncoding.EncodeInt64(e.one, e.ints[from:to])
	default:
		return append(dst, e.texts[e.ends[from]:e.ends[to]]...)
	}
	return append(dst, e.one...)
}
