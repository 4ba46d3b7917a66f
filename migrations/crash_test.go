package migrations

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// The test binary runs itself as the process that is killed: with this variable
// it migrates a file.
const pathVariable = "EBPF_SERVER_TEST_MIGRATE_PATH"

func TestMain(m *testing.M) {
	path := os.Getenv(pathVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err == nil {
		fmt.Println("open")
		err = apply(db, rewritingSteps)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// rewritingSteps change every value of a file, so that each takes a while and a
// file in which one was torn or done twice can be told.
var rewritingSteps = []Step{rewrite, rewrite, rewrite, rewrite, rewrite, rewrite}

const (
	rewrittenKeys = 2000
	lastFormat    = 7 // that the steps lead to
)

func rewrite(tx *bbolt.Tx) error {
	from := Read(tx)
	for i := range uint32(rewrittenKeys) {
		if err := rewriteKey(tx, i, from, from+1); err != nil {
			return err
		}
	}
	return nil
}

func rewriteKey(tx *bbolt.Tx, key, from, to uint32) error {
	data, err := tx.CreateBucketIfNotExists([]byte("data"))
	if err != nil {
		return err
	}
	k := binary.BigEndian.AppendUint32(nil, key)
	if value := data.Get(k); value != nil && binary.BigEndian.Uint32(value) != from {
		return fmt.Errorf("key %d is of format %d, the file of %d", key, binary.BigEndian.Uint32(value), from)
	}
	return data.Put(k, binary.BigEndian.AppendUint32(make([]byte, 0, 4), to))
}

// rewritten checks that everything in a file is of the format that it says.
func rewritten(t *testing.T, path string) (format uint32) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		format = Read(tx)
		for i := range uint32(rewrittenKeys) {
			if err := rewriteKey(tx, i, format, format); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return format
}

func TestKilledStepsGoOn(t *testing.T) {
	n, began, reached := 6, time.Now(), make(map[uint32]int)
	if text := os.Getenv("EBPF_SERVER_TEST_KILLS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("EBPF_SERVER_TEST_KILLS: %q is no number of kills", text)
		}
	}
	path := filepath.Join(t.TempDir(), "test.db")
	makeFirst(t, path)
	usual := migrate(t, path, time.Minute) // how long it takes when nobody kills it
	killed, quick := 0, 0
	for killed < n && quick < 20*n {
		if rewritten(t, path) == lastFormat {
			makeFirst(t, path)
		}
		if took := migrate(t, path, time.Duration(rand.Float64()*float64(usual))); took > 0 {
			quick++
			continue
		}
		killed++
		reached[rewritten(t, path)]++
	}
	migrate(t, path, time.Minute)
	if format := rewritten(t, path); format != lastFormat {
		t.Errorf("the last migration led to format %d", format)
	}
	t.Logf("%d kills in %v left files of the formats %v; %d more processes ended before they were killed",
		killed, time.Since(began).Round(time.Millisecond), reached, quick)
}

// makeFirst makes a file of format 1.
func makeFirst(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	set(t, db, 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	rewritten(t, path) // puts the keys in
}

// migrate runs the process on a file and kills it some time after it has opened
// it. It returns how long the process took, 0 if it was killed before its end.
func migrate(t *testing.T, path string, killAfter time.Duration) time.Duration {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(executable, "-test.run=^$")
	child.Env = append(os.Environ(), pathVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("wait for the process: %v", err)
	}
	opened := time.Now()
	defer time.AfterFunc(killAfter, func() { _ = child.Process.Kill() }).Stop()
	if err := child.Wait(); err != nil {
		if child.ProcessState.Exited() {
			t.Fatalf("the process failed by itself: %v", err)
		}
		return 0
	}
	return time.Since(opened)
}
