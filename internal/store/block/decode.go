package block

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The decoders here check every length and width before they use it, which
// those of parquet-go do not: a damaged block must not end the program.

// hybrid reads Parquet's mix of run lengths and packed bits.
type hybrid struct {
	src   []byte
	width uint
}

// next returns the next run, of at most limit values: either all are the same
// value, or they are packed.
func (h *hybrid) next(limit int) (n int, packed []byte, value uint32, err error) {
	if len(h.src) == 0 {
		return 0, nil, 0, errEndsEarly
	}
	head, size := uint64(h.src[0]), 1
	if head >= 0x80 { // few are that long
		if head, size = binary.Uvarint(h.src); size <= 0 {
			return 0, nil, 0, errEndsEarly
		}
	}
	h.src = h.src[size:]
	count := head >> 1
	if head&1 == 0 {
		bytes := int(h.width+7) / 8
		if len(h.src) < bytes {
			return 0, nil, 0, errEndsEarly
		}
		for i := range bytes {
			value |= uint32(h.src[i]) << (8 * i)
		}
		value &= uint32(uint64(1)<<h.width - 1)
		h.src = h.src[bytes:]
		if count == 0 {
			return 0, nil, 0, errors.New("found an empty run")
		}
		return int(min(count, uint64(limit))), nil, value, nil
	}
	if count == 0 || h.width > 0 && count > uint64(len(h.src))/uint64(h.width) {
		return 0, nil, 0, errEndsEarly
	}
	n = int(min(count, uint64(limit+7)/8)) * 8
	if h.width == 0 {
		return min(n, limit), nil, 0, nil
	}
	packed = h.src[:count*uint64(h.width)]
	h.src = h.src[len(packed):]
	return min(n, limit), packed, 0, nil
}

// skip goes past runs that end before n values, as long as they are simple, and
// returns how many values these have.
func (h *hybrid) skip(n int) (skipped int) {
	src := h.src
	for len(src) > 0 && src[0] < 0x80 {
		count := int(src[0] >> 1)
		length, size := count, 1+int(h.width+7)/8
		if src[0]&1 == 1 {
			length, size = 8*count, 1+count*int(h.width)
		}
		if length == 0 || size > len(src) || skipped+length > n {
			break
		}
		skipped += length
		src = src[size:]
	}
	h.src = src
	return skipped
}

// skipLevels is skip for levels, and returns how many rows have a value too.
func (h *hybrid) skipLevels(rows int) (skipped, values int) {
	src := h.src
	for len(src) > 1 && src[0] < 0x80 {
		n, size := int(src[0]>>1), 2
		if src[0]&1 == 1 {
			n, size = 8*n, 1+n
		}
		if n == 0 || size > len(src) || skipped+n > rows {
			break
		}
		if src[0]&1 == 1 {
			values += countBits(src[1:size], 0, n)
		} else {
			values += n * int(src[1]&1)
		}
		skipped += n
		src = src[size:]
	}
	h.src = src
	return skipped, values
}

// decodeLevels sets which rows have a value, and reports how many.
func decodeLevels(valid []bool, src []byte) (present int, err error) {
	h := hybrid{src, 1}
	for len(valid) > 0 {
		n, packed, value, err := h.next(len(valid))
		switch {
		case err != nil:
			return 0, err
		case packed == nil:
			fill(valid[:n], value == 1)
			present += n * int(value)
		default:
			present += unpackBits(valid[:n], packed)
		}
		valid = valid[n:]
	}
	return present, nil
}

func unpackBits(dst []bool, src []byte) (set int) {
	for i := range dst {
		bit := src[i>>3] >> (i & 7) & 1
		dst[i] = bit != 0
		set += int(bit)
	}
	return set
}

// indexes returns the indexes of a page.
func indexes(src []byte) (hybrid, error) {
	if len(src) == 0 {
		return hybrid{}, errEndsEarly
	}
	h := hybrid{src[1:], uint(src[0])}
	if h.width > 32 {
		return hybrid{}, fmt.Errorf("indexes are %d bits wide", h.width)
	}
	return h, nil
}

// decodeIndexes reads positions in a dictionary. The caller must check that the
// dictionary has them.
func decodeIndexes(dst []uint32, src []byte) error {
	h, err := indexes(src)
	if err != nil {
		return err
	}
	for len(dst) > 0 {
		n, packed, value, err := h.next(len(dst))
		if err != nil {
			return err
		}
		if packed != nil {
			unpackIndexes(dst[:n], packed, h.width)
		} else {
			fill(dst[:n], value)
		}
		dst = dst[n:]
	}
	return nil
}

// unpackIndexes takes eight at a time, which are as many bytes as one has bits.
func unpackIndexes(dst []uint32, src []byte, width uint) {
	mask := uint64(1)<<width - 1
	half, shift := 4*width>>3, 4*width&7
	w := width & 31
	for ; width <= 16 && len(dst) >= 8 && uint(len(src)) >= half+8; dst, src = dst[8:], src[width:] {
		a, b := binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint64(src[half:])>>shift
		d := dst[:8]
		d[0], d[1], d[2], d[3] = uint32(a&mask), uint32(a>>w&mask), uint32(a>>(2*w)&mask), uint32(a>>(3*w&63)&mask)
		d[4], d[5], d[6], d[7] = uint32(b&mask), uint32(b>>w&mask), uint32(b>>(2*w)&mask), uint32(b>>(3*w&63)&mask)
	}
	bit := uint(0)
	for i := range dst {
		dst[i] = uint32(load(src, bit>>3) >> (bit & 7) & mask)
		bit += width
	}
}

// load returns the 8 bytes at a position, zeros for those behind the end.
func load(src []byte, at uint) uint64 {
	if at+8 <= uint(len(src)) {
		return binary.LittleEndian.Uint64(src[at:])
	}
	var last [8]byte
	copy(last[:], src[at:])
	return binary.LittleEndian.Uint64(last[:])
}

// decodeDelta reads the first of all numbers, written as DELTA_BINARY_PACKED.
func decodeDelta(dst []int64, all int, src []byte) error {
	r := compact{data: src}
	blockSize, perBlock, total, last := r.uvarint(), r.uvarint(), r.uvarint(), r.varint()
	switch {
	case r.err != nil:
		return r.err
	case total != uint64(all):
		return fmt.Errorf("page has %d numbers, not %d", total, all)
	case blockSize == 0 || blockSize > 1<<16 || perBlock == 0 || blockSize%perBlock != 0 || blockSize/perBlock%8 != 0:
		return fmt.Errorf("blocks of %d numbers in %d parts make no sense", blockSize, perBlock)
	case len(dst) == 0:
		return nil
	}
	dst[0] = last
	dst = dst[1:]
	size := int(blockSize / perBlock)
	for len(dst) > 0 {
		least := r.varint()
		if uint64(len(r.data)) < perBlock {
			return errEndsEarly
		}
		widths := r.data[:perBlock]
		r.data = r.data[perBlock:]
		for _, width := range widths {
			n := min(size, len(dst))
			bytes := size / 8 * int(width)
			if width > 64 || len(r.data) < bytes {
				return errEndsEarly
			}
			last = unpackDeltas(dst[:n], r.data[:bytes], uint(width), least, last)
			r.data, dst = r.data[bytes:], dst[n:]
			if len(dst) == 0 {
				break
			}
		}
	}
	return nil
}

// unpackDeltas sets dst to the sums of packed differences: of narrow ones four or two
// at a time.
func unpackDeltas(dst []int64, src []byte, width uint, least, last int64) int64 {
	mask := ^uint64(0) >> (64 - width)
	bit := uint(0)
	for ; width <= 14 && len(dst) >= 4 && uint64(bit>>3)+8 <= uint64(len(src)); dst = dst[4:] {
		four := binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7)
		bit += 4 * width
		dst[0] = last + least + int64(four&mask)
		dst[1] = dst[0] + least + int64(four>>width&mask)
		dst[2] = dst[1] + least + int64(four>>(2*width)&mask)
		last = dst[2] + least + int64(four>>(3*width)&mask)
		dst[3] = last
	}
	for ; width <= 28 && len(dst) >= 2 && uint64(bit>>3)+8 <= uint64(len(src)); dst = dst[2:] {
		two := binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7)
		bit += 2 * width
		dst[0] = last + least + int64(two&mask)
		last = dst[0] + least + int64(two>>width&mask)
		dst[1] = last
	}
	for ; width <= 57 && len(dst) > 0 && uint64(bit>>3)+8 <= uint64(len(src)); dst = dst[1:] {
		last += least + int64(binary.LittleEndian.Uint64(src[bit>>3:])>>(bit&7)&mask)
		dst[0] = last
		bit += width
	}
	for i := range dst {
		at, shift := bit>>3, bit&7
		delta := load(src, at) >> shift
		if width+shift > 64 {
			delta |= uint64(src[at+8]) << (64 - shift)
		}
		last += least + int64(delta&mask)
		dst[i] = last
		bit += width
	}
	return last
}

// decodeNumbers reads numbers written as PLAIN.
func decodeNumbers(dst []int64, src []byte) error {
	if len(src) != 8*len(dst) {
		return fmt.Errorf("page has %d bytes for %d numbers", len(src), len(dst))
	}
	for i := range dst {
		dst[i] = int64(binary.LittleEndian.Uint64(src[8*i:]))
	}
	return nil
}

// nextText takes a text written as PLAIN off the front of src.
func nextText(src []byte) (text, rest []byte, err error) {
	if len(src) < 4 {
		return nil, nil, errEndsEarly
	}
	n := uint64(binary.LittleEndian.Uint32(src))
	if n > uint64(len(src)-4) {
		return nil, nil, errEndsEarly
	}
	return src[4 : 4+n], src[4+n:], nil
}

// spread moves the values at the front of dst to the rows that have one.
// Absent ones become zero. It has no branches: which rows have a value cannot
// be predicted.
func spread[T int64 | uint32](dst []T, valid []bool, present int) {
	for i := len(dst) - 1; i >= 0; i-- {
		var has int
		if valid[i] {
			has = 1
		}
		present -= has
		dst[i] = dst[present] & -T(has)
	}
}
