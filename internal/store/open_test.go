package store

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/migrations"
)

func TestOpenRefuses(t *testing.T) {
	folder := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := func(name string, change func(tx *bbolt.Tx) error) string {
		path := filepath.Join(folder, name)
		changeFile(t, path, change)
		return path
	}
	newer := filepath.Join(folder, "newer.db")
	closeTest(t, openTest(t, Options{Path: newer}))
	changeFile(t, newer, func(tx *bbolt.Tx) error { return migrations.Write(tx, migrations.Version+1) })
	damaged := filepath.Join(folder, "damaged.db")
	closeTest(t, openTest(t, Options{Path: damaged}))
	changeFile(t, damaged, func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketHours) })

	tests := []struct {
		name     string
		path     string
		readOnly bool
		want     string
	}{
		{"a folder", folder, false, "is a folder"},
		{"a device", "/dev/null", false, "not an ordinary file"},
		{"a file as a folder", filepath.Join(file("text", "x"), "events.db"), false, "not a directory"},
		{"a folder that cannot be made", "/proc/nothing/events.db", false, "make its folder"},
		{"text", file("text.db", strings.Repeat("no database ", 1000)), false, "not a bbolt file"},
		{"a little text", file("little.db", "x"), false, "not a bbolt file"},
		{"text for reading", file("text.db", strings.Repeat("no database ", 1000)), true, "not a bbolt file"},
		{"an empty file for reading", file("empty.db", ""), true, "is empty"},
		{"another program's", other("other.db", func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("x")); return err }), false, "not written by ebpf-server"},
		{"a newer program's", newer, false, "written by a newer ebpf-server (format 3, this program reads 2)"},
		{"a newer program's for reading", newer, true, "written by a newer ebpf-server (format 3, this program reads 2)"},
		{"a damaged one", damaged, false, "lacks the bucket hours"},
		{"a missing one for reading", filepath.Join(folder, "missing.db"), true, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(Options{Path: test.path, ReadOnly: test.readOnly, Types: testTypes})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.path) {
				t.Errorf("error is %v, want one that says %q", err, test.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(folder, "missing.db")); !errors.Is(err, os.ErrNotExist) {
		t.Error("opening for reading made a file")
	}
}

// changeFile changes a closed file behind the store's back.
func changeFile(t *testing.T, path string, change func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err == nil {
		err = errors.Join(db.Update(change), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenWithoutPermission(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "mine.db")
	closeTest(t, openTest(t, Options{Path: path}))
	if err := errors.Join(os.Chmod(path, 0o400), os.Chmod(folder, 0o555), os.Chmod(filepath.Dir(folder), 0o755)); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(folder, 0o755) //nolint:errcheck // so that an ordinary user can remove it
	tried := make(chan struct{})
	go func() {
		defer close(tried)
		if os.Geteuid() == 0 {
			runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
			if err := syscall.Setfsuid(65534); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"mine.db", "new.db", "new/new.db"} {
			_, err := Open(Options{Path: filepath.Join(folder, name)})
			if err == nil || !strings.Contains(err.Error(), "permission denied; run as") {
				t.Errorf("%s: error is %v", name, err)
			}
		}
	}()
	<-tried
}

func TestOpenMakesItsFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "events.db")
	openTest(t, Options{Path: path})
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o750} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", name, info, err, want)
		}
	}
}

func TestOpenInUse(t *testing.T) {
	path := testPath(t)
	openTest(t, Options{Path: path})
	for _, readOnly := range []bool{false, true} {
		_, err := Open(Options{Path: path, ReadOnly: readOnly})
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
			t.Errorf("error is %v, want ErrInUse", err)
		}
	}
}

// A file that was cut off, as by a copy that was broken off, must give an
// error wherever the cut is: reading beyond its end is a fault.
func TestCutOffFile(t *testing.T) {
	path := testPath(t)
	s := openTest(t, Options{Path: path})
	for i := range int64(2000) {
		s.Append(flow(begin.Add(time.Duration(i)*time.Hour), i))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	var used int64 // beyond it there is nothing in the file
	err := s.db.View(func(tx *bbolt.Tx) error {
		used = tx.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	closeTest(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.db")
	for size := 0; size < int(used); size += 4096 * 37 {
		for _, readOnly := range []bool{true, false} {
			if err := os.WriteFile(cut, whole[:size], 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(Options{Path: cut, ReadOnly: readOnly})
			if err == nil {
				_ = s.Close()
				if size > 0 || readOnly { // an empty file is a new one
					t.Errorf("cut at %d, read only %v: no error", size, readOnly)
				}
			}
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	tests := map[string]func(tx *bbolt.Tx) error{
		"a flipped bit": func(tx *bbolt.Tx) error {
			chunks := hourChunks(tx, "flow", hourOf(begin.UnixNano()))
			key, value := chunks.Cursor().First()
			value = append([]byte(nil), value...)
			value[len(value)-1] ^= 1
			return chunks.Put(key, value)
		},
		"a missing chunk": func(tx *bbolt.Tx) error {
			chunks := hourChunks(tx, "flow", hourOf(begin.UnixNano()))
			key, _ := chunks.Cursor().First()
			return chunks.Delete(key)
		},
		"a missing hour record": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketHours).Bucket([]byte("flow")).Delete(putInt(hourOf(begin.UnixNano())))
		},
		"a missing hour": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketEvents).Bucket([]byte("flow")).DeleteBucket(putInt(hourOf(begin.UnixNano())))
		},
		"a missing type": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketEvents).DeleteBucket([]byte("flow"))
		},
		"a chunk in another hour": func(tx *bbolt.Tx) error {
			events := tx.Bucket(bucketEvents).Bucket([]byte("flow"))
			return events.MoveBucket(putInt(hourOf(begin.UnixNano())), tx.Bucket(bucketEvents).Bucket([]byte("drop")))
		},
		"a run that is none": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketCoverage).Bucket(bucketRuns).Put(putInt(1), []byte("x"))
		},
		"a loss that is none": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketCoverage).Bucket(bucketLosses).Bucket([]byte("flow")).Put([]byte("x"), putInt(1))
		},
		"a filtered count that is none": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketCoverage).Bucket(bucketFiltered).Put([]byte("x"), putInt(1))
		},
		"a total that is too small": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketCoverage).Bucket(bucketLost).Put([]byte("flow/map_full"), putInt(0))
		},
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			path := testPath(t)
			s := openTest(t, Options{Path: path})
			start(t, s, "flow")
			s.Append(flow(begin, 1))
			s.Append(drop(begin.Add(2*time.Hour), 1))
			s.Lost("flow", "map_full", time.Time{}, 1)
			s.Filtered("flow", "excluded", begin, 1)
			closeTest(t, s)
			changeFile(t, path, damage)
			s, err := Open(Options{Path: path, Types: testTypes, ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Check(nil); err == nil {
				t.Error("Check found nothing")
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	path := testPath(t)
	s := openTest(t, Options{Path: path})
	s.Append(flow(begin, 1))
	closeTest(t, s)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Options{Path: path, ReadOnly: true, Types: []*event.Type{}})
	openTest(t, Options{Path: path, ReadOnly: true}) // any number of readers
	wantNumbers(t, s, query.Events{Types: s.Types()}, 1)
	s.Append(flow(begin, 2))
	wantNumbers(t, s, query.Events{Types: s.Types()}, 1)
	if err := s.Flush(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Flush: %v", err)
	}
	if err := s.Start(Run{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Start: %v", err)
	}
	closeTest(t, s)
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v", err)
	}
}

// A file is read by programs that declare its types otherwise or not at all.
func TestSchemas(t *testing.T) {
	path := testPath(t)
	s := openTest(t, Options{Path: path})
	s.Append(flow(begin, 1))
	closeTest(t, s)

	s = openTest(t, Options{Path: path, Types: []*event.Type{dropType}})
	var names []string
	for _, typ := range s.Types() {
		names = append(names, typ.Name)
	}
	if strings.Join(names, " ") != "drop flow" {
		t.Errorf("types are %v", names)
	}
	want := []string{`{"time":"2026-11-21T03:00:00Z","type":"flow","pid":1,"command":"ssh","state":"closed","address":"10.0.0.1","sent":100,"flow_id":"boot-1"}`}
	if got := texts(t, s, query.Events{Types: s.Types()}); strings.Join(got, "\n") != want[0] {
		t.Errorf("undeclared type: got %v, want %v", got, want)
	}
	closeTest(t, s)

	changed := event.MustType(event.Type{
		Name: "flow", Collection: "flows", Summary: "Flows.", Breakdown: "state",
		Columns: []event.Column{
			{Name: "added", Kind: event.KindInt, Description: "New here."},
			{Name: "state", Kind: event.KindString, Description: "State."},
			{Name: "sent", Kind: event.KindString, Description: "Another kind now."},
			{Name: "flow_id", Kind: event.KindID, Description: "Id."},
		},
	})
	s = openTest(t, Options{Path: path, Types: []*event.Type{changed}})
	b := event.NewBatch(changed, 1)
	b.Append(begin.UnixNano() + 1)
	b.SetInt(changed.MustColumn("added"), 5)
	s.Append(b)
	for range 2 {
		got := texts(t, s, query.Events{Types: []*event.Type{changed}, Ascending: true})
		want := `{"time":"2026-11-21T03:00:00Z","type":"flow","pid":1,"command":"ssh","state":"closed","flow_id":"boot-1"}` + "\n" +
			`{"time":"2026-11-21T03:00:00.000000001Z","type":"flow","added":5}`
		if strings.Join(got, "\n") != want {
			t.Errorf("changed type: got %v, want %v", got, want)
		}
		flush(t, s)
	}
	closeTest(t, s)
	s = openTest(t, Options{Path: path})
	if len(s.schemas.byNumber) != 4 { // flow, drop, the changed flow, and flow as it was again
		t.Errorf("%d schemas in the file, want 4", len(s.schemas.byNumber))
	}
	if got := texts(t, s, query.Events{Types: testTypes}); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
