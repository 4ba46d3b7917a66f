package store

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// The test binary runs itself as the process that is killed: with this
// variable it is the path of the file to write.
const crashPathVariable = "EBPF_SERVER_TEST_CRASH_PATH"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashPathVariable); path != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crashBatch is how many events a batch of writeUntilKilled has. Batches are
// spread over four hours of two days.
const crashBatch = 50

// writeUntilKilled appends numbered batches where an earlier process stopped,
// and prints the number of the next event after each flush: those before it
// are acknowledged.
func writeUntilKilled(path string) error {
	started := time.Now()
	s, err := Open(Options{
		Path: path, Types: testTypes, FlushInterval: 3 * time.Millisecond, Limits: Limits{MaxSize: map[string]int64{"drop": 50_000}},
		// All hours and days are over, so that everything is sealed and joined soon.
		now: func() time.Time { return begin.Add(100*time.Hour + time.Since(started)) }, sealAfter: time.Millisecond,
	})
	if err != nil {
		return err
	}
	if err := s.Start(Run{Types: []string{"flow"}}); err != nil {
		return err
	}
	next := int64(0)
	for _, t := range s.Status().Types {
		if t.Name == "flow" {
			next += t.Events
		}
	}
	for {
		size := int64(crashBatch)
		if rand.IntN(20) == 0 {
			size *= 2 * directRows / crashBatch // a block at once
		}
		b := event.NewBatch(flowType, int(size))
		for range size {
			addFlow(b, begin.Add(time.Duration(next/size%4)*7*time.Hour).UnixNano()+next, next)
			next++
		}
		s.Append(b)
		drops := event.NewBatch(dropType, 0)
		for i := range int64(200) { // more than is kept
			drops.AppendRows(drop(begin.Add(time.Duration(rand.IntN(50))*time.Hour), i), nil)
		}
		s.Append(drops)
		if next%(3*crashBatch) == 0 { // sometimes leave it to the loop
			continue
		}
		if err := s.Flush(); err != nil {
			return err
		}
		fmt.Println(next)
	}
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path, sealed := testPath(t), 0
	for range 6 {
		acknowledged := runAndKill(t, executable, path)
		s := openTest(t, Options{Path: path})
		seen := make(map[int64]int)
		for _, n := range numbers(t, s, query.Events{Types: []*event.Type{flowType}}) {
			seen[n]++
		}
		for n := range acknowledged {
			if seen[n] != 1 {
				t.Fatalf("event %d of %d acknowledged ones is there %d times", n, acknowledged, seen[n])
			}
		}
		if n := int64(len(seen)); n%crashBatch != 0 || seen[n-1] != 1 {
			t.Fatalf("%d events are there: a batch was torn", n)
		}
		sealed, _ = blocksOf(t, s, "flow")
		closeTest(t, s)
	}
	if sealed == 0 {
		t.Error("no process lived to make a block")
	}
}

// runAndKill runs the process for some milliseconds and returns how many
// events it has acknowledged. Meanwhile nobody else can open the file.
func runAndKill(t *testing.T, executable, path string) (acknowledged int64) {
	t.Helper()
	child := exec.Command(executable, "-test.run=^$")
	child.Env = append(os.Environ(), crashPathVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the process wrote nothing")
	}
	if rand.IntN(4) == 0 {
		if _, err := Open(Options{Path: path}); !errors.Is(err, ErrInUse) {
			t.Errorf("a second open: %v", err)
		}
	}
	time.AfterFunc(time.Duration(rand.IntN(40))*time.Millisecond, func() { _ = child.Process.Kill() })
	for more := true; more; more = lines.Scan() {
		if _, err := fmt.Sscan(lines.Text(), &acknowledged); err != nil {
			t.Errorf("the process wrote %q", lines.Text())
		}
	}
	_ = child.Wait() // "signal: killed"
	return acknowledged
}
