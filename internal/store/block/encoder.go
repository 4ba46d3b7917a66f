package block

import (
	"errors"
	"fmt"
	"slices"

	"github.com/FastFilter/xorfilter"
	"github.com/klauspost/compress/zstd"

	"github.com/srodi/ebpf-server/internal/event"
)

// ErrTooLarge is returned for a batch that has more than MaxRows events, or
// texts that do not fit into a page. Half of it may do.
var ErrTooLarge = errors.New("too much for one block")

// Encoder writes blocks and their indexes. It keeps its buffers from one to the
// next, some 10 MB, and is not safe for concurrent use.
type Encoder struct {
	column columnEncoder
	file   fileWriter

	keys   []uint64 // of an index
	filter xorfilter.BinaryFuseBuilder
}

// NewEncoder returns an encoder. It needs no closing.
func NewEncoder() (*Encoder, error) {
	// Without entropy compression of all literals, columns of small
	// dictionaries, in which nothing repeats for long, would stay as they are.
	// The window is larger than nearly all pages.
	compressor, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("prepare compression: %w", err)
	}
	return &Encoder{column: columnEncoder{compressor: compressor}}, nil
}

// Append appends the events of a batch to dst as one block. They must be
// sorted by time (see Sort). Texts that are not UTF-8 are made so.
func (e *Encoder) Append(dst []byte, b *event.Batch) ([]byte, error) {
	times := b.Columns[event.Time].Ints
	switch {
	case len(times) == 0:
		return dst, errors.New("encode block: there are no events")
	case len(times) > MaxRows:
		return dst, fmt.Errorf("encode block: %d events: %w", len(times), ErrTooLarge)
	case !slices.IsSorted(times):
		return dst, errors.New("encode block: events are not sorted by time")
	}
	e.file.start(dst, b.Type, len(times))
	for i, c := range b.Type.Columns {
		if err := e.column.encode(&b.Columns[i], c.Kind, len(times)); err != nil {
			return dst, fmt.Errorf("encode block: column %s: %w", c.Name, err)
		}
		if len(e.column.pages) == 0 {
			continue
		}
		if err := e.file.appendColumn(&e.column, c.Name, c.Kind, i != event.Time); err != nil {
			return dst, fmt.Errorf("encode block: column %s: %w", c.Name, err)
		}
		if i == event.Time { // type comes second, as in the API
			e.column.encodeConstant(b.Type.Name, len(times))
			if err := e.file.appendColumn(&e.column, "type", event.KindString, false); err != nil {
				return dst, fmt.Errorf("encode block: column type: %w", err)
			}
		}
	}
	return e.file.finish()
}
