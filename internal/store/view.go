package store

import (
	"fmt"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
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
// because they are too old and will go with their hour.
func (v *view) removed(typeName string) int64 {
	removed := int64(math.MinInt64)
	if stored := v.tx.Bucket(bucketMeta).Bucket(bucketRemoved).Get([]byte(typeName)); stored != nil {
		removed = getInt(stored)
	}
	if maxAge := v.s.options.Retention[typeName]; maxAge > 0 {
		removed = max(removed, v.now.Add(-maxAge).UnixNano())
	}
	return removed
}

// oldestEvent returns the time of the oldest event of a type, MaxInt64 if it
// has none.
func (v *view) oldestEvent(typeName string) (int64, error) {
	oldest := int64(math.MaxInt64)
	v.batches(typeName, func(m memoryBatch) { oldest = min(oldest, m.min) })
	err := forEachHour(v.tx, typeName, func(_ int64, h hourRecord) error {
		oldest = min(oldest, h.min)
		return nil
	})
	if oldest != math.MaxInt64 {
		oldest = max(oldest, v.removed(typeName))
	}
	return oldest, err
}

// span is a time span in nanoseconds, from included and until not.
type span struct{ from, until int64 }

// window returns the span as a query has it.
func (s span) window() query.Window {
	return query.Window{Since: time.Unix(0, s.from), Until: time.Unix(0, s.until)}
}

func (s span) overlaps(first, last int64) bool { return first < s.until && last >= s.from }

// hours returns the hours in which a type has events in a time span, oldest first.
func (v *view) hours(types []*event.Type, in span) ([]int64, error) {
	var hours []int64
	for _, t := range types {
		err := forEachHour(v.tx, t.Name, func(hour int64, h hourRecord) error {
			if in.overlaps(h.min, h.max) {
				hours = append(hours, hour)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		v.batches(t.Name, func(m memoryBatch) {
			if in.overlaps(m.min, m.max) {
				hours = m.appendHours(hours)
			}
		})
	}
	slices.Sort(hours)
	return slices.Compact(hours), nil
}

// within cuts a span to an hour and to what is not removed of a type.
func (v *view) within(typeName string, hour int64, asked span) span {
	since, until := query.Window{Since: hourStart(hour), Until: hourStart(hour + 1)}.Bounds()
	return span{max(asked.from, since, v.removed(typeName)), min(asked.until, until)}
}

// chunks calls do with the chunks of a type and hour that have events in a
// time span, in the order in which they came. The values are good only
// within the view.
func (v *view) chunks(typeName string, hour int64, in span, do func(h chunkHeader, value []byte) error) error {
	chunks := hourChunks(v.tx, typeName, hour)
	if chunks == nil {
		return nil
	}
	return chunks.ForEach(func(key, value []byte) error {
		h, err := readChunkHeader(value)
		if err == nil && in.overlaps(h.min, h.max) {
			err = do(h, value)
		}
		if err != nil {
			return fmt.Errorf("%s of hour %s: chunk %d: %w", typeName, hourStart(hour).Format(time.RFC3339), getInt(key), err)
		}
		return nil
	})
}
