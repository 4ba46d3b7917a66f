package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// checkSealed reads all blocks of a type, a day at a time, and compares them
// with their records, indexes and rollups.
func (s *Store) checkSealed(tx *bbolt.Tx, t *event.Type, done func(bytes int64)) error {
	var blocks int64
	days := make(map[int64][]segment)
	err := forEachSegment(tx, t.Name, func(g segment, r segmentRecord) error {
		blocks += r.blocks
		days[dayOf(g.first)] = append(days[dayOf(g.first)], g)
		return nil
	})
	if err != nil {
		return err
	}
	var errs []error
	counted := 0
	for _, day := range slices.Sorted(maps.Keys(days)) {
		hours := make(map[int64]*query.Aggregator)
		for _, g := range days[day] {
			if err := s.checkSegment(tx, t, g, hours, done); err != nil {
				errs = append(errs, fmt.Errorf("%s of %s: %w", t.Name, g, err))
			}
		}
		counted += len(hours)
		if len(errs) == 0 { // damaged blocks are not in hours
			errs = append(errs, s.checkRollups(tx, t, day, hours))
		}
	}
	rollups := 0
	err = forEachRollup(tx, bucketRollups, t.Name, allTime, func(int64, *bbolt.Bucket) error {
		rollups++
		return nil
	})
	if err == nil && rollups != counted {
		err = fmt.Errorf("%s has %d hours in blocks and rollups of %d", t.Name, counted, rollups)
	}
	return errors.Join(append(errs, err, checkCounts(tx, t.Name, blocks), s.checkDays(tx, t))...)
}

func (s *Store) checkSegment(tx *bbolt.Tx, t *event.Type, g segment, hours map[int64]*query.Aggregator, done func(bytes int64)) error {
	want, err := readSegmentRecord(tx.Bucket(bucketSegments).Bucket([]byte(t.Name)).Get(g.key()))
	if err != nil {
		return err
	}
	var got segmentRecord
	err = forEachBlock(tx, t.Name, g, func(number int64, index []byte) error {
		b, err := s.checkBlock(tx, t, g, number, index, hours)
		if err != nil {
			return fmt.Errorf("block %d: %w", number, err)
		}
		got = got.add(b)
		done(int64(len(b.block)))
		return nil
	})
	if err == nil && got != want {
		err = fmt.Errorf("blocks and record do not agree: %+v and %+v", got, want)
	}
	return err
}

// checkCounts finds blocks and indexes that no segment knows of.
func checkCounts(tx *bbolt.Tx, typeName string, want int64) error {
	var inBlocks, inIndexes int64
	if all := tx.Bucket(bucketBlocks).Bucket([]byte(typeName)); all != nil {
		err := all.ForEachBucket(func(key []byte) error {
			return all.Bucket(key).ForEachBucket(func([]byte) error {
				inBlocks++
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	if all := tx.Bucket(bucketIndexes).Bucket([]byte(typeName)); all != nil {
		inIndexes = int64(all.Stats().KeyN)
	}
	if inBlocks != want || inIndexes != want {
		return fmt.Errorf("%s has %d blocks and %d indexes, and segments of %d", typeName, inBlocks, inIndexes, want)
	}
	return nil
}

// checkBlock reads a whole block and counts its events by hour.
func (s *Store) checkBlock(tx *bbolt.Tx, t *event.Type, g segment, number int64, index []byte, hours map[int64]*query.Aggregator) (e encodedBlock, err error) {
	bucket := blockBucket(tx, t.Name, g, number)
	if bucket == nil {
		return e, errors.New("it is not there")
	}
	value := bucket.Get(keyBlock)
	if !bytes.Equal(checksum(value), bucket.Get(keyChecksum)) {
		return e, errors.New("its checksum is wrong")
	}
	opened, err := block.Open(value, t)
	if err != nil {
		return e, err
	}
	b, err := opened.Read(allColumns(t))
	if err != nil {
		return e, err
	}
	times := b.Columns[event.Time].Ints
	e = encodedBlock{rows: int64(len(times)), min: times[0], max: times[len(times)-1], block: value, index: index[checksumSize:]}
	if in := g.span(); e.min < in.from || e.max >= in.until {
		return e, fmt.Errorf("its events are of another time: %d to %d", e.min, e.max)
	}
	if err := checkIndex(index, b); err != nil {
		return e, fmt.Errorf("index: %w", err)
	}
	for hour, rows := range rowsByHour(b) {
		if hours[hour] == nil {
			hours[hour] = query.NewRollup(t)
		}
		if err := hours[hour].Add(b, rows); err != nil && !tooMany(err) {
			return e, err
		}
	}
	return e, nil
}

// checkIndex makes sure that an index denies nothing that is there.
func checkIndex(index []byte, b *event.Batch) error {
	if !bytes.Equal(checksum(index[checksumSize:]), index[:checksumSize]) {
		return errors.New("its checksum is wrong")
	}
	x, err := block.OpenIndex(index[checksumSize:])
	if err != nil {
		return err
	}
	times := b.Columns[event.Time].Ints
	if first, last := x.Times(); x.Rows() != len(times) || first != times[0] || last != times[len(times)-1] {
		return fmt.Errorf("it is of %d events from %d to %d", x.Rows(), first, last)
	}
	if name := missing(&x, b); name != "" {
		return fmt.Errorf("it denies a value of %s", name)
	}
	return nil
}

// missing returns the column of a value that an index denies, if there is one.
func missing(x *block.Index, b *event.Batch) string {
	for _, name := range indexedColumns {
		at, ok := b.Type.Column(name)
		if !ok {
			continue
		}
		v := &b.Columns[at]
		for i, n := range v.Ints {
			if v.Valid[i] && !x.MayContain(name, block.IntKey(name, n)) {
				return name
			}
		}
		for _, text := range v.Dict {
			key := block.TextKey(name, text)
			if b.Type.Columns[at].Kind == event.KindIP {
				ip, _ := netip.AddrFromSlice([]byte(text)) // 4 or 16 bytes
				key = block.IPKey(name, ip)
			}
			if !x.MayContain(name, key) {
				return name
			}
		}
	}
	return ""
}

// checkRollups compares the rollups of a day's hours with what its blocks make.
func (s *Store) checkRollups(tx *bbolt.Tx, t *event.Type, day int64, hours map[int64]*query.Aggregator) error {
	return forEachRollup(tx, bucketRollups, t.Name, segment{day, hoursOfDay}.span(), func(hour int64, bucket *bbolt.Bucket) error {
		if hours[hour] == nil {
			return errors.New("there are no blocks that it counts")
		}
		return s.compareRollup(bucket, t, hours[hour])
	})
}

func (s *Store) compareRollup(bucket *bbolt.Bucket, t *event.Type, want *query.Aggregator) error {
	if !s.usable(bucket, t) {
		return nil
	}
	stored := query.NewRollup(t)
	if err := s.codec.addWhole(stored, t, bucket, 0); err != nil {
		return err
	}
	a, err := json.Marshal(stored.Result())
	if err != nil {
		return err
	}
	b, err := json.Marshal(want.Result())
	if err == nil && !bytes.Equal(a, b) {
		err = errors.New("it is not the sum of its events")
	}
	return err
}

// checkDays compares the rollups of days with those of their hours.
func (s *Store) checkDays(tx *bbolt.Tx, t *event.Type) error {
	return forEachRollup(tx, bucketDays, t.Name, allTime, func(day int64, bucket *bbolt.Bucket) error {
		if !s.usable(bucket, t) {
			return nil
		}
		sum := query.NewRollup(t)
		err := forEachRollup(tx, bucketRollups, t.Name, segment{day, hoursOfDay}.span(), func(hour int64, of *bbolt.Bucket) error {
			if !s.usable(of, t) {
				return errors.New("one of its hours cannot be counted")
			}
			return s.codec.addWhole(sum, t, of, hour)
		})
		if err != nil {
			return err
		}
		return s.compareRollup(bucket, t, sum)
	})
}
