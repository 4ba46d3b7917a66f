package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

const minutesOfHour = 60

// minuteSpan is some whole minutes, counted from the Unix epoch; last is one of them.
type minuteSpan struct{ first, last int64 }

// minutesOf is in order even if the clock was set back meanwhile.
func minutesOf(a, b time.Time) minuteSpan {
	return minuteSpan{minuteOf(min(a.UnixNano(), b.UnixNano())), minuteOf(max(a.UnixNano(), b.UnixNano()))}
}

// minuteOf takes times before the Unix epoch, which only a wrong clock can show,
// for its beginning.
func minuteOf(unixNano int64) int64 { return max(unixNano, 0) / int64(time.Minute) }

func (m minuteSpan) overlaps(in span) bool {
	return m.first <= minuteOf(in.until-1) && m.last >= minuteOf(in.from)
}

// filteredKey says what was left out, by which kind of rule, and when.
type filteredKey struct {
	typeName, kind string
	minuteSpan
}

// putFiltered adds what was left out while a part was filled to the counts of
// the hours in which it was counted.
func putFiltered(tx *bbolt.Tx, p *part) error {
	for k, n := range p.filtered {
		// Files that are older than these counts have no bucket for them.
		all, err := tx.Bucket(bucketCoverage).CreateBucketIfNotExists(bucketFiltered)
		if err != nil {
			return err
		}
		ofType, err := all.CreateBucketIfNotExists([]byte(k.typeName))
		if err != nil {
			return err
		}
		key := append(putInt(k.last/minutesOfHour), k.kind...)
		counts := make(map[minuteSpan]int64)
		if value := ofType.Get(key); value != nil {
			if err := forEachFiltered(key, value, func(m minuteSpan, n int64) { counts[m] = n }); err != nil {
				return err
			}
		}
		counts[k.minuteSpan] += n
		if err := ofType.Put(key, appendFiltered(nil, counts)); err != nil {
			return err
		}
	}
	return nil
}

// appendFiltered writes the counts of one hour; docs/format.md draws it.
func appendFiltered(dst []byte, counts map[minuteSpan]int64) []byte {
	ordered := slices.SortedFunc(maps.Keys(counts), func(a, b minuteSpan) int {
		return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.first, b.first))
	})
	for _, m := range ordered {
		dst = binary.AppendUvarint(dst, uint64(m.last%minutesOfHour))
		dst = binary.AppendUvarint(dst, uint64(m.last-m.first))
		dst = binary.AppendUvarint(dst, uint64(counts[m]))
	}
	return dst
}

var errNoFiltered = errors.New("it is no such thing")

// forEachFiltered reads what appendFiltered wrote.
func forEachFiltered(key, value []byte, do func(m minuteSpan, n int64)) error {
	bad := func() error { return fmt.Errorf("filtered counts %x: %w", key, errNoFiltered) }
	hour := filteredHour(key)
	if hour < 0 || hour > hourOf(math.MaxInt64) {
		return bad()
	}
	for len(value) > 0 {
		var numbers [3]uint64
		for i := range numbers {
			n, size := binary.Uvarint(value)
			if size <= 0 {
				return bad()
			}
			numbers[i], value = n, value[size:]
		}
		last := hour*minutesOfHour + int64(numbers[0]%minutesOfHour)
		if numbers[0] >= minutesOfHour || numbers[1] > uint64(last) || numbers[2] == 0 || numbers[2] > math.MaxInt64 {
			return bad()
		}
		do(minuteSpan{last - int64(numbers[1]), last}, int64(numbers[2]))
	}
	return nil
}

// filteredHour returns the hour of a key, -1 for what is no key.
func filteredHour(key []byte) int64 {
	if len(key) <= 8 {
		return -1
	}
	return getInt(key[:8])
}

// filteredOf returns what the file has of a type, nil if it has nothing.
func filteredOf(tx *bbolt.Tx, typeName string) *bbolt.Bucket {
	if all := tx.Bucket(bucketCoverage).Bucket(bucketFiltered); all != nil {
		return all.Bucket([]byte(typeName))
	}
	return nil
}

// filtered adds up what was left out of a type, by kind, in file and memory:
// in all minutes that overlap a window, as nobody knows when in them it was.
func (v *view) filtered(typeName string, in span) (map[string]int64, error) {
	sums := make(map[string]int64)
	if ofType := filteredOf(v.tx, typeName); ofType != nil {
		cursor := ofType.Cursor()
		for k, value := cursor.Seek(putInt(hourOf(max(in.from, 0)))); k != nil; k, value = cursor.Next() {
			err := forEachFiltered(k, value, func(m minuteSpan, n int64) {
				if m.overlaps(in) {
					sums[string(k[8:])] += n
				}
			})
			if err != nil {
				return nil, fmt.Errorf("coverage of %s: %w", typeName, err)
			}
		}
	}
	for _, p := range v.parts {
		for k, n := range p.filtered {
			if k.typeName == typeName && k.overlaps(in) {
				sums[k.kind] += n
			}
		}
	}
	return sums, nil
}
