package store

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// hourRecord sums up the chunks of one type and hour. The records stand apart
// from the events, so that what is there can be seen without touching those.
type hourRecord struct {
	chunks, rows, bytes int64
	min, max            int64 // times of the first and last event
}

const hourRecordSize = 5 * 8

func (h hourRecord) append(dst []byte) []byte {
	for _, n := range []int64{h.chunks, h.rows, h.bytes, h.min, h.max} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	return dst
}

func readHourRecord(b []byte) (h hourRecord, err error) {
	if len(b) != hourRecordSize {
		return h, fmt.Errorf("hour record has %d bytes instead of %d", len(b), hourRecordSize)
	}
	for i, n := range []*int64{&h.chunks, &h.rows, &h.bytes, &h.min, &h.max} {
		*n = getInt(b[8*i : 8*i+8])
	}
	return h, nil
}

// add returns the record with one more chunk.
func (h hourRecord) add(c encodedChunk) hourRecord {
	if h.chunks == 0 {
		h.min, h.max = c.min, c.max
	}
	return hourRecord{
		chunks: h.chunks + 1, rows: h.rows + c.rows, bytes: h.bytes + int64(len(c.value)),
		min: min(h.min, c.min), max: max(h.max, c.max),
	}
}

// put writes a chunk behind those of its hour, and the hour's record.
func (c encodedChunk) put(tx *bbolt.Tx) error {
	hours, err := tx.Bucket(bucketHours).CreateBucketIfNotExists([]byte(c.typeName))
	if err != nil {
		return err
	}
	events, err := tx.Bucket(bucketEvents).CreateBucketIfNotExists([]byte(c.typeName))
	if err != nil {
		return err
	}
	key := putInt(c.hour)
	chunks, err := events.CreateBucketIfNotExists(key)
	if err != nil {
		return err
	}
	chunks.FillPercent = 0.95 // keys only ever come at the end
	sequence, err := chunks.NextSequence()
	if err != nil {
		return err
	}
	if err := chunks.Put(putInt(int64(sequence)), c.value); err != nil {
		return err
	}
	var record hourRecord
	if old := hours.Get(key); old != nil {
		if record, err = readHourRecord(old); err != nil {
			return err
		}
	}
	return hours.Put(key, record.add(c).append(nil))
}

// forEachHour calls do with the records of a type, if the file has any.
func forEachHour(tx *bbolt.Tx, typeName string, do func(hour int64, h hourRecord) error) error {
	hours := tx.Bucket(bucketHours).Bucket([]byte(typeName))
	if hours == nil {
		return nil
	}
	return hours.ForEach(func(k, v []byte) error {
		h, err := readHourRecord(v)
		if err != nil {
			return fmt.Errorf("hours of %s: %w", typeName, err)
		}
		return do(getInt(k), h)
	})
}

// hourChunks returns the bucket with the chunks of a type and hour, or nil.
func hourChunks(tx *bbolt.Tx, typeName string, hour int64) *bbolt.Bucket {
	events := tx.Bucket(bucketEvents).Bucket([]byte(typeName))
	if events == nil {
		return nil
	}
	return events.Bucket(putInt(hour))
}
