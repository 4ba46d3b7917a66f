package store

import (
	"fmt"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/query"
)

// view is what a reader sees: the file and the parts in memory that are not in
// it, at one moment.
type view struct {
	s     *Store
	tx    *bbolt.Tx
	parts []*part // in the order in which they came
	now   time.Time

	present    *run // the present run, or nil
	presentKey []byte
}

// view calls do with a view. It must be quick, and must not call anybody
// outside: while a reader is in the file, writing can have to wait for it.
//
// Memory is looked at before the file. What is flushed in between is then in
// both, and the part's number tells; the other way round it would be in neither.
func (s *Store) view(do func(v *view) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	v := &view{s: s, now: s.now().UTC(), present: s.run, presentKey: s.runKey}
	for _, p := range []*part{s.flushing, s.pending} {
		if p != nil {
			v.parts = append(v.parts, p.copy())
		}
	}
	s.mu.Unlock()

	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			v.tx = tx
			stored := storedFlush(tx)
			v.parts = slices.DeleteFunc(v.parts, func(p *part) bool { return p.number <= stored })
			return do(v)
		})
	})
}

// batches calls do with the batches of a type that are only in memory.
func (v *view) batches(typeName string, do func(m memoryBatch)) {
	for _, p := range v.parts {
		for _, m := range p.batches {
			if m.Type.Name == typeName {
				do(m)
			}
		}
	}
}

// removed returns the time before which events of a type are gone, or hidden
// because they are too old and will go with their hour; but see visible.
func (v *view) removed(typeName string) int64 {
	removed := v.storedRemoved(typeName)
	if maxAge := v.s.limits.Load().MaxAge[typeName]; maxAge > 0 {
		removed = max(removed, v.now.Add(-maxAge).UnixNano())
	}
	return removed
}

func (v *view) storedRemoved(typeName string) int64 {
	if stored := v.tx.Bucket(bucketMeta).Bucket(bucketRemoved).Get([]byte(typeName)); stored != nil {
		return getInt(stored)
	}
	return math.MinInt64
}

// oldestEvent returns the time of the oldest event of a type, MaxInt64 if it
// has none.
func (v *view) oldestEvent(typeName string) (int64, error) {
	oldest := int64(math.MaxInt64)
	v.batches(typeName, func(m memoryBatch) { oldest = min(oldest, m.min) })
	err := v.stored(typeName, func(_, first, _ int64) { oldest = min(oldest, first) })
	if err != nil {
		return oldest, err
	}
	return v.firstVisible(typeName, oldest)
}

// stored calls do with what the file has of a type: the number of events, and
// the times of the first and the last of them.
func (v *view) stored(typeName string, do func(rows, first, last int64)) error {
	err := forEachSegment(v.tx, typeName, func(_ segment, r segmentRecord) error {
		do(r.rows, r.min, r.max)
		return nil
	})
	if err != nil {
		return err
	}
	return forEachHour(v.tx, typeName, func(_ int64, h hourRecord) error {
		do(h.rows, h.min, h.max)
		return nil
	})
}

// span is a time span in nanoseconds, from included and until not.
type span struct{ from, until int64 }

var allTime = span{math.MinInt64, math.MaxInt64}

// window returns the span as a query has it.
func (s span) window() query.Window {
	return query.Window{Since: time.Unix(0, s.from), Until: time.Unix(0, s.until)}
}

func (s span) overlaps(first, last int64) bool { return first < s.until && last >= s.from }

// chunks calls do with the chunks of a type and hour that have events in a
// time span, in the order in which they came. The values are good only
// within the view.
func (v *view) chunks(typeName string, hour int64, in span, do func(sequence int64, h chunkHeader, value []byte) error) error {
	chunks := hourChunks(v.tx, typeName, hour)
	if chunks == nil {
		return nil
	}
	return chunks.ForEach(func(key, value []byte) error {
		h, err := readChunkHeader(value)
		if err == nil && in.overlaps(h.min, h.max) {
			err = do(getInt(key), h, value)
		}
		if err != nil {
			return fmt.Errorf("%s of hour %s: chunk %d: %w", typeName, hourStart(hour).Format(time.RFC3339), getInt(key), err)
		}
		return nil
	})
}
