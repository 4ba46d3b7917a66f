package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/migrations"
)

// A file of format 1 for these tests has the fixture's flows, and copies of
// them that end ten years earlier and are four hours apart.
const (
	copiesEnd   = 10 * 365 * 24 * time.Hour
	copiesEvery = 4 * time.Hour
)

// copyShift is how much earlier than the fixture a copy is, in whole hours.
func copyShift(i int64) time.Duration { return copiesEnd + time.Duration(i)*copiesEvery }

// writeFormat1 makes a larger file of format 1 out of the fixture. All that it
// knows of the format stands here and is frozen: where a chunk and an hour
// record have their times, and that a chunk's checksum is of all that follows it.
func writeFormat1(path string, copies int64) error {
	content, err := os.ReadFile(fixture)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		events, hours := tx.Bucket([]byte("events")).Bucket([]byte("flow")), tx.Bucket([]byte("hours")).Bucket([]byte("flow"))
		records := make(map[string][]byte)
		err := hours.ForEach(func(key, record []byte) error {
			records[string(key)] = slices.Clone(record)
			return nil
		})
		for key, record := range records {
			for i := range copies {
				err = errors.Join(err, copyFormat1Hour(events, hours, []byte(key), record, copyShift(i)))
			}
		}
		return err
	})
	return errors.Join(err, db.Sync(), db.Close())
}

func copyFormat1Hour(events, hours *bbolt.Bucket, key, record []byte, earlier time.Duration) error {
	to := shifted(key, 0, int64(earlier/time.Hour))
	if err := hours.Put(to, shifted(shifted(record, 24, int64(earlier)), 32, int64(earlier))); err != nil {
		return err
	}
	from := events.Bucket(key)
	chunks, err := events.CreateBucket(to)
	if err != nil {
		return err
	}
	if err := chunks.SetSequence(from.Sequence()); err != nil {
		return err
	}
	return from.ForEach(func(sequence, chunk []byte) error {
		chunk = shifted(shifted(chunk, 13, int64(earlier)), 21, int64(earlier))
		sum := crc32.Checksum(chunk[5:], crc32.MakeTable(crc32.Castagnoli))
		binary.BigEndian.PutUint32(chunk[1:], sum)
		return chunks.Put(sequence, chunk)
	})
}

// shifted returns a copy in which the 8 bytes at a place are a number less by so much.
func shifted(value []byte, at int, by int64) []byte {
	value = slices.Clone(value)
	binary.BigEndian.PutUint64(value[at:], binary.BigEndian.Uint64(value[at:])-uint64(by))
	return value
}

// migrateUntilKilled does what ebpf-server migrate does, and tells its phases.
func migrateUntilKilled(path string, _ int64) (err error) {
	var s *Store
	err = within(opening, func() error {
		s, err = Open(Options{Path: path, Types: testTypes, now: migrationNow})
		return err
	})
	if err == nil {
		err = within(sealing, func() error { return s.seal(context.Background(), false, nil) })
	}
	if err == nil {
		err = within(joining, func() error { return s.finishDays(context.Background(), true) })
	}
	if err == nil {
		err = s.Close()
	}
	return err
}

// migrationNow is when all hours of the fixture are over.
func migrationNow() time.Time { return begin.Add(100 * time.Hour) }

func TestKilledMigrationGoesOn(t *testing.T) {
	const copies = 50
	original, path := testPath(t), testPath(t)
	if err := writeFormat1(original, copies); err != nil {
		t.Fatal(err)
	}
	want := migrationWants(t, copies)
	k, n, quick, inFormat1 := newKiller(t), kills(t, 6), 0, 0
	targets := []string{opening, sealing, joining, opening, sealing, opening, joining}
	for anew := true; k.kills < n && quick < 10*n; {
		if anew {
			copyFile(t, original, path)
		}
		at := moment{targets[(k.kills+quick)%len(targets)], 1}
		v := k.run("migrate", path, 0, at, nil)
		switch formatOf(t, path) {
		case 1:
			inFormat1++
		case migrations.Version:
			s := openTest(t, Options{Path: path, ReadOnly: true, now: migrationNow})
			compareMigrated(t, s, want)
			closeTest(t, s) // checks it
		}
		// Otherwise the next process goes on with it.
		if anew = v.ended || at.phase == joining; v.ended {
			quick++
		}
	}
	k.report(opening, sealing, joining)
	t.Logf("%d of the killed files were still of format 1; %d more processes ended before they were killed", inFormat1, quick)

	if v := k.run("migrate", path, 0, moment{}, nil); !v.ended {
		t.Error("the last migration did not end")
	}
	s := openTest(t, Options{Path: path, now: migrationNow})
	compareMigrated(t, s, want)
	if hours := hoursOf(t, s, "flow"); len(hours) != 0 {
		t.Errorf("%d hours have rows", len(hours))
	}
	if blocks, segments := blocksOf(t, s, "flow"); blocks != segments || blocks > copies/4 {
		t.Errorf("%d blocks in %d segments: days were not joined", blocks, segments)
	}
}

// migrationWants returns what compareMigrated is to find, from the fixture alone.
func migrationWants(t *testing.T, copies int64) (want []string) {
	t.Helper()
	path := testPath(t)
	copyFile(t, fixture, path)
	s := openTest(t, Options{Path: path, now: migrationNow})
	err := eachEvent(t, s, func(r event.Row, rest string) {
		at := time.Unix(0, r.Time())
		want = append(want, fmt.Sprint(at.UnixNano(), rest))
		for i := range copies {
			want = append(want, fmt.Sprint(at.Add(-copyShift(i)).UnixNano(), rest))
		}
	})
	if err != nil || len(want) != 41*(1+int(copies)) {
		t.Fatalf("the fixture makes %d events: %v", len(want), err)
	}
	slices.Sort(want)
	return want
}

// eachEvent calls do with every flow, and what is written of it beside its time.
func eachEvent(t *testing.T, s *Store, do func(r event.Row, rest string)) error {
	t.Helper()
	_, err := s.Events(t.Context(), query.Events{Types: []*event.Type{flowType}}, func(r event.Row) error {
		_, rest, ok := strings.Cut(string(r.AppendJSON(nil)), ",")
		if !ok {
			return errors.New("an event without columns")
		}
		do(r, rest)
		return nil
	})
	return err
}

// printEvents prints what there is in a file, oldest first.
func printEvents(path string, _ int64) error {
	s, err := Open(Options{Path: path, Types: testTypes, ReadOnly: true})
	if err != nil {
		return err
	}
	_, err = s.Events(context.Background(), query.Events{Types: testTypes, Ascending: true}, func(r event.Row) error {
		fmt.Println(string(r.AppendJSON(nil)))
		return nil
	})
	return errors.Join(err, s.Close())
}

func compareMigrated(t *testing.T, s *Store, want []string) {
	t.Helper()
	var got []string
	err := eachEvent(t, s, func(r event.Row, rest string) { got = append(got, fmt.Sprint(r.Time(), rest)) })
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Fatalf("%d events, want %d, or others", len(got), len(want))
	}
}

// formatOf returns the format of a closed file, and has bbolt check its pages.
func formatOf(t *testing.T, path string) (format uint32) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		format = migrations.Read(tx)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return format
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
