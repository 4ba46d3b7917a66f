package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// killsAsked says how many processes each test here kills. The program would
// refuse a variable that it does not know.
var killsAsked = takeVariable("EBPF_SERVER_TEST_KILLS")

func takeVariable(name string) string {
	value := os.Getenv(name)
	_ = os.Unsetenv(name) // fails only for a name that is none
	return value
}

// kills returns how many processes a test kills: a few, unless more are asked for.
func kills(t *testing.T, few int) int {
	t.Helper()
	if killsAsked == "" {
		return few
	}
	n, err := strconv.Atoi(killsAsked)
	if err != nil || n < 1 {
		t.Fatalf("EBPF_SERVER_TEST_KILLS: %q is no number of kills", killsAsked)
	}
	return n
}

// storeTest is the binary of the tests of the store, which can write files of
// format 1, as the program cannot any more, and print what such a file became.
type storeTest struct {
	t      *testing.T
	binary string
}

func buildStoreTest(t *testing.T) storeTest {
	t.Helper()
	s := storeTest{t, filepath.Join(t.TempDir(), "store.test")}
	bpftest.Run(t, "go", "test", "-c", "-o", s.binary, "../../internal/store")
	return s
}

// play runs a role of it on a file and returns what it prints.
func (s storeTest) play(role, db string, number int) string {
	s.t.Helper()
	command := exec.Command(s.binary)
	command.Dir = filepath.Join("..", "..", "internal", "store") // it has testdata
	command.Env = append(os.Environ(), "EBPF_SERVER_TEST_ROLE="+role, "EBPF_SERVER_TEST_PATH="+db, fmt.Sprintf("EBPF_SERVER_TEST_NUMBER=%d", number))
	out, err := command.Output()
	if err != nil {
		s.t.Fatalf("%s %s: %v", role, db, err)
	}
	return string(out)
}

// ebpf-server migrate can be killed at any moment and started again.
func TestKilledMigrate(t *testing.T) {
	const copies = 60
	dir, store := t.TempDir(), buildStoreTest(t)
	original, db := filepath.Join(dir, "format-1.db"), filepath.Join(dir, "events.db")
	store.play("format-1", original, copies)
	bpftest.Run(t, "cp", original, db)
	began := time.Now()
	verb(t, "migrate", "--db", db)
	usual := time.Since(began)
	want := store.play("events", db, 0)
	if events := strings.Count(want, "\n"); events != 41*(copies+1)+1 {
		t.Fatalf("%d events after a migration that nobody disturbed", events)
	}

	n, killed, quick, left := kills(t, 5), 0, 0, map[string]int{}
	began = time.Now()
	for anew := true; killed < n && quick < 10*n; {
		if anew {
			bpftest.Run(t, "cp", original, db)
		}
		ended := killMigrate(t, db, time.Duration(rand.Float64()*float64(usual)))
		state := migrationState(t, db)
		if state != "format 1" {
			verb(t, "check", "--db", db)
			if got := store.play("events", db, 0); got != want {
				t.Fatalf("%s: %d events, want %d, or others", state, strings.Count(got, "\n"), strings.Count(want, "\n"))
			}
		}
		// Half of the files are migrated by one process after the other.
		if anew = state == "joined" || killed%2 == 0; ended {
			quick++
			continue
		}
		killed++
		left[state]++
	}
	t.Logf("%d kills in %v left these files: %v; %d more processes ended before they were killed",
		killed, time.Since(began).Round(time.Millisecond), left, quick)
	verb(t, "migrate", "--db", db)
	verb(t, "check", "--db", db)
	if got := store.play("events", db, 0); got != want || migrationState(t, db) != "joined" {
		t.Errorf("the last migration left a file that is %s", migrationState(t, db))
	}
}

// killMigrate kills ebpf-server migrate some time after its start. It tells
// whether the program had ended before.
func killMigrate(t *testing.T, db string, after time.Duration) (ended bool) {
	t.Helper()
	command := exec.Command(filepath.Join(built, "ebpf-server"), "migrate", "--db", db)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(after, func() { _ = command.Process.Kill() }).Stop()
	err := command.Wait()
	if command.ProcessState.Exited() && err != nil {
		t.Fatalf("migrate failed by itself: %v", err)
	}
	return err == nil
}

// migrationState tells how far the migration of a file has come.
func migrationState(t *testing.T, db string) string {
	t.Helper()
	out, err := try("storage", "--db", db, "--hours", "-o", "json")
	if err != nil && strings.Contains(out, "must be migrated") {
		return "format 1"
	}
	var storage struct {
		Types []struct {
			Hours []struct {
				Hours  int
				Sealed bool
			}
		}
	}
	if err = errors.Join(err, json.Unmarshal([]byte(out), &storage)); err != nil {
		t.Fatalf("storage: %v\n%s", err, out)
	}
	state, hours := "joined", 0
	for _, of := range storage.Types {
		for _, h := range of.Hours {
			if !h.Sealed {
				return "partly sealed"
			}
			if h.Hours == 1 {
				hours++
			}
		}
	}
	if hours > 1 { // there is one drop, and nothing to join it with
		state = "sealed"
	}
	return state
}

// The server is killed at any moment while connections are made. What it had
// said to be in the file is there when it starts again, everything once.
func TestKilledServer(t *testing.T) {
	config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	if err := os.WriteFile(config, []byte("storage: {flush_interval: 100ms}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, ns := filepath.Join(t.TempDir(), "events.db"), bpftest.NewNetNS(t, "kills")
	n, began, acknowledged := kills(t, 2), time.Now(), map[string]bool{}
	for i := range n {
		s := start(t, filepath.Join(built, "ebpf-server"), db, "--config", config)
		for range 1 + rand.IntN(3) {
			traffic(t, ns, 20+rand.IntN(50))
		}
		// What is answered first, and not in memory after that, is in the file.
		answered := exported(t, "--server", s.url, "--netns", ns.Inode)
		if i == 0 || rand.IntN(3) > 0 {
			eventually(t, func() error {
				if _, all := s.storedEvents(); !all {
					return errors.New("events are still in memory")
				}
				return nil
			})
			for _, line := range answered {
				acknowledged[line] = true
			}
		}
		traffic(t, ns, 20)
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		if err := s.command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-s.ended; err == nil {
			t.Fatal("the server ended well although it was killed")
		}
		verb(t, "check", "--db", db)
		found := exported(t, "--db", db, "--netns", ns.Inode)
		if len(slices.Compact(slices.Clone(found))) != len(found) {
			t.Fatal("an event is there twice")
		}
		for line := range acknowledged {
			if _, ok := slices.BinarySearch(found, line); !ok {
				t.Fatalf("an acknowledged event is gone: %s", line)
			}
		}
	}
	t.Logf("%d kills in %v, %d events acknowledged", n, time.Since(began).Round(time.Millisecond), len(acknowledged))
}

// exported returns the lines of an export, sorted.
func exported(t *testing.T, args ...string) []string {
	t.Helper()
	return sortedLines(verb(t, append([]string{"export"}, args...)...))
}
