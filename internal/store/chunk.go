package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/srodi/ebpf-server/internal/event"
)

// A chunk is the value under which the file keeps some events of one type and
// hour, sorted by time. docs/format.md draws it; a change to the encoding gets
// another chunkVersion.
const (
	chunkVersion    = 1
	chunkHeaderSize = 29
	// Both limits bound what a damaged chunk can make a reader allocate.
	maxChunkRows = 1 << 16
	maxChunkBody = 32 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// codec compresses and decompresses the bodies of chunks, and rollups. It is safe
// for concurrent use.
type codec struct {
	encoder *zstd.Encoder // of chunks, which go soon
	rollups *zstd.Encoder // adds a checksum, which the decoder looks at
	decoder *zstd.Decoder
}

func newCodec() (*codec, error) {
	// Twice the window is allocated: with the usual one 8 MB.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("prepare compression: %w", err)
	}
	// 4 % smaller than the fastest; rollups are a tenth of the file. Few sections are
	// larger than the window, and the usual one takes 20 MB of memory.
	rollups, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("prepare compression: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxChunkBody))
	if err != nil {
		return nil, fmt.Errorf("prepare decompression: %w", err)
	}
	return &codec{encoder, rollups, decoder}, nil
}

func (c *codec) close() {
	c.decoder.Close()
	_ = c.encoder.Close() // nothing is ever streamed, so nothing can fail
	_ = c.rollups.Close()
}

// encode makes a chunk of a batch that is sorted by time, not empty and has no
// value in its dictionaries that is not in use. It reports false if the chunk
// would be too large.
func (c *codec) encode(b *event.Batch, schemaNumber uint32) ([]byte, bool) {
	if b.Len() > maxChunkRows {
		return nil, false
	}
	body := encodeBody(b)
	if len(body) > maxChunkBody {
		return nil, false
	}
	times := b.Columns[event.Time].Ints
	value := make([]byte, 5, chunkHeaderSize+len(body)/2)
	value[0] = chunkVersion
	value = binary.BigEndian.AppendUint32(value, schemaNumber)
	value = binary.BigEndian.AppendUint32(value, uint32(len(times)))
	value = binary.BigEndian.AppendUint64(value, uint64(times[0]))
	value = binary.BigEndian.AppendUint64(value, uint64(times[len(times)-1]))
	value = c.encoder.EncodeAll(body, value)
	binary.BigEndian.PutUint32(value[1:], crc32.Checksum(value[5:], castagnoli))
	return value, true
}

// encodeBody leaves out columns that no event has a value for.
func encodeBody(b *event.Batch) []byte {
	var body, data []byte
	for i, c := range b.Type.Columns {
		v := &b.Columns[i]
		switch data = data[:0]; c.Kind {
		case event.KindTime:
			data = appendTimes(data, v.Ints)
		case event.KindInt:
			if !v.Absent() && slices.Contains(v.Valid, true) {
				data = appendInts(data, v)
			}
		default:
			if len(v.Dict) > 0 {
				data = appendTexts(data, v)
			}
			if c.Kind == event.KindID && len(v.Dict) > 0 {
				data = appendNumbers(data, v)
			}
		}
		if len(data) > 0 {
			body = binary.AppendUvarint(body, uint64(i))
			body = binary.AppendUvarint(body, uint64(len(data)))
			body = append(body, data...)
		}
	}
	return body
}

func appendTimes(dst []byte, times []int64) []byte {
	last := times[0]
	for _, t := range times {
		dst = binary.AppendUvarint(dst, uint64(t-last))
		last = t
	}
	return dst
}

// appendInts writes which events have a number, one bit each, and the
// difference of each number to the one before. Differences may wrap around.
func appendInts(dst []byte, v *event.Vector) []byte {
	begin := len(dst)
	dst = append(dst, make([]byte, (len(v.Valid)+7)/8)...)
	var last int64
	for i, n := range v.Ints {
		if v.Valid[i] {
			dst[begin+i/8] |= 1 << (i % 8)
			dst = binary.AppendVarint(dst, n-last)
			last = n
		}
	}
	return dst
}

// appendTexts writes the dictionary and each event's code.
func appendTexts(dst []byte, v *event.Vector) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v.Dict)))
	for _, s := range v.Dict {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	for _, code := range v.Codes {
		dst = binary.AppendUvarint(dst, uint64(code))
	}
	return dst
}

// appendNumbers writes the numbers of ids, for the events that have one.
func appendNumbers(dst []byte, v *event.Vector) []byte {
	var last int64
	for i, n := range v.Ints {
		if v.Codes[i] != 0 {
			dst = binary.AppendVarint(dst, n-last)
			last = n
		}
	}
	return dst
}

// chunkHeader is what can be known of a chunk without decompressing it.
type chunkHeader struct {
	schemaNumber uint32
	rows         int
	min, max     int64 // times of the first and last event
}

func readChunkHeader(value []byte) (h chunkHeader, err error) {
	if len(value) < chunkHeaderSize {
		return h, fmt.Errorf("chunk of %d bytes is too short", len(value))
	}
	if value[0] != chunkVersion {
		return h, fmt.Errorf("chunk has version %d, this program reads %d", value[0], chunkVersion)
	}
	h = chunkHeader{
		schemaNumber: binary.BigEndian.Uint32(value[5:]),
		rows:         int(binary.BigEndian.Uint32(value[9:])),
		min:          int64(binary.BigEndian.Uint64(value[13:])),
		max:          int64(binary.BigEndian.Uint64(value[21:])),
	}
	if h.rows < 1 || h.rows > maxChunkRows || h.min > h.max {
		return h, fmt.Errorf("chunk header makes no sense: %d events from %d to %d", h.rows, h.min, h.max)
	}
	return h, nil
}
