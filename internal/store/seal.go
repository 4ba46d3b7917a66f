package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// Sealing turns the rows of an hour into a block: at once when there are
// enough for a full one, and the rest when the hour is over. Encoding goes on
// outside of transactions; one that stores a block also removes the rows and
// adds the events to the rollup.

// defaultSealAfter is for how long an hour is left alone when it has ended, and
// when a late event has come to it.
const defaultSealAfter = time.Minute

// indexedColumns are those that people look for single values of.
var indexedColumns = []string{"pid", "command", "source_ip", "destination_ip"}

// usualRowBytes is about what an event takes in a block.
const usualRowBytes = 26

// hourOfType is where rows are.
type hourOfType struct {
	typeName string
	hour     int64
}

// sealed is events on their way from rows, or from memory, into blocks.
type sealed struct {
	hourOfType
	t       *event.Type
	blocks  []encodedBlock
	count   *query.Aggregator // nil: too many values, or they are not counted
	rollup  rollup
	removes []chunkID // the rows that the blocks are made of
	partly  bool      // there are further rows
}

// chunkID tells a chunk from one that came later under the same key.
type chunkID struct{ key, header []byte }

func (s *Store) newSealed(at hourOfType) *sealed {
	return &sealed{hourOfType: at, t: s.types[at.typeName]}
}

// Seal turns the rows of full and closed hours into blocks, or with all those
// of open hours too, and joins the hours of days that are over. Progress, if
// not nil, is told hours.
func (s *Store) Seal(ctx context.Context, all bool, progress func(done, total int64)) error {
	if s.options.ReadOnly {
		return ErrReadOnly
	}
	if err := s.Flush(); err != nil {
		return err
	}
	if err := s.seal(ctx, all, progress); err != nil {
		return err
	}
	return s.finishDays(ctx, true)
}

// seal goes on after an hour that cannot be sealed.
func (s *Store) seal(ctx context.Context, all bool, progress func(done, total int64)) error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	due, err := s.dueHours(all)
	if err != nil {
		return err
	}
	var errs []error
	for i, at := range due {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.sealHour(ctx, at, all); err != nil {
			errs = append(errs, fmt.Errorf("seal %s of hour %s: %w", at.typeName, hourStart(at.hour).Format(time.RFC3339), err))
		}
		if progress != nil {
			progress(int64(i+1), int64(len(due)))
		}
	}
	return errors.Join(errs...)
}

// dueHours returns the hours that have rows to be sealed, oldest first.
func (s *Store) dueHours(all bool) (due []hourOfType, err error) {
	err = s.view(func(v *view) error {
		for name := range s.types {
			err := forEachHour(v.tx, name, func(hour int64, h hourRecord) error {
				if at := (hourOfType{name, hour}); all || h.rows >= block.MaxRows || s.isClosed(at, v.now) {
					due = append(due, at)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	slices.SortFunc(due, func(a, b hourOfType) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.typeName, b.typeName))
	})
	return due, err
}

// isClosed tells whether an hour is over and nothing came to it for a while.
func (s *Store) isClosed(at hourOfType, now time.Time) bool {
	s.mu.Lock()
	written := s.written[at]
	s.mu.Unlock()
	return s.isOver(at.hour) && now.Sub(written) > s.options.sealAfter && !s.isCopiedSince(at.hour)
}

func (s *Store) isOver(hour int64) bool {
	return s.now().Sub(hourStart(hour+1)) > s.options.sealAfter
}

// sealHour makes blocks of an hour's rows, each in a transaction of its own.
// Unless it is all, a rest that makes no full block stays in an hour that is
// not closed.
func (s *Store) sealHour(ctx context.Context, at hourOfType, all bool) error {
	closed := all || s.isClosed(at, s.now())
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		ready, err := s.encodeRows(at, closed)
		if err != nil || ready == nil {
			return err
		}
		more = ready.partly
		err = s.update(func(tx *bbolt.Tx) error { return s.putSealed(tx, ready) })
		s.forget(ready)
		if errors.Is(err, errRowsChanged) {
			return nil // a flush has made blocks of them
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		delete(s.written, at)
		s.sealedAt[hourOfType{at.typeName, dayOf(at.hour)}] = s.now()
		s.mu.Unlock()
	}
	return nil
}

// encodeRows makes a block of the first rows of an hour; nil if there are none,
// or too few and the hour is not closed.
func (s *Store) encodeRows(at hourOfType, closed bool) (*sealed, error) {
	ready, joined, err := s.readRows(at, block.MaxRows)
	if err != nil || joined.Len() == 0 || !closed && !ready.partly && joined.Len() < block.MaxRows {
		return nil, err
	}
	events := s.sequence(joined)
	defer s.forgetSequence(events)
	return ready, s.encodeSealed(ready, events, events.Len())
}

// readRows returns the first rows of an hour, at most so many, in the order in
// which they came.
func (s *Store) readRows(at hourOfType, limit int) (ready *sealed, joined *event.Batch, err error) {
	ready = s.newSealed(at)
	joined = event.NewBatch(ready.t, 0)
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			chunks := hourChunks(tx, at.typeName, at.hour)
			if chunks == nil {
				return nil
			}
			cursor := chunks.Cursor()
			for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
				h, err := readChunkHeader(v)
				if err == nil && joined.Len() > 0 && joined.Len()+h.rows > limit {
					ready.partly = true
					return nil
				}
				if err == nil {
					err = s.appendChunk(joined, v)
				}
				if err != nil {
					return fmt.Errorf("chunk %d: %w", getInt(k), err)
				}
				ready.removes = append(ready.removes, chunkID{bytes.Clone(k), bytes.Clone(v[:chunkHeaderSize])})
			}
			return nil
		})
	})
	return ready, joined, err
}

func (s *Store) appendChunk(to *event.Batch, value []byte) error {
	k, err := s.codec.open(value, s.schemas)
	if err != nil {
		return err
	}
	b, err := k.batch(to.Type, allColumns(to.Type))
	if err == nil {
		to.AppendRows(b, nil)
	}
	return err
}

// encodeSealed encodes the events of the hour that come first, and counts them.
func (s *Store) encodeSealed(to *sealed, events *event.Sequence, end int) error {
	to.count = s.newCount(to.t)
	for from := 0; from < end; from += block.MaxRows {
		if err := s.encodeBlocks(to, piece{events, from, min(from+block.MaxRows, end)}); err != nil {
			return err
		}
	}
	if to.rollup = noRollup(); to.count != nil {
		to.rollup = s.codec.encodeRollup(to.t, to.count)
	}
	return nil
}

// piece is the events of a sequence from one on and before another.
type piece struct {
	*event.Sequence
	from, until int
}

func (p piece) rows() int { return p.until - p.from }

// forget lets what was used for blocks be used for the next, when they are stored or not.
func (s *Store) forget(ready *sealed) {
	if ready.count != nil {
		s.forgetCount(ready.t, ready.count)
	}
	for _, b := range ready.blocks {
		s.buffers.put(b.block)
	}
	ready.count, ready.blocks = nil, nil
}

// encodeBlocks halves events until each piece fits into a block, and counts them if they
// are to be counted, until there are too many values.
func (s *Store) encodeBlocks(to *sealed, p piece) error {
	encoder, err := s.encoder()
	if err != nil {
		return err
	}
	defer s.encoders.put(encoder)
	encoded, err := s.encodeBlock(encoder, p, to.count)
	switch {
	case errors.Is(err, block.ErrTooLarge) && p.rows() > 1:
		half := p.from + p.rows()/2
		if err := s.encodeBlocks(to, piece{p.Sequence, p.from, half}); err != nil {
			return err
		}
		return s.encodeBlocks(to, piece{p.Sequence, half, p.until})
	case tooMany(err):
		to.count = nil
	case err != nil:
		return err
	}
	to.blocks = append(to.blocks, encoded)
	return nil
}

// encodeBlock also counts the events, if they fit. If there are too many values to count, the
// block is good and the error says so.
func (s *Store) encodeBlock(encoder *block.Encoder, p piece, count *query.Aggregator) (encoded encodedBlock, err error) {
	encoded.rows = int64(p.rows())
	if err := encoder.Begin(s.buffer(p.rows()*usualRowBytes), p.Type(), p.rows(), indexedColumns...); err != nil {
		return encoded, err
	}
	rows := allRows(p.rows())
	for i := range p.Type().Columns {
		v := p.Column(i, p.from, p.until)
		if i == event.Time {
			encoded.min, encoded.max = v.Ints[0], v.Ints[len(v.Ints)-1]
		}
		if err := encoder.Column(i, v); err != nil {
			return encoded, err
		}
		if count != nil {
			count.AddColumn(i, v, rows)
		}
	}
	if encoded.block, err = encoder.End(); err == nil {
		encoded.index, err = encoder.AppendIndex(nil)
	}
	if err != nil || count == nil {
		return encoded, err
	}
	return encoded, count.AddRows(rows)
}

var errRowsChanged = errors.New("its rows have changed meanwhile")

// putSealed stores blocks, removes the rows that they are made of and adds the
// events to the rollup.
func (s *Store) putSealed(tx *bbolt.Tx, ready *sealed) error {
	if err := removeChunks(tx, ready); err != nil {
		return err
	}
	for _, b := range ready.blocks {
		if err := b.put(tx, ready.typeName, segment{ready.hour, 1}); err != nil {
			return err
		}
	}
	return s.addToRollup(tx, ready.t, ready.hour, ready.count, ready.rollup)
}

// removeChunks removes the first chunks of an hour, and the hour if it has no more.
func removeChunks(tx *bbolt.Tx, ready *sealed) error {
	if len(ready.removes) == 0 {
		return nil
	}
	name, key := []byte(ready.typeName), putInt(ready.hour)
	chunks := hourChunks(tx, ready.typeName, ready.hour)
	for _, id := range ready.removes {
		if chunks == nil || !bytes.HasPrefix(chunks.Get(id.key), id.header) {
			return errRowsChanged
		}
	}
	for _, id := range ready.removes {
		if err := chunks.Delete(id.key); err != nil {
			return err
		}
	}
	var rest hourRecord
	err := chunks.ForEach(func(_, value []byte) error {
		h, err := readChunkHeader(value)
		rest = rest.add(encodedChunk{rows: int64(h.rows), min: h.min, max: h.max, value: value})
		return err
	})
	switch {
	case err != nil:
		return err
	case rest.chunks > 0:
		return tx.Bucket(bucketHours).Bucket(name).Put(key, rest.append(nil))
	}
	if err := tx.Bucket(bucketEvents).Bucket(name).DeleteBucket(key); err != nil {
		return err
	}
	return tx.Bucket(bucketHours).Bucket(name).Delete(key)
}
