package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// retentionInterval is how often old events are looked for.
func (s *Store) retentionInterval() time.Duration {
	interval := time.Minute
	for _, maxAge := range s.options.Retention {
		if maxAge > 0 {
			interval = min(interval, maxAge/2)
		}
	}
	return interval
}

// retain removes the hours of which every event is older than the type's max
// age. Older events in an hour that stays are hidden from answers already,
// see view.removed.
func (s *Store) retain() error {
	var errs []error
	for typeName, maxAge := range s.options.Retention {
		if maxAge <= 0 {
			continue
		}
		if err := s.removeBefore(typeName, s.now().Add(-maxAge)); err != nil {
			errs = append(errs, fmt.Errorf("remove old events of %s: %w", typeName, err))
		}
	}
	return errors.Join(errs...)
}

// removeBefore takes a transaction for each hour: deleting much at once makes
// later commits slow.
func (s *Store) removeBefore(typeName string, before time.Time) error {
	limit := before.UnixNano()
	var old []int64
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			return forEachHour(tx, typeName, func(hour int64, h hourRecord) error {
				if h.max < limit {
					old = append(old, hour)
				}
				return nil
			})
		})
	})
	for i := 0; err == nil && i < len(old); i++ {
		err = s.update(func(tx *bbolt.Tx) error { return removeHour(tx, typeName, old[i], limit) })
	}
	return err
}

// removeHour removes an hour and remembers how far nothing is complete any more.
func removeHour(tx *bbolt.Tx, typeName string, hour, limit int64) error {
	key, name := putInt(hour), []byte(typeName)
	record, err := readHourRecord(tx.Bucket(bucketHours).Bucket(name).Get(key))
	if err != nil || record.max >= limit {
		return err // a late event came meanwhile: the hour stays
	}
	if err := tx.Bucket(bucketEvents).Bucket(name).DeleteBucket(key); err != nil {
		return err
	}
	if err := tx.Bucket(bucketHours).Bucket(name).Delete(key); err != nil {
		return err
	}
	removed := tx.Bucket(bucketMeta).Bucket(bucketRemoved)
	until := min(limit, hourStart(hour+1).UnixNano())
	if old := removed.Get(name); old != nil {
		until = max(until, getInt(old))
	}
	if err := removed.Put(name, putInt(until)); err != nil {
		return err
	}
	return removeLosses(tx, typeName, until)
}
