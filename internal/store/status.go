package store

import (
	"maps"
	"os"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/query"
)

// Status is the state of a store. It is declared where those who show it find it.
type Status = query.Status

// Status tells what the store holds and how writing goes. A file that cannot
// be read is told as LastError.
func (s *Store) Status() Status {
	s.mu.Lock()
	st := Status{Path: s.options.Path, ReadOnly: s.options.ReadOnly, Pending: s.pending.rows, LastFlush: s.lastFlush, ErrorSince: s.errorSince}
	if s.flushing != nil {
		st.Pending += s.flushing.rows
	}
	if s.lastError != nil {
		st.LastError = s.lastError.Error()
	}
	appended, lost, present := maps.Clone(s.appended), maps.Clone(s.lost), s.run
	s.mu.Unlock()

	if info, err := os.Stat(s.options.Path); err == nil {
		st.Bytes = info.Size()
	}
	err := s.view(func(v *view) error {
		st.FreeBytes = max(0, st.Bytes-v.usedBytes())
		totals, err := lostTotals(v.tx)
		if err != nil {
			return err
		}
		for _, p := range v.parts {
			for key, n := range p.lost {
				totals[key] += n
			}
		}
		for _, name := range v.typeNames(totals) {
			t, err := v.typeStatus(name)
			if err != nil {
				return err
			}
			t.Appended, t.Recorded, t.MaxAge = appended[name], present.records(name), s.limits.Load().MaxAge[name]
			t.Lost, t.LostTotal = placesOf(lost, name), placesOf(totals, name)
			t.Lost[placeWriteFailed] += 0 // there as soon as the monitor is, as its own places are
			st.Types = append(st.Types, t)
		}
		return nil
	})
	if err != nil {
		st.LastError = err.Error()
	}
	return st
}

// typeNames returns the types that can be asked for and those that something
// was lost of, in order.
func (v *view) typeNames(lost map[lossKey]int64) []string {
	names := slices.Collect(maps.Keys(v.s.types))
	for key := range lost {
		names = append(names, key.typeName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (v *view) typeStatus(name string) (query.TypeStatus, error) {
	t := query.TypeStatus{Name: name}
	note := func(rows, first, last int64) {
		oldest, newest := time.Unix(0, first).UTC(), time.Unix(0, last).UTC()
		if t.Events == 0 || oldest.Before(t.Oldest) {
			t.Oldest = oldest
		}
		if newest.After(t.Newest) {
			t.Newest = newest
		}
		t.Events += rows
	}
	if err := v.stored(name, note); err != nil {
		return t, err
	}
	bytes, err := v.bytesOf(name)
	t.Bytes = bytes.Total()
	v.batches(name, func(m memoryBatch) { note(int64(m.Len()), m.min, m.max) })
	return t, err
}

func placesOf(lost map[lossKey]int64, typeName string) map[string]int64 {
	places := make(map[string]int64)
	for key, n := range lost {
		if key.typeName == typeName {
			places[key.place] = n
		}
	}
	return places
}
