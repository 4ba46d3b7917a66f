package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// lossKey says what was lost and where.
type lossKey struct{ typeName, place string }

// putLosses writes what was lost while a part was filled: how much of each type
// and place in that span of time, and the totals.
func putLosses(tx *bbolt.Tx, p *part, now time.Time) error {
	coverage := tx.Bucket(bucketCoverage)
	for k, n := range p.lost {
		losses, err := coverage.Bucket(bucketLosses).CreateBucketIfNotExists([]byte(k.typeName))
		if err != nil {
			return err
		}
		from, until := lossSpan(p, now)
		key := slices.Concat(putInt(until), putInt(from), []byte(k.place))
		if err := losses.Put(key, putInt(n)); err != nil {
			return err
		}
		total := []byte(k.typeName + "/" + k.place)
		if err := coverage.Bucket(bucketLost).Put(total, putInt(n+getInt(coverage.Bucket(bucketLost).Get(total)))); err != nil {
			return err
		}
	}
	return nil
}

// lossSpan is in order even if the clock was set back meanwhile.
func lossSpan(p *part, now time.Time) (from, until int64) {
	since := p.since
	if !p.lostAt.IsZero() && p.lostAt.Before(since) {
		since = p.lostAt
	}
	a, b := since.UnixNano(), now.UnixNano()
	return min(a, b), max(a, b)
}

// lossesIn adds up what the file says was lost of a type in spans that overlap
// a window. A span counts fully: nobody knows when in it the loss was.
func lossesIn(tx *bbolt.Tx, typeName string, in span) (int64, error) {
	losses := lossesOf(tx, typeName)
	if losses == nil {
		return 0, nil
	}
	var sum int64
	cursor := losses.Cursor()
	for k, v := cursor.Seek(putInt(max(in.from, 0))); k != nil; k, v = cursor.Next() {
		lost, ok := lossSpanOf(k)
		if !ok {
			return 0, fmt.Errorf("losses of %s: key %x is too short", typeName, k)
		}
		if lost.from < in.until {
			sum += getInt(v)
		}
	}
	return sum, nil
}

// lossesOf returns what the file has of a type, nil if it has nothing.
func lossesOf(tx *bbolt.Tx, typeName string) *bbolt.Bucket {
	return tx.Bucket(bucketCoverage).Bucket(bucketLosses).Bucket([]byte(typeName))
}

// lossSpanOf returns the span of a key, unless it is too short, which Check reports.
func lossSpanOf(key []byte) (in span, ok bool) {
	if len(key) < 16 {
		return in, false
	}
	return span{getInt(key[8:16]), getInt(key[:8]) + 1}, true
}

// lostTotals returns what was lost since the file was made.
func lostTotals(tx *bbolt.Tx) (map[lossKey]int64, error) {
	totals := make(map[lossKey]int64)
	err := tx.Bucket(bucketCoverage).Bucket(bucketLost).ForEach(func(k, v []byte) error {
		typeName, place, ok := strings.Cut(string(k), "/")
		if !ok || len(v) != 8 {
			return fmt.Errorf("lost total %q is no such thing", k)
		}
		totals[lossKey{typeName, place}] = getInt(v)
		return nil
	})
	return totals, err
}
