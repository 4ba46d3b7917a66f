package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// What is carried over is the events that answers about what is open still need
// when their hour is removed: of a type with a life the beginnings of what is open
// in a moment that can be asked for. They have chunks of their own, by the hour of
// the events; carry.go says which come and go.
//
// A program that does not know the place removes events and leaves it as it is, so
// it has the number of the last run that kept it. After any other run nothing in
// there is used.

// readCarriedKey returns the hour of a chunk that was carried over; its number,
// behind that, is the bucket's sequence.
func readCarriedKey(key []byte) (hour int64, err error) {
	if len(key) != 16 {
		return 0, fmt.Errorf("key %x is not that of a chunk", key)
	}
	return getInt(key[:8]), nil
}

// isCarriedKept tells whether the last run kept what is carried over.
func isCarriedKept(tx *bbolt.Tx) bool {
	var run uint64
	if carried := tx.Bucket(bucketCarried); carried != nil {
		run = uint64(getInt(carried.Get(keyRun)))
	}
	return run == tx.Bucket(bucketCoverage).Bucket(bucketRuns).Sequence()
}

// keepCarried makes the place if it is not kept, or not there. What has been
// removed until then is not known.
func keepCarried(tx *bbolt.Tx) error {
	switch kept := isCarriedKept(tx); {
	case kept && tx.Bucket(bucketCarried) != nil:
		return nil
	case !kept && tx.Bucket(bucketCarried) != nil:
		if err := tx.DeleteBucket(bucketCarried); err != nil {
			return err
		}
	}
	carried, err := tx.CreateBucket(bucketCarried)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{bucketSince, bucketEvents} {
		if _, err := carried.CreateBucket(name); err != nil {
			return err
		}
	}
	err = tx.Bucket(bucketMeta).Bucket(bucketRemoved).ForEach(func(typeName, until []byte) error {
		return carried.Bucket(bucketSince).Put(typeName, until)
	})
	if err != nil {
		return err
	}
	return noteCarryingRun(tx)
}

// noteCarryingRun notes that the last run keeps what is carried over.
func noteCarryingRun(tx *bbolt.Tx) error {
	return tx.Bucket(bucketCarried).Put(keyRun, putInt(int64(tx.Bucket(bucketCoverage).Bucket(bucketRuns).Sequence())))
}

// noteNotCarried notes that of what a type's events told before a time some was
// removed and not carried over. The place must be kept.
func noteNotCarried(tx *bbolt.Tx, typeName string, until int64) error {
	since, name := tx.Bucket(bucketCarried).Bucket(bucketSince), []byte(typeName)
	if old := since.Get(name); old != nil {
		until = max(until, getInt(old))
	}
	return since.Put(name, putInt(until))
}

// noteLostCarried notes that events of a type were lost in spans of which that will
// not be known any more.
func (s *Store) noteLostCarried(tx *bbolt.Tx, typeName string, losses [][]byte) error {
	if s.types[typeName].Life == nil || len(losses) == 0 {
		return nil
	}
	if err := keepCarried(tx); err != nil {
		return err
	}
	last, _ := lossSpanOf(losses[len(losses)-1]) // in order of their ends
	return noteNotCarried(tx, typeName, last.until)
}

// carriedSince returns the time from which on it is known of all events of a type
// that were removed what they said of what is open.
func (v *view) carriedSince(typeName string) int64 {
	if !isCarriedKept(v.tx) {
		return v.storedRemoved(typeName)
	}
	if carried := v.tx.Bucket(bucketCarried); carried != nil {
		if since := carried.Bucket(bucketSince).Get([]byte(typeName)); since != nil {
			return getInt(since)
		}
	}
	return math.MinInt64
}

// carriedOf returns the chunks of a type that were carried over; nil if there are none.
func carriedOf(tx *bbolt.Tx, typeName string) *bbolt.Bucket {
	if carried := tx.Bucket(bucketCarried); carried != nil && isCarriedKept(tx) {
		return carried.Bucket(bucketEvents).Bucket([]byte(typeName))
	}
	return nil
}

// removals counts the units of a type that were removed: whoever looks at a file in
// several views sees by it whether something was carried over meanwhile.
func (v *view) removals(typeName string) uint64 {
	if carried := carriedOf(v.tx, typeName); carried != nil {
		return carried.Sequence()
	}
	return 0
}

// carriedChunks calls do with the chunks that have events in a span. What it is
// given to name the place of an error returns nil for none.
func (v *view) carriedChunks(typeName string, in span, do func(value []byte, failed func(error) error) error) error {
	carried := carriedOf(v.tx, typeName)
	if carried == nil {
		return nil
	}
	return carried.ForEach(func(key, value []byte) error {
		failed := func(err error) error {
			if err != nil {
				err = fmt.Errorf("%s that was carried over: chunk %x: %w", typeName, key, err)
			}
			return err
		}
		h, err := readChunkHeader(value)
		if err == nil && in.overlaps(h.min, h.max) {
			return do(value, failed)
		}
		return failed(err)
	})
}

// carriedEvents returns the events that were carried over and match, by hour.
func (s *Store) carriedEvents(t *event.Type, in span, filters query.Filters) (*event.Batch, error) {
	found, matcher := event.NewBatch(t, 0), filters.Compile(t)
	if matcher.Nothing() {
		return found, nil
	}
	return found, s.view(func(v *view) error {
		return v.carriedChunks(t.Name, in, func(value []byte, failed func(error) error) error {
			k, err := s.codec.open(value, s.schemas)
			if err != nil {
				return failed(err)
			}
			b, err := k.batch(t, matcher.Columns())
			if err != nil {
				return failed(err)
			}
			rows := matcher.Select(b, in.window(), nil)
			if len(rows) == 0 {
				return nil
			}
			if err := k.fill(b, allColumns(t)); err != nil {
				return failed(err)
			}
			found.AppendRows(b, rows)
			return nil
		})
	})
}

// carriedBytes adds up what a type has carried over.
func (v *view) carriedBytes(typeName string) (bytes int64, err error) {
	if carried := carriedOf(v.tx, typeName); carried != nil {
		err = carried.ForEach(func(_, value []byte) error {
			bytes += int64(len(value))
			return nil
		})
	}
	return bytes, err
}

// carriedShare is what part of a limit of size may be carried over. It bounds what
// could not be removed otherwise; 100,000 connections that are open take some MB.
const carriedShare = 4

// limitCarried removes what was carried over of the oldest hours, where all of it
// takes too much.
func (s *Store) limitCarried(limits *Limits) error {
	sizes := make(map[string]int64)
	err := s.view(func(v *view) (err error) {
		for name := range s.types {
			if sizes[name], err = v.carriedBytes(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, size := range sizes {
		for _, limit := range []int64{limits.MaxSize[name], limits.MaxTotal} {
			if excess := size - limit/carriedShare; limit > 0 && excess > 0 {
				if err := s.update(func(tx *bbolt.Tx) error { return shedCarried(tx, name, excess) }); err != nil {
					return fmt.Errorf("remove what was carried over of %s: %w", name, err)
				}
				size -= excess
			}
		}
	}
	return nil
}

// shedCarried removes at least so many bytes of the oldest.
func shedCarried(tx *bbolt.Tx, typeName string, excess int64) error {
	carried := carriedOf(tx, typeName)
	if carried == nil {
		return nil
	}
	var keys [][]byte
	cursor := carried.Cursor()
	for key, value := cursor.First(); key != nil && excess > 0; key, value = cursor.Next() {
		keys, excess = append(keys, bytes.Clone(key)), excess-int64(len(value))
	}
	if len(keys) == 0 {
		return nil
	}
	hour, err := readCarriedKey(keys[len(keys)-1])
	if err != nil {
		return err
	}
	return errors.Join(deleteAll(carried, keys), noteNotCarried(tx, typeName, hourStart(hour+1).UnixNano()))
}

// checkCarried reads all that was carried over.
func (s *Store) checkCarried(tx *bbolt.Tx, done func(bytes int64)) error {
	carried := tx.Bucket(bucketCarried)
	if carried == nil {
		return nil
	}
	if since, events := carried.Bucket(bucketSince), carried.Bucket(bucketEvents); since == nil || events == nil {
		return fmt.Errorf("%s lacks the bucket %s or %s", bucketCarried, bucketSince, bucketEvents)
	}
	if run, last := uint64(getInt(carried.Get(keyRun))), tx.Bucket(bucketCoverage).Bucket(bucketRuns).Sequence(); run > last {
		return fmt.Errorf("%s was kept by run %d, and the last one is %d", bucketCarried, run, last)
	}
	return carried.Bucket(bucketEvents).ForEachBucket(func(name []byte) error {
		chunks := carried.Bucket(bucketEvents).Bucket(name)
		return chunks.ForEach(func(key, value []byte) error {
			if err := s.checkCarriedChunk(string(name), key, value, chunks.Sequence()); err != nil {
				return fmt.Errorf("%s that was carried over: chunk %x: %w", name, key, err)
			}
			done(int64(len(value)))
			return nil
		})
	})
}

func (s *Store) checkCarriedChunk(typeName string, key, value []byte, last uint64) error {
	hour, err := readCarriedKey(key)
	if err != nil {
		return err
	}
	if bytes.Compare(key[8:], putInt(int64(last))) > 0 {
		return fmt.Errorf("its key is above the bucket's sequence %d", last)
	}
	k, err := s.codec.open(value, s.schemas)
	if err != nil {
		return err
	}
	if err := k.check(typeName, hour); err != nil {
		return err
	}
	t := s.types[typeName]
	if t == nil || t.Life == nil {
		return nil
	}
	marks := newLifeMarks(t)
	b, err := k.batch(t, marks.columns)
	if err == nil && len(marks.of(b)) != b.Len() {
		err = fmt.Errorf("%d of its %d events neither begin nor end anything", b.Len()-len(marks.of(b)), b.Len())
	}
	return err
}
