package block

import (
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/srodi/ebpf-server/internal/event"
)

// ErrTooLarge is returned for a batch that has more than MaxRows events, or
// texts that do not fit into a page. Half of it may do.
var ErrTooLarge = errors.New("too much for one block")

// Encoder writes blocks and their indexes. It keeps its buffers from one to the
// next, some 10 MB, and is not safe for concurrent use.
type Encoder struct {
	t           *event.Type
	rows        int
	first, last int64 // times
	column      columnEncoder
	file        fileWriter
	index       indexEncoder
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
// sorted by time (see event.Sort). Texts that are not UTF-8 are made so.
func (e *Encoder) Append(dst []byte, b *event.Batch) ([]byte, error) {
	if err := e.Begin(dst, b.Type, b.Len()); err != nil {
		return dst, err
	}
	for i := range b.Columns {
		if err := e.Column(i, &b.Columns[i]); err != nil {
			return dst, err
		}
	}
	return e.End()
}

// Begin is the first step of Append for who has one column of the events at a time. All
// columns follow, in the order of the type, then End; AppendIndex then makes the index of
// the columns named.
func (e *Encoder) Begin(dst []byte, t *event.Type, rows int, indexed ...string) error {
	switch {
	case rows == 0:
		return errors.New("encode block: there are no events")
	case rows > MaxRows:
		return fmt.Errorf("encode block: %d events: %w", rows, ErrTooLarge)
	}
	e.t, e.rows = t, rows
	e.file.start(dst, t, rows)
	e.index.start(indexed)
	return nil
}

// Column adds a column.
func (e *Encoder) Column(i int, v *event.Vector) error {
	if i == event.Time {
		if !slices.IsSorted(v.Ints) {
			return errors.New("encode block: events are not sorted by time")
		}
		e.first, e.last = v.Ints[0], v.Ints[e.rows-1]
	}
	c := e.t.Columns[i]
	err := e.column.encode(v, c.Kind, e.rows)
	if err == nil {
		e.index.add(&e.column, c, v)
		if len(e.column.pages) == 0 {
			return nil
		}
		err = e.file.appendColumn(&e.column, c.Name, c.Kind, i != event.Time)
	}
	if err != nil {
		return fmt.Errorf("encode block: column %s: %w", c.Name, err)
	}
	if i != event.Time {
		return nil
	}
	e.column.encodeConstant(e.t.Name, e.rows) // type comes second, as in the API
	if err := e.file.appendColumn(&e.column, "type", event.KindString, false); err != nil {
		return fmt.Errorf("encode block: column type: %w", err)
	}
	return nil
}

// End returns what Begin was given and the block.
func (e *Encoder) End() ([]byte, error) { return e.file.finish() }
