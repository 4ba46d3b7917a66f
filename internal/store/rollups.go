package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// rollup is the sections of an hour or a day, compressed, by key. The events of
// all blocks are in the rollups of their hours, always.
type rollup map[string][]byte

// sectionKey returns the key of a section; bbolt knows no empty keys.
func sectionKey(name string) string {
	if name == "" {
		return "\x00"
	}
	return name
}

// keyForm is where a rollup says under which declaration it was made.
const keyForm = "\x01"

// formOf tells apart declarations of a type that make different rollups. It is
// never 0. Store.forms has those of all types.
func formOf(t *event.Type) uint32 {
	words := []string{t.Breakdown}
	for _, name := range query.RollupColumns(t) {
		at, _ := t.Column(name)
		words = append(words, name, t.Columns[at].Kind.String())
	}
	if t.Weight != "" {
		words = append(words, "weight", t.Weight)
	}
	for _, c := range t.Columns {
		if c.Sum {
			words = append(words, "sum", c.Name)
		}
	}
	hash := fnv.New32a()
	hash.Write([]byte(strings.Join(words, "\x00"))) // a hash never fails to write
	return max(1, hash.Sum32())
}

// encodeRollup makes the sections of what an aggregator has counted.
func (c *codec) encodeRollup(t *event.Type, a *query.Aggregator) rollup {
	r := rollup{keyForm: binary.BigEndian.AppendUint32(nil, formOf(t))}
	var section []byte
	for _, name := range query.RollupSections(t) {
		section = a.AppendSection(section[:0], name)
		r[sectionKey(name)] = c.rollups.EncodeAll(section, nil)
	}
	return r
}

// noRollup stands for a rollup of more values than can be counted: questions
// about its hour look at the blocks.
func noRollup() rollup { return rollup{keyForm: make([]byte, 4)} }

// tooMany tells whether counting failed because there are too many values.
func tooMany(err error) bool {
	var param *query.ParamError
	return errors.As(err, &param)
}

// storedRollup is a rollup in the file, good within a view: those of its
// sections that are needed, as they are.
type storedRollup struct {
	hour     int64
	sections [][]byte
}

// readRollup finds some sections of a rollup.
func readRollup(bucket *bbolt.Bucket, hour int64, names []string) storedRollup {
	r := storedRollup{hour: hour, sections: make([][]byte, len(names))}
	for i, name := range names {
		r.sections[i] = bucket.Get([]byte(sectionKey(name)))
	}
	return r
}

// errDamagedRollup is a rollup that does not have the checksum that it should
// have: its hours are counted from their blocks.
var errDamagedRollup = errors.New("rollup is damaged")

// damageRollup reports a damaged rollup the first time.
func (s *Store) damageRollup(typeName string, of segment, err error) {
	if _, known := s.damagedRollups.LoadOrStore(rollupID{typeName, of}, true); !known {
		s.log.Error("a rollup of the file is damaged; questions about its time read the events instead and take longer",
			"type", typeName, "segment", of, "error", err)
	}
}

type rollupID struct {
	typeName string
	segment
}

// sections are decompressed ones, in memory that is used again.
type sections [][]byte

// addRollup adds a stored rollup to what an aggregator has counted. If the
// rollup is damaged, nothing was added.
func (c *codec) addRollup(to counter, r storedRollup, memory *sections) error {
	for len(*memory) < len(r.sections) {
		*memory = append(*memory, nil)
	}
	all := (*memory)[:len(r.sections)]
	for i, compressed := range r.sections {
		if len(compressed) == 0 { // it would decompress to nothing
			return fmt.Errorf("%w: it lacks a section", errDamagedRollup)
		}
		var err error
		if all[i], err = c.decoder.DecodeAll(compressed, all[i][:0]); err != nil {
			return fmt.Errorf("%w: %w", errDamagedRollup, err)
		}
	}
	return to.AddRollup(hourStart(r.hour), all)
}

// addWhole adds all sections of a rollup to an aggregator made by NewRollup.
func (c *codec) addWhole(to *query.Aggregator, t *event.Type, bucket *bbolt.Bucket, hour int64) error {
	return c.addRollup(to, readRollup(bucket, hour, query.RollupSections(t)), new(sections))
}

// usable tells whether a rollup was made under the present declaration.
func (s *Store) usable(bucket *bbolt.Bucket, t *event.Type) bool {
	form := bucket.Get([]byte(keyForm))
	return len(form) == 4 && binary.BigEndian.Uint32(form) == s.forms[t.Name]
}

// rollupBucket returns the bucket of a rollup; of is bucketRollups or bucketDays.
func rollupBucket(tx *bbolt.Tx, of []byte, typeName string, hour int64) *bbolt.Bucket {
	all := tx.Bucket(of).Bucket([]byte(typeName))
	if all == nil {
		return nil
	}
	return all.Bucket(putInt(hour))
}

func (r rollup) put(tx *bbolt.Tx, of []byte, typeName string, hour int64) error {
	all, err := tx.Bucket(of).CreateBucketIfNotExists([]byte(typeName))
	if err != nil {
		return err
	}
	bucket, err := all.CreateBucketIfNotExists(putInt(hour))
	if err != nil {
		return err
	}
	bucket.FillPercent = 1 // written once, in most cases
	for _, key := range slices.Sorted(maps.Keys(r)) {
		if err := bucket.Put([]byte(key), r[key]); err != nil {
			return err
		}
	}
	return nil
}

func removeRollup(tx *bbolt.Tx, of []byte, typeName string, hour int64) error {
	if rollupBucket(tx, of, typeName, hour) == nil {
		return nil
	}
	return tx.Bucket(of).Bucket([]byte(typeName)).DeleteBucket(putInt(hour))
}

// addToRollup adds events, which new blocks have, to the rollup of their hour:
// a has counted them, and encoded is their rollup alone. Nil: there are too many values.
func (s *Store) addToRollup(tx *bbolt.Tx, t *event.Type, hour int64, a *query.Aggregator, encoded rollup) error {
	// That of the day is not exact any more; the sealer makes it again.
	if err := removeRollup(tx, bucketDays, t.Name, dayOf(hour)); err != nil {
		return err
	}
	if old := rollupBucket(tx, bucketRollups, t.Name, hour); old != nil {
		var err error
		if encoded, err = s.joinRollup(old, t, hour, a); err != nil {
			return err
		}
		if err := removeRollup(tx, bucketRollups, t.Name, hour); err != nil {
			return err
		}
	}
	return encoded.put(tx, bucketRollups, t.Name, hour)
}

// joinRollup adds the rollup that an hour has to what was counted.
func (s *Store) joinRollup(old *bbolt.Bucket, t *event.Type, hour int64, a *query.Aggregator) (rollup, error) {
	if a == nil || !s.usable(old, t) {
		return noRollup(), nil
	}
	switch err := s.codec.addWhole(a, t, old, hour); {
	case tooMany(err), errors.Is(err, errDamagedRollup):
		return noRollup(), nil
	case err != nil:
		return nil, err
	}
	return s.codec.encodeRollup(t, a), nil
}

// rollupBytes returns what the rollups of an hour or day take.
func rollupBytes(bucket *bbolt.Bucket) (n int64) {
	_ = bucket.ForEach(func(k, v []byte) error { // never fails
		n += int64(len(k) + len(v))
		return nil
	})
	return n
}

// forEachRollup calls do with the rollups of a type that begin in a span.
func forEachRollup(tx *bbolt.Tx, of []byte, typeName string, in span, do func(hour int64, bucket *bbolt.Bucket) error) error {
	all := tx.Bucket(of).Bucket([]byte(typeName))
	if all == nil {
		return nil
	}
	first, until := hourOf(in.from), hourOf(in.until)
	cursor := all.Cursor()
	k, _ := cursor.Seek(putInt(max(0, first)))
	if first < 0 {
		k, _ = cursor.First() // keys are unsigned: hours before 1970 come last
	}
	for ; k != nil; k, _ = cursor.Next() {
		hour := getInt(k)
		if hour > until && first >= 0 {
			return nil
		}
		if begin := hour * int64(time.Hour); begin < in.from || begin >= in.until {
			continue
		}
		if err := do(hour, all.Bucket(k)); err != nil {
			return fmt.Errorf("rollup of %s at %s: %w", typeName, hourStart(hour).Format(time.RFC3339), err)
		}
	}
	return nil
}
