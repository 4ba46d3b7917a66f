package store

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The tests of crashes run the test binary itself as the process that is
// killed: with these variables it plays a role on a file. The tests of
// cmd/ebpf-server have it make and read files of an older format.
const (
	roleVariable   = "EBPF_SERVER_TEST_ROLE"
	pathVariable   = "EBPF_SERVER_TEST_PATH"
	numberVariable = "EBPF_SERVER_TEST_NUMBER"
)

var roles = map[string]func(path string, number int64) error{
	"ingest":   ingestUntilKilled,
	"carry":    carryUntilKilled,
	"migrate":  migrateUntilKilled,
	"format-1": writeFormat1,
	"events":   printEvents,
}

func TestMain(m *testing.M) {
	if play, ok := roles[os.Getenv(roleVariable)]; ok {
		number, err := strconv.ParseInt(os.Getenv(numberVariable), 10, 64)
		if err == nil {
			err = play(os.Getenv(pathVariable), number)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// What a process is in when it is killed; it can be in several at once.
const (
	opening  = "open"
	flushing = "flush"
	sealing  = "seal"
	joining  = "join"
	removing = "retain"
	between  = "between" // none of them
)

// within prints that this process is in a phase, for the one that kills it.
func within(phase string, do func() error) error {
	fmt.Println("+" + phase)
	err := do()
	fmt.Println("-" + phase)
	return err
}

// acknowledge prints that all before a number is in the file.
func acknowledge(what string, next int64) {
	fmt.Println("=" + what + " " + strconv.FormatInt(next, 10))
}

// victim is a process that was killed, by what it printed.
type victim struct {
	in           map[string]bool
	acknowledged map[string]int64
	lived        map[string]int // how often it was in a phase
	ended        bool           // by itself: it was too quick
}

// killer runs processes and kills each in a certain phase, at a random moment.
type killer struct {
	t     *testing.T
	began time.Time
	kills int
	hit   map[string]int
	usual map[string]time.Duration // how long a phase lasts
}

func newKiller(t *testing.T) *killer {
	return &killer{t: t, began: time.Now(), hit: make(map[string]int), usual: make(map[string]time.Duration)}
}

// kills returns how many processes a test kills: a few, unless more are asked for.
func kills(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv("EBPF_SERVER_TEST_KILLS")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("EBPF_SERVER_TEST_KILLS: %q is no number of kills", text)
	}
	return n
}

// moment is when to kill: in a phase, when the process comes to it so many times.
type moment struct {
	phase string
	turn  int
}

// waitForPhase is how long a process may live if it never comes to its phase.
const waitForPhase = 2 * time.Second

// run runs a role until a moment, and kills it. Meanwhile, if not nil, is called
// once it has opened the file.
func (k *killer) run(role, path string, number int64, at moment, meanwhile func()) victim {
	k.t.Helper()
	executable, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	child := exec.Command(executable, "-test.run=^$")
	child.Env = append(os.Environ(), roleVariable+"="+role, pathVariable+"="+path, fmt.Sprintf("%s=%d", numberVariable, number))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		k.t.Fatal(err)
	}
	shoot := func(after time.Duration) *time.Timer {
		return time.AfterFunc(after, func() { _ = child.Process.Kill() })
	}
	if at.phase != "" {
		defer shoot(waitForPhase).Stop()
	}

	v := victim{in: make(map[string]bool), acknowledged: make(map[string]int64), lived: make(map[string]int)}
	since := make(map[string]time.Time)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		k.read(&v, since, lines.Text())
		if v.in[at.phase] && v.lived[at.phase] == at.turn {
			at.turn = 0 // once
			// The phase lasts longer now and then, and its end is to be hit too.
			defer shoot(time.Duration(rand.Float64() * 1.1 * float64(k.usual[at.phase]))).Stop()
		}
		if meanwhile != nil && !v.in[opening] {
			meanwhile()
			meanwhile = nil
		}
	}
	k.count(&v, child.Wait())
	return v
}

// read takes over a line that the process printed.
func (k *killer) read(v *victim, since map[string]time.Time, line string) {
	k.t.Helper()
	what, rest, _ := strings.Cut(line[1:], " ")
	switch line[0] {
	case '+':
		v.in[what], since[what] = true, time.Now()
		v.lived[what]++
	case '-':
		delete(v.in, what)
		took := time.Since(since[what])
		if k.usual[what] > 0 {
			took = (7*k.usual[what] + took) / 8
		}
		k.usual[what] = took
	case '=':
		n, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			k.t.Fatalf("the process printed %q", line)
		}
		v.acknowledged[what] = n
	}
}

// count notes how a process ended.
func (k *killer) count(v *victim, err error) {
	k.t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		v.ended = true
		return
	case !errors.As(err, &exit) || exit.Exited():
		k.t.Fatalf("the process failed by itself: %v", err)
	}
	k.kills++
	for phase := range v.in {
		k.hit[phase]++
	}
	if len(v.in) == 0 {
		k.hit[between]++
	}
}

// enough is how many kills surely hit every phase.
const enough = 30

// report logs how often each phase was hit, and fails if one never was.
func (k *killer) report(phases ...string) {
	k.t.Helper()
	var list []string
	for _, phase := range slices.Sorted(maps.Keys(k.hit)) {
		list = append(list, fmt.Sprintf("%s %d", phase, k.hit[phase]))
	}
	k.t.Logf("%d kills in %v, in these phases: %s", k.kills, time.Since(k.began).Round(time.Millisecond), strings.Join(list, ", "))
	for _, phase := range phases {
		if k.hit[phase] == 0 && k.kills >= enough {
			k.t.Errorf("no kill hit the phase %s", phase)
		}
	}
}
