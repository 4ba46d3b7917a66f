package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// keyPerEvent keeps each event as a JSON object under a key of its own, its
// time and a number: the first thing that anyone does with a key-value store.
// Questions read all events of the window.
type keyPerEvent struct {
	db *bbolt.DB
}

var eventsBucket = []byte("events")

func openKeyPerEvent(dir string) (peer, error) {
	db, err := bbolt.Open(filepath.Join(dir, "events.bbolt"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return &keyPerEvent{db}, nil
}

// Ingest sorts the events first: keys that come in order fill the pages.
func (p *keyPerEvent) Ingest(batches []*event.Batch) error {
	var rows []event.Row
	for _, b := range batches {
		for i := range b.Len() {
			rows = append(rows, event.Row{Batch: b, Index: i})
		}
	}
	slices.SortStableFunc(rows, func(a, b event.Row) int {
		return cmp.Or(cmp.Compare(a.Time(), b.Time()), cmp.Compare(a.Batch.Type.Name, b.Batch.Type.Name))
	})
	return p.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(eventsBucket)
		if err != nil {
			return err
		}
		bucket.FillPercent = 1
		for _, r := range rows {
			number, err := bucket.NextSequence()
			if err != nil {
				return err
			}
			key := binary.BigEndian.AppendUint64(timeKey(r.Time()), number)
			if err := bucket.Put(key, r.AppendJSON(nil)); err != nil {
				return err
			}
		}
		return nil
	})
}

func timeKey(unixNano int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(unixNano)) }

func (p *keyPerEvent) Close() error { return p.db.Close() }

var errEnough = errors.New("enough")

func (p *keyPerEvent) Events(q query.Events, do func(row) error) error {
	left := q.Limit
	if left == 0 {
		left = math.MaxInt
	}
	must := typeNeedle(q.Types)
	for _, f := range q.Filters {
		must = append(must, needle(q.Types[0], f))
	}
	return p.scan(q.Window, must, q.Ascending, func(_, line []byte) error {
		if left--; left < 0 {
			return errEnough
		}
		return do(jsonRow(line))
	})
}

// scan calls do with the events of a window that contain every needle.
func (p *keyPerEvent) scan(w query.Window, must [][]byte, ascending bool, do func(key, line []byte) error) error {
	since, until := w.Bounds()
	err := p.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(eventsBucket).Cursor()
		first, next := timeKey(max(since, 0)), c.Next
		key, line := c.Seek(first)
		if !ascending {
			next = c.Prev
			if key, _ = c.Seek(timeKey(until)); key == nil {
				key, line = c.Last()
			} else {
				key, line = c.Prev()
			}
		}
	lines:
		for ; key != nil; key, line = next() {
			if at := int64(binary.BigEndian.Uint64(key)); at < since || at >= until {
				return nil
			}
			for _, n := range must {
				if !bytes.Contains(line, n) {
					continue lines
				}
			}
			if err := do(key, line); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// typeNeedle is empty when all types are asked for.
func typeNeedle(types []*event.Type) [][]byte {
	if len(types) > 1 {
		return nil
	}
	return [][]byte{[]byte(`"type":"` + types[0].Name + `"`)}
}

// needle is what stands in the JSON of the events that a filter lets through.
func needle(t *event.Type, f query.Filter) []byte {
	column, _ := t.Column(f.Column)
	if t.Columns[column].Kind == event.KindInt {
		return []byte(`"` + f.Column + `":` + f.Values[0] + `,`)
	}
	return []byte(`"` + f.Column + `":"` + f.Values[0] + `"`)
}

// field returns a value of an event without quotes, empty where it is absent.
// It looks for it in the text: that is many times quicker than encoding/json.
func field(line []byte, name string) []byte {
	_, rest, found := bytes.Cut(line, []byte(`"`+name+`":`))
	if !found {
		return nil
	}
	if rest[0] == '"' {
		return rest[1 : 1+bytes.IndexByte(rest[1:], '"')]
	}
	return rest[:bytes.IndexAny(rest, ",}")]
}

func (p *keyPerEvent) Summary(q question) ([]figures, error) {
	if q.summary.Interval > 0 {
		return p.series(q.summary)
	}
	type group struct {
		key   string // raw, which is what equal counts are ordered by
		count int64
		sums  []int64
	}
	groups := make(map[string]*group)
	by := q.summary.GroupBy[0]
	must := typeNeedle([]*event.Type{q.summary.Type})
	for _, f := range q.summary.Filters {
		must = append(must, needle(q.summary.Type, f))
	}
	err := p.scan(q.summary.Window, must, true, func(_, line []byte) error {
		key := field(line, by)
		g := groups[string(key)]
		if g == nil {
			g = &group{key: rawKey(string(key)), sums: make([]int64, len(q.sums))}
			groups[string(key)] = g
		}
		g.count++
		for i, column := range q.sums {
			n, _ := strconv.ParseInt(string(field(line, column)), 10, 64) // absent: nothing to add
			g.sums[i] += n
		}
		return nil
	})
	var rows []figures
	texts := slices.Collect(maps.Keys(groups))
	slices.SortFunc(texts, func(a, b string) int {
		if c := cmp.Compare(groups[b].count, groups[a].count); c != 0 || (a == "") == (b == "") {
			return cmp.Or(c, cmp.Compare(groups[a].key, groups[b].key))
		}
		return cmp.Compare(len(b), len(a)) // the group without a value comes last
	})
	for _, text := range texts[:min(q.summary.Top, len(texts))] {
		rows = append(rows, figures{key: cmp.Or(text, noValue), count: groups[text].count, sums: groups[text].sums})
	}
	return rows, err
}

func rawKey(text string) string {
	if raw, err := event.ParseIP(text); err == nil {
		return raw
	}
	return text
}

func (p *keyPerEvent) series(q query.Summary) ([]figures, error) {
	type cell struct {
		bucket int64
		value  string
	}
	counts := make(map[cell]int64)
	err := p.scan(q.Window, typeNeedle([]*event.Type{q.Type}), true, func(key, line []byte) error {
		at := int64(binary.BigEndian.Uint64(key))
		counts[cell{at / int64(q.Interval), string(field(line, q.Type.Breakdown))}]++
		return nil
	})
	var rows []figures
	for c := range counts {
		rows = append(rows, figures{time: time.Unix(0, c.bucket*int64(q.Interval)), key: c.value, count: counts[c]})
	}
	return rows, err
}

// jsonRow is a stored event.
type jsonRow []byte

// AppendJSON implements row.
func (r jsonRow) AppendJSON(dst []byte) []byte { return append(dst, r...) }

// Values implements row. Derived fields are no values: other peers do not keep them.
func (r jsonRow) Values() int {
	var values map[string]any
	if json.Unmarshal(r, &values) != nil {
		return 0 // and the counts differ
	}
	for _, t := range stream.Types() {
		for _, derived := range t.Shown()[len(t.Columns):] {
			delete(values, derived.Name)
		}
	}
	return len(values)
}
