package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
)

// Check reads everything in the file and reports what is damaged or does not
// agree. Nothing is written meanwhile. Progress, if not nil, is told bytes.
func (s *Store) Check(progress func(done, total int64)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			var errs []error
			for err := range tx.Check() {
				errs = append(errs, err)
			}
			if len(errs) > 0 {
				return errors.Join(errs...) // nothing below can be relied on
			}
			var done int64
			read := func(bytes int64) {
				if done += bytes; progress != nil {
					progress(min(done, tx.Size()), tx.Size())
				}
			}
			errs = append(errs, s.checkEvents(tx, read), checkCoverage(tx), s.checkCarried(tx, read))
			for _, t := range s.Types() {
				errs = append(errs, s.checkSealed(tx, t, read))
			}
			read(tx.Size())
			return errors.Join(errs...)
		})
	})
	if err != nil {
		return fmt.Errorf("check %s: %w", s.options.Path, err)
	}
	return nil
}

func (s *Store) checkEvents(tx *bbolt.Tx, done func(bytes int64)) error {
	events, hours := tx.Bucket(bucketEvents), tx.Bucket(bucketHours)
	err := hours.ForEachBucket(func(name []byte) error {
		if events.Bucket(name) == nil {
			return fmt.Errorf("%s has hour records and no events", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return events.ForEachBucket(func(name []byte) error {
		if hours.Bucket(name) == nil {
			return fmt.Errorf("%s has events and no hour records", name)
		}
		seen := 0
		err := events.Bucket(name).ForEachBucket(func(key []byte) error {
			seen++
			if err := s.checkHour(string(name), getInt(key), tx, done); err != nil {
				return fmt.Errorf("%s of hour %s: %w", name, hourStart(getInt(key)).Format(time.RFC3339), err)
			}
			return nil
		})
		if recorded := hours.Bucket(name).Stats().KeyN; err == nil && recorded != seen {
			err = fmt.Errorf("%s has events of %d hours and records of %d", name, seen, recorded)
		}
		return err
	})
}

// checkHour decodes every value of an hour and compares it with its record.
func (s *Store) checkHour(name string, hour int64, tx *bbolt.Tx, done func(bytes int64)) error {
	want, err := readHourRecord(tx.Bucket(bucketHours).Bucket([]byte(name)).Get(putInt(hour)))
	if err != nil {
		return err
	}
	var got hourRecord
	bucket := hourChunks(tx, name, hour)
	err = bucket.ForEach(func(key, value []byte) error {
		k, err := s.codec.open(value, s.schemas)
		if err == nil {
			err = k.check(name, hour)
		}
		if sequence := getInt(key); err == nil && (sequence < 1 || uint64(sequence) > bucket.Sequence()) {
			err = fmt.Errorf("its key is above the bucket's sequence %d", bucket.Sequence())
		}
		if err != nil {
			return fmt.Errorf("chunk %x: %w", key, err)
		}
		done(int64(len(value)))
		got = got.add(encodedChunk{rows: int64(k.rows), min: k.min, max: k.max, value: value})
		return nil
	})
	if err == nil && got != want {
		err = fmt.Errorf("chunks and record do not agree: %+v and %+v", got, want)
	}
	return err
}

// check decodes a whole chunk as its own schema declares it.
func (k *chunk) check(name string, hour int64) error {
	if k.schema.Name != name {
		return fmt.Errorf("its schema is that of %s", k.schema.Name)
	}
	if hourOf(k.min) != hour || hourOf(k.max) != hour {
		return fmt.Errorf("its events are of another hour: %d to %d", k.min, k.max)
	}
	t, err := k.schema.declare()
	if err != nil {
		return err
	}
	b := &event.Batch{Type: t, Columns: make([]event.Vector, len(t.Columns))}
	return k.fill(b, allColumns(t))
}

func checkCoverage(tx *bbolt.Tx) error {
	if err := forEachRun(tx, func([]byte, *run) error { return nil }); err != nil {
		return err
	}
	totals, err := lostTotals(tx)
	if err != nil {
		return err
	}
	if err := checkFiltered(tx); err != nil {
		return err
	}
	losses := tx.Bucket(bucketCoverage).Bucket(bucketLosses)
	return losses.ForEachBucket(func(name []byte) error {
		sums := make(map[lossKey]int64)
		err := losses.Bucket(name).ForEach(func(key, value []byte) error {
			if len(key) <= 16 || len(value) != 8 {
				return fmt.Errorf("loss %x of %s is no such thing", key, name)
			}
			sums[lossKey{string(name), string(key[16:])}] += getInt(value)
			return nil
		})
		for key, n := range sums {
			if err == nil && n > totals[key] { // retention removes losses, not totals
				err = fmt.Errorf("losses of %s at %s are %d, more than their total %d", name, key.place, n, totals[key])
			}
		}
		return err
	})
}

func checkFiltered(tx *bbolt.Tx) error {
	all := tx.Bucket(bucketCoverage).Bucket(bucketFiltered)
	if all == nil {
		return nil
	}
	return all.ForEach(func(key, value []byte) error {
		return forEachFiltered(key, value, func(filteredKey, int64) {})
	})
}
