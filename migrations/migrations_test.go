package migrations

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func openTest(t *testing.T) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "test.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func version(t *testing.T, db *bbolt.DB) (v uint32) {
	t.Helper()
	if err := db.View(func(tx *bbolt.Tx) error { v = Read(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	return v
}

func set(t *testing.T, db *bbolt.DB, v uint32) {
	t.Helper()
	if err := db.Update(func(tx *bbolt.Tx) error { return Write(tx, v) }); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	for v, want := range map[uint32]string{0: "not written by", Version: "", Version + 1: "newer ebpf-server (format 3, this program reads 2)"} {
		err := Check(v)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("Check(%d) = %v", v, err)
		}
	}
}

func TestVersion(t *testing.T) {
	db := openTest(t)
	if v := version(t, db); v != 0 {
		t.Errorf("an empty file has version %d", v)
	}
	set(t, db, 7)
	if v := version(t, db); v != 7 {
		t.Errorf("version is %d, want 7", v)
	}
	if len(steps) != Version-1 {
		t.Errorf("there are %d steps to version %d", len(steps), Version)
	}
}

func TestApply(t *testing.T) {
	var ran []uint32
	step := func(tx *bbolt.Tx) error { ran = append(ran, Read(tx)); return nil }
	broken := func(*bbolt.Tx) error { return errors.New("broken") }
	tests := []struct {
		name  string
		from  uint32
		steps []Step
		ran   int
		to    uint32
		err   string
	}{
		{"nothing to do", 1, nil, 0, 1, ""},
		{"all steps", 1, []Step{step, step}, 2, 3, ""},
		{"some steps", 2, []Step{broken, step}, 1, 3, ""},
		{"done already", 3, []Step{broken, broken}, 0, 3, ""},
		{"a step fails", 1, []Step{step, broken}, 1, 2, "migrate from format 2: broken"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ran = nil
			db := openTest(t)
			set(t, db, test.from)
			err := apply(db, test.steps)
			if (err == nil) != (test.err == "") || (err != nil && err.Error() != test.err) {
				t.Errorf("error is %v, want %q", err, test.err)
			}
			if len(ran) != test.ran || version(t, db) != test.to {
				t.Errorf("%d steps ran, to version %d", len(ran), version(t, db))
			}
		})
	}
	if err := Apply(openTest(t)); err != nil {
		t.Error(err)
	}
}
