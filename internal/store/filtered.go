package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
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
		key := fmt.Appendf(putInt(k.last/minutesOfHour), "%s/%s", k.typeName, k.kind)
		counts := make(map[minuteSpan]int64)
		// What is damaged there must not keep events from being stored.
		_ = forEachFiltered(key, all.Get(key), func(k filteredKey, n int64) { counts[k.minuteSpan] = n })
		counts[k.minuteSpan] += n
		if err := all.Put(key, appendFiltered(nil, counts)); err != nil {
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

// readFilteredKey reads a key: the hour, the type and the kind of rule.
func readFilteredKey(key []byte) (hour int64, k filteredKey, ok bool) {
	if len(key) < 8 {
		return 0, k, false
	}
	hour = getInt(key[:8])
	k.typeName, k.kind, ok = strings.Cut(string(key[8:]), "/")
	return hour, k, ok && hour >= 0 && hour <= hourOf(math.MaxInt64)
}

// forEachFiltered reads a key, and what appendFiltered wrote there.
func forEachFiltered(key, value []byte, do func(k filteredKey, n int64)) error {
	bad := func() error { return fmt.Errorf("filtered counts %q are no such thing", key) }
	hour, k, ok := readFilteredKey(key)
	if !ok {
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
		k.minuteSpan = minuteSpan{last - int64(numbers[1]), last}
		do(k, int64(numbers[2]))
	}
	return nil
}

// filtered adds up what was left out of a type, by kind, in file and memory:
// in all minutes that overlap a window, as nobody knows when in them it was.
func (v *view) filtered(typeName string, in span) (map[string]int64, error) {
	sums := make(map[string]int64)
	note := func(k filteredKey, n int64) {
		if k.typeName == typeName && k.overlaps(in) {
			sums[k.kind] += n
		}
	}
	if all := v.tx.Bucket(bucketCoverage).Bucket(bucketFiltered); all != nil {
		cursor := all.Cursor()
		for key, value := cursor.Seek(putInt(hourOf(max(in.from, 0)))); key != nil; key, value = cursor.Next() {
			if err := forEachFiltered(key, value, note); err != nil {
				return nil, fmt.Errorf("read coverage: %w", err)
			}
		}
	}
	for _, p := range v.parts {
		for k, n := range p.filtered {
			note(k, n)
		}
	}
	return sums, nil
}
