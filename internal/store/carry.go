package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// When a unit of a type with a life is removed, of each life that began in it, or
// of which the beginning was carried over before, stays
//
//   - the beginning, if the life has a moment that can still be asked for: one
//     behind what is removed, or in a pinned window. It lasts to its end, or to where
//     the next recording begins, which tells of everything open again;
//   - the beginning, too, if a later recording found the thing open: how old it is
//     and how its story began is known from there;
//   - the end, if the beginning stays: or else it would be open for ever. That is so
//     for what began before or in a pinned window and ended behind it.

// carrier finds out what is to be carried over when a unit is removed.
type carrier struct {
	*census
	marks   lifeMarks
	unit    unit
	kept    []span    // the moments that can be asked for afterwards
	stays   []unit    // others that overlap with what is removed
	parts   []stretch // of time, in order
	carried []carriedChunk
	known   []knownMark // in carried, in order of time

	keep  map[mark]keeping
	later map[thing]bool // what was open in a later stretch than the one at hand
}

// stretch is the time of a recording, and up to when it answers.
type stretch struct {
	in    span
	until int64
}

type carriedChunk struct {
	key   []byte
	size  int
	chunk *chunk
	batch *event.Batch
}

type knownMark struct {
	mark
	end, found bool
}

type keeping int

const (
	keepIfBegun keeping = 1 + iota // not if it was only found
	keepAlways
)

// carryOver is what changes in what is carried over with the removal of a unit.
type carryOver struct {
	unit    unit
	removed int64  // nothing before it is shown any more
	records []byte // of the unit, when it was looked at
	removes [][]byte
	puts    []encodedChunk
	grown   int64 // bytes
	missing bool  // some could not be read
}

// planCarryOver finds out what changes when a unit is removed and nothing before
// a time is shown any more. What cannot be read must not keep the unit in the file.
func (s *Store) planCarryOver(u unit, removed int64) (*carryOver, error) {
	t := s.types[u.typeName]
	c := &carrier{
		census: &census{s: s, ctx: context.Background(), q: query.At{Type: t}, inFile: true, open: map[thing]int64{}},
		marks:  newLifeMarks(t), unit: u, keep: map[mark]keeping{}, later: map[thing]bool{},
	}
	plan := &carryOver{unit: u, removed: removed}
	if err := s.view(func(v *view) error { return c.begin(v, plan) }); err != nil {
		return nil, err
	}
	err := c.decide(plan)
	if err != nil || s.hasDamage(u.typeName, u.span()) {
		s.log.Error("cannot carry over all beginnings of what is still open: events to be removed are damaged", "type", u.typeName, "unit", u.segment, "error", err)
		plan.missing = true
	}
	return plan, nil
}

// begin looks up all but the events.
func (c *carrier) begin(v *view, plan *carryOver) (err error) {
	name := c.unit.typeName
	plan.removed = max(plan.removed, v.storedRemoved(name))
	if c.kept, err = v.pinned(name); err != nil {
		return err
	}
	c.kept = append(c.kept, span{plan.removed, allTime.until})
	if c.parts, err = v.stretches(name); err != nil {
		return err
	}
	units, err := v.units(name)
	if err != nil {
		return err
	}
	c.stays = slices.DeleteFunc(units, func(u unit) bool { return u.segment == c.unit.segment || u.span().from >= plan.removed })
	if plan.records, err = recordsOf(v.tx, c.unit); err != nil {
		return err
	}
	return c.readCarried(v, plan)
}

// stretches returns the recordings of a type, and before them the time of which
// events were imported.
func (v *view) stretches(typeName string) ([]stretch, error) {
	all, err := v.recordings(typeName)
	parts := []stretch{{in: allTime, until: allTime.until}}
	for i, r := range all {
		if parts[i].until = r.from; i == 0 {
			parts[i].in.until = r.from
		}
		from := r.after
		if from != allTime.from {
			from++
		}
		parts = append(parts, stretch{span{from, r.until + 1}, allTime.until})
	}
	return parts, err
}

// readCarried reads the marks of what was carried over. Chunks that are damaged go.
func (c *carrier) readCarried(v *view, plan *carryOver) error {
	carried := carriedOf(v.tx, c.unit.typeName)
	if carried == nil {
		return nil
	}
	err := carried.ForEach(func(key, value []byte) error {
		k, err := c.s.codec.open(value, c.s.schemas)
		var b *event.Batch
		if err == nil {
			b, err = k.batch(c.q.Type, c.marks.columns)
		}
		key = bytes.Clone(key)
		if err != nil {
			c.s.log.Error("what was carried over is damaged and left out", "type", c.unit.typeName, "chunk", key, "error", err)
			plan.removes, plan.grown, plan.missing = append(plan.removes, key), plan.grown-int64(len(value)), true
			return nil
		}
		c.carried = append(c.carried, carriedChunk{key, len(value), k, b})
		of := c.things(&b.Columns[c.marks.id])
		for _, m := range c.marks.of(b) {
			c.known = append(c.known, knownMark{mark{of(m.row), b.Columns[event.Time].Ints[m.row]}, m.end, m.found})
		}
		return nil
	})
	slices.SortFunc(c.known, func(a, b knownMark) int { return cmp.Compare(a.at, b.at) })
	return err
}

// decide plans what is carried over. Later recordings come first, as they say what
// is still of interest in those before.
func (c *carrier) decide(plan *carryOver) error {
	var unreadable error
	for _, part := range slices.Backward(c.parts) {
		if err := c.decidePart(part); err != nil {
			unreadable = err
		}
	}
	rows, err := c.gather()
	return errors.Join(unreadable, err, c.rewrite(plan, rows))
}

func (c *carrier) decidePart(part stretch) error {
	begun, ended := c.knownIn(part.in)
	inUnit, endedInUnit, err := c.takeUnit(part.in, c.unit)
	for t, at := range inUnit {
		begun = append(begun, knownMark{mark: mark{t, at}})
	}
	maps.Copy(ended, endedInUnit)
	if len(begun)+len(ended) == 0 {
		return err
	}
	remain := map[thing]bool{}
	for _, b := range begun {
		lived := span{b.at, part.until}
		if end, over := ended[b.thing]; over {
			lived.until = end
		}
		if lived.from < lived.until && slices.ContainsFunc(c.kept, func(k span) bool { return k.overlaps(lived.from, lived.until-1) }) {
			c.keep[b.mark], remain[b.thing] = keepAlways, true
		} else if c.later[b.thing] {
			c.keep[b.mark] = max(c.keep[b.mark], keepIfBegun)
		}
	}
	for _, u := range c.stays {
		if len(ended) == 0 || err != nil {
			break
		}
		var open map[thing]int64
		open, _, err = c.takeUnit(part.in, u)
		for t := range open {
			remain[t] = true
		}
	}
	for t, at := range ended {
		if remain[t] {
			c.keep[mark{t, at}] = keepAlways
		}
	}
	maps.Copy(c.later, remain)
	return err
}

// knownIn returns the beginnings that were carried over, and the ends.
func (c *carrier) knownIn(in span) (begun []knownMark, ended map[thing]int64) {
	ended = map[thing]int64{}
	first, _ := slices.BinarySearchFunc(c.known, in.from, func(m knownMark, at int64) int { return cmp.Compare(m.at, at) })
	for _, m := range c.known[first:] {
		switch {
		case m.at >= in.until:
			return begun, ended
		case m.end:
			ended[m.thing] = m.at
		default:
			begun = append(begun, m)
		}
	}
	return begun, ended
}

// takeUnit returns what began in a unit and did not end there, and the other way
// round, with the times.
func (c *carrier) takeUnit(in span, u unit) (begun, ended map[thing]int64, err error) {
	c.in = span{max(in.from, u.span().from), min(in.until, u.span().until)}
	if c.in.from >= c.in.until {
		return nil, nil, nil
	}
	c.days, c.open = []int64{dayOf(u.first)}, map[thing]int64{}
	err = c.takeAll()
	return c.open, c.ended, err
}

// recordsOf returns all that the file has noted of a unit's contents: it changes
// with them.
func recordsOf(tx *bbolt.Tx, u unit) (records []byte, err error) {
	for _, of := range [][]byte{bucketSegments, bucketHours} {
		bucket := tx.Bucket(of).Bucket([]byte(u.typeName))
		if bucket == nil {
			continue
		}
		cursor := bucket.Cursor()
		for k, v := cursor.Seek(putInt(u.first)); k != nil && getInt(k[:8]) < u.first+u.hours; k, v = cursor.Next() {
			records = append(append(records, k...), v...)
		}
	}
	return records, nil
}

// isUnchanged tells whether nothing has come to the unit since it was looked at.
func (p *carryOver) isUnchanged(tx *bbolt.Tx) (bool, error) {
	records, err := recordsOf(tx, p.unit)
	return bytes.Equal(records, p.records), err
}

// apply changes what is carried over, which must be kept.
func (p *carryOver) apply(tx *bbolt.Tx) error {
	name := []byte(p.unit.typeName)
	carried, err := tx.Bucket(bucketCarried).Bucket(bucketEvents).CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	if _, err := carried.NextSequence(); err != nil { // see removals
		return err
	}
	if err := deleteAll(carried, p.removes); err != nil {
		return err
	}
	for _, c := range p.puts {
		number, err := carried.NextSequence()
		if err != nil {
			return err
		}
		if err := carried.Put(append(putInt(c.hour), putInt(int64(number))...), c.value); err != nil {
			return err
		}
	}
	if !p.missing {
		return nil
	}
	return noteNotCarried(tx, p.unit.typeName, p.removed)
}
