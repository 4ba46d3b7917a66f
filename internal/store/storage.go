package store

import (
	"maps"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/migrations"
)

// Storage tells what takes how much room; in detail for each hour.
func (s *Store) Storage(detail bool) (query.Storage, error) {
	limits := s.limits.Load()
	st := query.Storage{Path: s.options.Path, Format: migrations.Version, MaxBytes: limits.MaxTotal}
	if info, err := os.Stat(s.options.Path); err == nil {
		st.FileBytes = info.Size()
	}
	s.damaged.Range(func(any, any) bool { st.Damaged++; return true })
	err := s.view(func(v *view) error {
		st.UsedBytes = v.usedBytes()
		st.FreeBytes = max(0, st.FileBytes-st.UsedBytes)
		for _, name := range slices.Sorted(maps.Keys(s.types)) {
			t, err := v.storageOf(name, limits, detail)
			if err != nil {
				return err
			}
			st.Types = append(st.Types, t)
		}
		return nil
	})
	return st, err
}

func (v *view) storageOf(typeName string, limits *Limits, detail bool) (t query.StorageType, err error) {
	t.Name = typeName
	if t.Bytes, err = v.bytesOf(typeName); err != nil {
		return t, err
	}
	err = v.stored(typeName, func(rows, first, last int64) {
		if oldest := time.Unix(0, first).UTC(); t.Events == 0 || oldest.Before(t.Oldest) {
			t.Oldest = oldest
		}
		if newest := time.Unix(0, last).UTC(); newest.After(t.Newest) {
			t.Newest = newest
		}
		t.Events += rows
	})
	if err != nil {
		return t, err
	}
	units, err := v.units(typeName)
	if err != nil {
		return t, err
	}
	t.Retention = query.Retention{MaxAge: limits.MaxAge[typeName].Seconds(), MaxBytes: limits.MaxSize[typeName]}
	if t.Events > 0 {
		first, err := v.firstVisible(typeName, t.Oldest.UnixNano())
		if err != nil {
			return t, err
		}
		t.Retention.Actual = max(0, v.now.Sub(time.Unix(0, first)).Seconds())
	}
	if perSecond := bytesPerSecond(units, v.now); perSecond > 0 && t.Retention.MaxBytes > 0 {
		t.Retention.Projected = float64(t.Retention.MaxBytes) / perSecond
	}
	if detail {
		t.Hours, err = v.storageHours(typeName, units)
	}
	return t, err
}

// rateSpan is how far back the present rate of events is looked for.
const rateSpan = 24 * time.Hour

// bytesPerSecond returns how fast a type has come to need room lately; 0 if
// that is not known.
func bytesPerSecond(units []unit, now time.Time) float64 {
	since, bytes := now, int64(0)
	for _, u := range units {
		begin := hourStart(u.first)
		if begin.After(now) || now.Sub(hourStart(u.first+u.hours)) > rateSpan {
			continue
		}
		if begin.Before(since) {
			since = begin
		}
		bytes += u.bytes
	}
	if since.Equal(now) {
		return 0
	}
	return float64(bytes) / now.Sub(since).Seconds()
}

func (v *view) storageHours(typeName string, units []unit) (hours []query.StorageHour, err error) {
	at := make(map[int64]int)
	for i, u := range units {
		hours = append(hours, query.StorageHour{Start: hourStart(u.first), Hours: int(u.hours), Bytes: u.bytes, Sealed: true})
		for hour := u.first; hour < u.first+u.hours; hour++ {
			at[hour] = i
		}
	}
	err = forEachSegment(v.tx, typeName, func(g segment, r segmentRecord) error {
		h := &hours[at[g.first]]
		h.Events, h.Blocks = h.Events+r.rows, h.Blocks+r.blocks
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = forEachHour(v.tx, typeName, func(hour int64, r hourRecord) error {
		h := &hours[at[hour]]
		h.Events, h.Sealed = h.Events+r.rows, false
		return nil
	})
	return hours, err
}

// bytesOf adds up what a type takes in the file.
func (v *view) bytesOf(typeName string) (b query.StorageBytes, err error) {
	err = forEachSegment(v.tx, typeName, func(_ segment, r segmentRecord) error {
		b.Blocks += r.blockBytes
		b.Indexes += r.indexBytes
		return nil
	})
	if err != nil {
		return b, err
	}
	err = forEachHour(v.tx, typeName, func(_ int64, h hourRecord) error {
		b.Rows += h.bytes
		return nil
	})
	if err != nil {
		return b, err
	}
	for _, of := range [][]byte{bucketRollups, bucketDays} {
		err := forEachRollup(v.tx, of, typeName, allTime, func(_ int64, rollup *bbolt.Bucket) error {
			b.Rollups += rollupBytes(rollup)
			return nil
		})
		if err != nil {
			return b, err
		}
	}
	b.Carried, err = v.carriedBytes(typeName)
	return b, err
}

// usedBytes is that of the view, as of now; 0 if the file
// cannot be read.
func (s *Store) usedBytes() (used int64) {
	_ = s.view(func(v *view) error {
		used = v.usedBytes()
		return nil
	})
	return used
}

// usedBytes returns the bytes of all pages that are in use.
func (v *view) usedBytes() int64 {
	stats := v.s.db.Stats()
	return v.tx.Size() - int64(stats.FreePageN+stats.PendingPageN)*int64(v.s.db.Info().PageSize)
}
