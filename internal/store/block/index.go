package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/FastFilter/xorfilter"
	"github.com/parquet-go/parquet-go/bloom/xxhash"

	"github.com/srodi/ebpf-server/internal/event"
)

// An index, numbers big-endian:
//
//	+---------+---------+------+-------+------+------+---------+---------+
//	| version | columns | rows | first | last | seed | segment | segment |
//	|         |         |      | time  | time |      | length  | count   |
//	| 1       | 1       | 4    | 8     | 8    | 8    | 4       | 4       |
//	+---------+---------+------+-------+------+------+---------+---------+
//	| for each column: length of its name (1), name                      |
//	+---------------------------------------------------------------------+
//	| fingerprints of a binary fuse filter, 1 byte each:                  |
//	| (segment count + 2) * segment length, none if there are no values   |
//	+---------------------------------------------------------------------+
const (
	indexVersion    = 1
	indexHeaderSize = 38
)

// Index tells what a block may have. It refers to the bytes it was opened from.
type Index struct {
	rows        int
	first, last int64
	names       []byte
	filter      xorfilter.BinaryFuse8
}

// Key is the hash of a value of a column, made once for all blocks that are
// searched for it.
type Key uint64

// IntKey returns the key of a number.
func IntKey(column string, n int64) Key { return key(hash(column), uint64(n)) }

// TextKey returns the key of a text.
func TextKey(column, text string) Key { return key(hash(column), hash(validText(text))) }

// IPKey returns the key of an address.
func IPKey(column string, ip netip.Addr) Key {
	return key(hash(column), xxhash.Sum64(ip.Unmap().AsSlice()))
}

func key(column, value uint64) Key { return Key(xxhash.Sum64Uint64(column ^ value)) }

func hash(s string) uint64 { return xxhash.Sum64([]byte(s)) }

// AppendIndex appends the index of the last block's events to dst. It has the values of
// those columns that Begin was told, unless the type lacks them or they
// are ids: nearly every event has another id, so an index of them would be as large as
// they are.
func (e *Encoder) AppendIndex(dst []byte) ([]byte, error) {
	var filter xorfilter.BinaryFuse[uint8]
	if len(e.index.keys) > 0 {
		var err error
		if filter, err = xorfilter.BuildBinaryFuse[uint8](&e.index.filter, e.index.keys); err != nil {
			return dst, fmt.Errorf("make index: %w", err)
		}
	}
	dst = append(dst, indexVersion, e.index.columns)
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.rows))
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.first))
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.last))
	dst = binary.BigEndian.AppendUint64(dst, filter.Seed)
	dst = binary.BigEndian.AppendUint32(dst, filter.SegmentLength)
	dst = binary.BigEndian.AppendUint32(dst, filter.SegmentCount)
	return append(append(dst, e.index.names...), filter.Fingerprints...), nil
}

// indexEncoder gathers what goes into an index. It keeps its memory.
type indexEncoder struct {
	wanted  []string
	columns byte
	names   []byte
	keys    []uint64
	text    []byte
	filter  xorfilter.BinaryFuseBuilder
}

func (x *indexEncoder) start(columns []string) {
	x.wanted, x.columns, x.names, x.keys = columns, 0, x.names[:0], x.keys[:0]
}

// add adds the values of a column that was just encoded, if it is wanted and can have any.
func (x *indexEncoder) add(e *columnEncoder, c event.Column, v *event.Vector) {
	if !slices.Contains(x.wanted, c.Name) || len(c.Name) > 0xff {
		return
	}
	column := hash(c.Name)
	switch c.Kind {
	case event.KindInt:
		for _, n := range e.differentInts(v) {
			x.keys = append(x.keys, uint64(key(column, uint64(n))))
		}
	case event.KindString, event.KindIP:
		for _, code := range e.differentTexts(v) {
			text := v.Dict[code-1]
			if c.Kind == event.KindString {
				text = validText(text)
			}
			x.text = append(x.text[:0], text...)
			x.keys = append(x.keys, uint64(key(column, xxhash.Sum64(x.text))))
		}
	default:
		return
	}
	x.columns++
	x.names = append(append(x.names, byte(len(c.Name))), c.Name...)
}

// OpenIndex reads an index. It copies nothing: data must stay as it is while
// the index is in use.
func OpenIndex(data []byte) (Index, error) {
	if len(data) < indexHeaderSize {
		return Index{}, fmt.Errorf("open index: %d bytes are too few", len(data))
	}
	if data[0] != indexVersion {
		return Index{}, fmt.Errorf("open index: it has version %d, this program reads %d", data[0], indexVersion)
	}
	x := Index{
		rows:  int(binary.BigEndian.Uint32(data[2:])),
		first: int64(binary.BigEndian.Uint64(data[6:])),
		last:  int64(binary.BigEndian.Uint64(data[14:])),
	}
	x.filter.Seed = binary.BigEndian.Uint64(data[22:])
	length, count := binary.BigEndian.Uint32(data[30:]), binary.BigEndian.Uint32(data[34:])
	rest := data[indexHeaderSize:]
	for range data[1] {
		if len(rest) == 0 || len(rest)-1 < int(rest[0]) {
			return Index{}, errors.New("open index: names of columns end early")
		}
		rest = rest[1+int(rest[0]):]
	}
	x.names = data[indexHeaderSize : len(data)-len(rest)]
	if x.rows < 1 || x.rows > MaxRows || x.first > x.last {
		return Index{}, fmt.Errorf("open index: it makes no sense: %d events from %d to %d", x.rows, x.first, x.last)
	}
	if length == 0 && len(rest) == 0 {
		return x, nil
	}
	if length == 0 || length&(length-1) != 0 || count == 0 || (uint64(count)+2)*uint64(length) != uint64(len(rest)) {
		return Index{}, fmt.Errorf("open index: filter of %d bytes cannot have %d segments of %d", len(rest), count, length)
	}
	x.filter.SegmentLength, x.filter.SegmentLengthMask = length, length-1
	x.filter.SegmentCount, x.filter.SegmentCountLength = count, count*length
	x.filter.Fingerprints = rest
	return x, nil
}

// Rows returns the number of events.
func (x *Index) Rows() int { return x.rows }

// Times returns the times of the first and the last event.
func (x *Index) Times() (first, last int64) { return x.first, x.last }

// MayContain reports whether any event may have one of some values of a
// column, by their keys. False is certain; true is wrong for one in 250 values
// that are not there, and the answer for a column that the index leaves out.
func (x *Index) MayContain(column string, keys ...Key) bool {
	if !x.has(column) {
		return true
	}
	if len(x.filter.Fingerprints) == 0 {
		return false
	}
	for _, k := range keys {
		if x.filter.Contains(uint64(k)) {
			return true
		}
	}
	return false
}

func (x *Index) has(column string) bool {
	for names := x.names; len(names) > 0; names = names[1+int(names[0]):] {
		if string(names[1:1+int(names[0])]) == column {
			return true
		}
	}
	return false
}
