package query

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// value is one value of a column: what a batch holds for it in its dictionary,
// as a number, or for an id both.
type value struct {
	text   string
	number int64
}

// valueColumn gives the different values of a column codes. The same value has
// different codes in the dictionaries of different batches; here it has one.
type valueColumn struct {
	event.Column
	key
	asked    string   // the name, or with networks what was asked for
	interval int64    // of the column of time, whose values are the numbers of intervals since the Unix epoch
	shift    int64    // so many are added to these
	values   []value  // by code; code 0 is the absent value
	encoded  []uint32 // the result of the last encode or translate
	codes    []uint32 // of it, those that are looked at

	// Codes of values, in the one that suits the kind: that of single words is
	// much the quicker.
	texts   map[string]uint32
	ipv4    map[uint32]uint32
	numbers map[int64]uint32
	ids     map[value]uint32
}

func newValueColumn(t *event.Type, asked string) *valueColumn {
	k, _ := parseKey(t, asked) // Validate and NewType saw to it that it is one
	v := &valueColumn{Column: t.Columns[k.column], key: k, asked: asked, values: make([]value, 1)}
	switch v.Kind {
	case event.KindInt, event.KindTime:
		v.numbers = make(map[int64]uint32)
	case event.KindID:
		v.ids = make(map[value]uint32)
	case event.KindIP:
		v.ipv4, v.texts = make(map[uint32]uint32), make(map[string]uint32)
	default:
		v.texts = make(map[string]uint32)
	}
	return v
}

// reset forgets all values but the absent one.
func (c *valueColumn) reset() {
	clear(c.values) // the texts are somebody's
	c.values = c.values[:1]
	clear(c.texts)
	clear(c.ipv4)
	clear(c.numbers)
	clear(c.ids)
}

func (c *valueColumn) code(v value) uint32 {
	if c.networks != nil {
		v.text = c.networks.mask(v.text)
	}
	switch c.Kind {
	case event.KindInt, event.KindTime:
		return codeIn(c, c.numbers, v.number, v)
	case event.KindID:
		return codeIn(c, c.ids, v, v)
	case event.KindIP:
		if len(v.text) == 4 {
			return codeIn(c, c.ipv4, binary.BigEndian.Uint32([]byte(v.text)), v)
		}
	}
	return codeIn(c, c.texts, v.text, v)
}

// find returns the code of a value, if it has one.
func (c *valueColumn) find(text []byte, number int64) (code uint32, known bool) {
	if c.networks != nil {
		text = []byte(c.networks.mask(string(text)))
	}
	switch c.Kind {
	case event.KindInt, event.KindTime:
		code, known = c.numbers[number]
	case event.KindID:
		code, known = c.ids[value{string(text), number}]
	case event.KindIP:
		if len(text) == 4 {
			code, known = c.ipv4[binary.BigEndian.Uint32(text)]
			break
		}
		fallthrough
	default:
		code, known = c.texts[string(text)]
	}
	return code, known
}

// known returns the code of a value, 0 if it has none.
func (c *valueColumn) known(v value) uint32 {
	code, _ := c.find([]byte(v.text), v.number)
	return code
}

func codeIn[K comparable](c *valueColumn, known map[K]uint32, key K, v value) uint32 {
	code, ok := known[key]
	if !ok {
		code = uint32(len(c.values))
		c.values = append(c.values, v)
		known[key] = code
	}
	return code
}

// encode sets codes to those of the selected rows.
func (c *valueColumn) encode(v *event.Vector, sel []int32) {
	c.encoded = c.codesOf(v, sel, c.encoded[:0], c.code)
	c.codes = c.encoded
}

// codesOf appends the codes of the selected rows, as code says them of values.
func (c *valueColumn) codesOf(v *event.Vector, sel []int32, codes []uint32, code func(value) uint32) []uint32 {
	codes = slices.Grow(codes, len(sel))
	switch c.Kind {
	case event.KindTime:
		for _, row := range sel {
			codes = append(codes, c.bucket(v.Ints[row]))
		}
		return codes
	case event.KindInt:
		return codesOfInts(v, sel, codes, code)
	case event.KindID:
		for _, row := range sel {
			var of uint32
			if scope := v.Codes[row]; scope != 0 {
				of = code(value{v.Dict[scope-1], v.Ints[row]})
			}
			codes = append(codes, of)
		}
		return codes
	}
	return codesOfTexts(v, sel, codes, code)
}

// bucket returns the code of the interval that a time is in.
func (c *valueColumn) bucket(unixNano int64) uint32 {
	return c.code(value{number: bucketOf(unixNano, c.interval) + c.shift})
}

// codesOfInts remembers the last number: neighbours are often alike.
func codesOfInts(v *event.Vector, sel []int32, codes []uint32, code func(value) uint32) []uint32 {
	var last value
	var lastCode uint32
	known := false
	for _, row := range sel {
		if !v.Valid[row] {
			codes = append(codes, 0)
			continue
		}
		if n := v.Ints[row]; !known || n != last.number {
			last.number, known = n, true
			lastCode = code(last)
		}
		codes = append(codes, lastCode)
	}
	return codes
}

// codesOfTexts looks up each value that is in use once, not once a row.
func codesOfTexts(v *event.Vector, sel []int32, codes []uint32, code func(value) uint32) []uint32 {
	seen := make([]uint32, 1+len(v.Dict)) // 1 + the code; 0: not looked up yet
	seen[0] = 1
	codes = codes[:len(sel)] // there is room
	for i, row := range sel {
		own := v.Codes[row]
		if seen[own] == 0 {
			seen[own] = 1 + code(value{text: v.Dict[own-1]})
		}
		codes[i] = seen[own] - 1
	}
	return codes
}

// translate sets codes to those here of the values of another column, by
// their codes there.
func (c *valueColumn) translate(other *valueColumn) {
	c.encoded = append(c.encoded[:0], 0)
	for _, v := range other.values[1:] {
		c.encoded = append(c.encoded, c.code(v))
	}
	c.codes = c.encoded
}

// show returns a value as it is written in JSON; nil for the absent one.
func (c *valueColumn) show(code uint32) any {
	v := c.values[code]
	switch {
	case code == 0:
		return nil
	case c.Kind == event.KindInt:
		return v.number
	case c.Kind == event.KindTime:
		return time.Unix(0, v.number*c.interval).UTC().Format(time.RFC3339Nano)
	case c.networks != nil:
		p, _ := c.networks.prefix(v.text)
		return p.String()
	case c.Kind == event.KindIP:
		ip, _ := netip.AddrFromSlice([]byte(v.text)) // 4 or 16 bytes
		return ip.String()
	case c.Kind == event.KindID:
		return v.text + "-" + strconv.FormatUint(uint64(v.number), 16)
	}
	return v.text
}

// compare orders values, the absent one last.
func (c *valueColumn) compare(x, y uint32) int {
	if x == 0 || y == 0 {
		return cmp.Compare(y, x)
	}
	a, b := c.values[x], c.values[y]
	return cmp.Or(cmp.Compare(a.text, b.text), cmp.Compare(a.number, b.number))
}

// sorted returns the first n codes in the order of their values, the absent one
// first. Most values are told apart by their first 8 bytes.
func (c *valueColumn) sorted(n int) []int {
	type key struct {
		prefix uint64
		code   uint32
	}
	keys := make([]key, n)
	for code := range keys {
		v := c.values[code]
		keys[code] = key{uint64(v.number) ^ 1<<63, uint32(code)}
		if c.Kind != event.KindInt {
			var first [8]byte
			copy(first[:], v.text)
			keys[code].prefix = binary.BigEndian.Uint64(first[:])
		}
	}
	slices.SortFunc(keys[1:], func(x, y key) int {
		if x.prefix != y.prefix {
			return cmp.Compare(x.prefix, y.prefix)
		}
		return c.compare(x.code, y.code)
	})
	codes := make([]int, n)
	for i, k := range keys {
		codes[i] = int(k.code)
	}
	return codes
}
