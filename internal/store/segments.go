package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"go.etcd.io/bbolt"
)

// segment is what blocks are kept by: an hour, or a day whose hours had few
// events and were joined.
type segment struct {
	first int64 // hour
	hours int64 // 1 or hoursOfDay
}

const (
	hoursOfDay     = 24
	segmentKeySize = 9
)

func (g segment) key() []byte {
	return append(putInt(g.first), byte(g.hours))
}

func readSegmentKey(key []byte) (segment, error) {
	if len(key) != segmentKeySize || key[8] != 1 && key[8] != hoursOfDay {
		return segment{}, fmt.Errorf("key %x is not that of a segment", key)
	}
	return segment{getInt(key[:8]), int64(key[8])}, nil
}

// span returns the time that a segment covers.
func (g segment) span() span {
	return span{hourStart(g.first).UnixNano(), hourStart(g.first + g.hours).UnixNano()}
}

func (g segment) String() string {
	unit := "hour"
	if g.hours > 1 {
		unit = "day"
	}
	return unit + " " + hourStart(g.first).Format(time.RFC3339)
}

// dayOf returns the first hour of the day that an hour is in.
func dayOf(hour int64) int64 {
	day := hour - hour%hoursOfDay
	if hour < day {
		day -= hoursOfDay
	}
	return day
}

// segmentRecord sums up the blocks of a segment.
type segmentRecord struct {
	blocks, rows, blockBytes, indexBytes int64
	min, max                             int64 // times of the first and last event
}

const segmentRecordSize = 6 * 8

func (r segmentRecord) append(dst []byte) []byte {
	for _, n := range []int64{r.blocks, r.rows, r.blockBytes, r.indexBytes, r.min, r.max} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	return dst
}

func readSegmentRecord(b []byte) (r segmentRecord, err error) {
	if len(b) != segmentRecordSize {
		return r, fmt.Errorf("segment record has %d bytes instead of %d", len(b), segmentRecordSize)
	}
	for i, n := range []*int64{&r.blocks, &r.rows, &r.blockBytes, &r.indexBytes, &r.min, &r.max} {
		*n = getInt(b[8*i : 8*i+8])
	}
	return r, nil
}

// add returns the record with one more block.
func (r segmentRecord) add(b encodedBlock) segmentRecord {
	if r.blocks == 0 {
		r.min, r.max = b.min, b.max
	}
	return segmentRecord{
		blocks: r.blocks + 1, rows: r.rows + b.rows,
		blockBytes: r.blockBytes + int64(len(b.block)), indexBytes: r.indexBytes + int64(checksumSize+len(b.index)),
		min: min(r.min, b.min), max: max(r.max, b.max),
	}
}

// encodedBlock is a block on its way to the file.
type encodedBlock struct {
	rows, min, max int64
	block, index   []byte
}

const checksumSize = 4

func checksum(data []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli))
}

// put writes a block behind those of its type, and its segment's record. Blocks
// have numbers in the order in which they were made; none is used again.
func (b encodedBlock) put(tx *bbolt.Tx, typeName string, g segment) error {
	name, key := []byte(typeName), g.key()
	blocks, err := tx.Bucket(bucketBlocks).CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	number, err := blocks.NextSequence()
	if err != nil {
		return err
	}
	ofSegment, err := blocks.CreateBucketIfNotExists(key)
	if err != nil {
		return err
	}
	own, err := ofSegment.CreateBucket(putInt(int64(number)))
	if err != nil {
		return err
	}
	if err := own.Put(keyBlock, b.block); err != nil {
		return err
	}
	if err := own.Put(keyChecksum, checksum(b.block)); err != nil {
		return err
	}
	indexes, err := tx.Bucket(bucketIndexes).CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	indexes.FillPercent = 0.95 // keys mostly come at the end
	if err := indexes.Put(blockKey(g, int64(number)), append(checksum(b.index), b.index...)); err != nil {
		return err
	}
	segments, err := tx.Bucket(bucketSegments).CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	var record segmentRecord
	if old := segments.Get(key); old != nil {
		if record, err = readSegmentRecord(old); err != nil {
			return err
		}
	}
	return segments.Put(key, record.add(b).append(nil))
}

// blockKey is the key of a block's index.
func blockKey(g segment, number int64) []byte { return append(g.key(), putInt(number)...) }

// forEachSegment calls do with the segments of a type, by their first hour.
func forEachSegment(tx *bbolt.Tx, typeName string, do func(g segment, r segmentRecord) error) error {
	segments := tx.Bucket(bucketSegments).Bucket([]byte(typeName))
	if segments == nil {
		return nil
	}
	return segments.ForEach(func(k, v []byte) error {
		g, err := readSegmentKey(k)
		if err != nil {
			return fmt.Errorf("segments of %s: %w", typeName, err)
		}
		r, err := readSegmentRecord(v)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", typeName, g, err)
		}
		return do(g, r)
	})
}

// segmentsIn returns the segments of a type that begin in some hours.
func segmentsIn(tx *bbolt.Tx, typeName string, first, hours int64) (list []segment, err error) {
	segments := tx.Bucket(bucketSegments).Bucket([]byte(typeName))
	if segments == nil {
		return nil, nil
	}
	cursor := segments.Cursor()
	for k, _ := cursor.Seek(putInt(first)); k != nil; k, _ = cursor.Next() {
		g, err := readSegmentKey(k)
		if err != nil {
			return nil, err
		}
		if g.first < first || g.first >= first+hours {
			break
		}
		list = append(list, g)
	}
	return list, nil
}

// forEachBlock calls do with the blocks of a segment, in the order in which
// they were made: their numbers and indexes, which are good within tx.
func forEachBlock(tx *bbolt.Tx, typeName string, g segment, do func(number int64, index []byte) error) error {
	indexes := tx.Bucket(bucketIndexes).Bucket([]byte(typeName))
	if indexes == nil {
		return nil
	}
	prefix := g.key()
	cursor := indexes.Cursor()
	for k, v := cursor.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cursor.Next() {
		if len(k) != segmentKeySize+8 || len(v) < checksumSize {
			return fmt.Errorf("%s of %s: index %x is no such thing", typeName, g, k)
		}
		if err := do(getInt(k[segmentKeySize:]), v); err != nil {
			return err
		}
	}
	return nil
}

// blockBucket returns the bucket of a block, or nil.
func blockBucket(tx *bbolt.Tx, typeName string, g segment, number int64) *bbolt.Bucket {
	b := tx.Bucket(bucketBlocks)
	for _, key := range [][]byte{[]byte(typeName), g.key(), putInt(number)} {
		if b = b.Bucket(key); b == nil {
			return nil
		}
	}
	return b
}

// removeSegment removes a segment with its blocks, but not from rollups.
func removeSegment(tx *bbolt.Tx, typeName string, g segment) error {
	name, key := []byte(typeName), g.key()
	if err := tx.Bucket(bucketSegments).Bucket(name).Delete(key); err != nil {
		return err
	}
	if err := tx.Bucket(bucketBlocks).Bucket(name).DeleteBucket(key); err != nil {
		return err
	}
	var keys [][]byte
	err := forEachBlock(tx, typeName, g, func(number int64, _ []byte) error {
		keys = append(keys, blockKey(g, number))
		return nil
	})
	for i := 0; err == nil && i < len(keys); i++ { // not before: a cursor must not see changes
		err = tx.Bucket(bucketIndexes).Bucket(name).Delete(keys[i])
	}
	return err
}
