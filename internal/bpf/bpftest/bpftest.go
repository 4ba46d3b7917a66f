// Package bpftest runs monitors for tests: on this machine's kernel, as root,
// with traffic in network namespaces that the test makes.
package bpftest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/event"
)

// RequireRoot skips the test for ordinary users and says so. As root nothing
// is skipped: what this kernel lacks is then a failure.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads eBPF programs and makes network namespaces")
	}
}

// Emulated tells whether the tests run in a guest of make test-kernels. Its CPUs
// take turns: one stands still for milliseconds in the middle of whatever the
// kernel does there, which is when the others see what is half done.
func Emulated() bool { return os.Getenv("EBPF_SERVER_TEST_EMULATED") != "" }

// Recorder is a sink that keeps everything.
type Recorder struct {
	mu       sync.Mutex
	rows     []event.Row
	lost     map[string]int64
	filtered map[string]int64
	drain    func(context.Context) error
	status   func() bpf.Status
}

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder {
	return &Recorder{lost: map[string]int64{}, filtered: map[string]int64{}}
}

// Append implements bpf.Sink.
func (r *Recorder) Append(b *event.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range b.Len() {
		r.rows = append(r.rows, event.Row{Batch: b, Index: i})
	}
}

// Lost implements bpf.Sink.
func (r *Recorder) Lost(_, place string, _ time.Time, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost[place] += n
}

// Filtered implements bpf.Sink.
func (r *Recorder) Filtered(_, kind string, _ time.Time, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.filtered[kind] += n
}

// Start runs a monitor until the test ends.
func Start(t testing.TB, m *bpf.Monitor) *Recorder {
	t.Helper()
	return StartWith(t, m, bpf.Options{})
}

// StartWith runs a monitor with options until the test ends.
func StartWith(t testing.TB, m *bpf.Monitor, o bpf.Options) *Recorder {
	t.Helper()
	RequireRoot(t)
	return StartOn(t, m, NewHost(t), o)
}

// Changed returns a monitor like another whose object is changed before it is loaded.
func Changed(m *bpf.Monitor, change func(*ebpf.CollectionSpec)) *bpf.Monitor {
	other := *m
	other.Load = func() (*ebpf.CollectionSpec, error) {
		spec, err := m.Load()
		if err == nil {
			change(spec)
		}
		return spec, err
	}
	return &other
}

// NewHost returns this machine.
func NewHost(t testing.TB) *bpf.Host {
	t.Helper()
	host, err := bpf.NewHost(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// StartOn is StartWith with a host that the test has changed.
func StartOn(t testing.TB, m *bpf.Monitor, host *bpf.Host, o bpf.Options) *Recorder {
	t.Helper()
	r := NewRecorder()
	program, err := bpf.Start(m, host, o, r, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.drain, r.status = program.Drain, program.Status
	t.Cleanup(func() {
		if err := program.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		r.Account(t, program.Status())
	})
	return r
}

// Account compares what a monitor that was stopped has seen with what became of
// it, and with what the recorder was told. While it runs, events that were seen
// are on their way.
func (r *Recorder) Account(t testing.TB, s bpf.Status) {
	t.Helper()
	for _, told := range []struct{ sink, status map[string]int64 }{{r.lost, s.Lost}, {r.filtered, s.Filtered}} {
		for name, n := range told.status {
			if told.sink[name] != n {
				t.Errorf("the status says %d of %s, and the sink was told %d", n, name, told.sink[name])
			}
		}
	}
	sum := s.Events + s.Lost[bpf.LostRingBufferFull] + s.Lost[bpf.LostMapFull] + s.Lost[bpf.LostEndMissed] + s.Lost[bpf.LostDecodeFailed]
	for _, n := range s.Filtered {
		sum += n
	}
	if s.Seen != sum {
		t.Errorf("%d were seen, and %d are accounted for: %d events, lost %v, filtered %v", s.Seen, sum, s.Events, s.Lost, s.Filtered)
	}
}

// Status returns the monitor's status.
func (r *Recorder) Status() bpf.Status { return r.status() }

// Lacks tells whether this kernel lacks a feature of the monitor. It says so in
// the test's log: make test-kernels compares that with what the kernel is known
// to lack, so that no test expects less than it should.
func (r *Recorder) Lacks(t testing.TB, feature string) bool {
	t.Helper()
	found, asked := r.Status().Features[feature]
	if !asked {
		t.Fatalf("the monitor has no feature %s", feature)
	}
	if !found {
		t.Logf("this kernel lacks %s", feature)
	}
	return !found
}

// Event is one event as a person reads it: the printed values by column.
type Event map[string]string

// Events returns what was recorded in a network namespace so far.
func (r *Recorder) Events(t testing.TB, ns *NetNS) []Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.drain(ctx); err != nil {
		t.Fatalf("drain: %v", err)
	}
	return r.Recorded(ns)
}

// Recorded returns what the recorder has of a network namespace.
func (r *Recorder) Recorded(ns *NetNS) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []Event
	for _, row := range r.rows {
		if row.Time() < ns.Made.UnixNano() {
			continue
		}
		e := Event{}
		for i, column := range row.Batch.Type.Columns {
			if text, ok := row.AppendText(nil, i); ok {
				e[column.Name] = string(text)
			}
		}
		if e["netns"] == ns.Inode {
			found = append(found, e)
		}
	}
	return found
}

// WaitFor returns the events of the namespace that match, once there are n, and
// never more.
func (r *Recorder) WaitFor(t testing.TB, ns *NetNS, n int, match Event) []Event {
	t.Helper()
	found := r.waitFor(t, ns, n, match)
	if len(found) > n {
		t.Fatalf("%d events match %v, want %d; all:\n%s", len(found), match, n, show(r.Recorded(ns)))
	}
	return found
}

// WaitForFirst returns the first event of the namespace that matches; others may follow.
func (r *Recorder) WaitForFirst(t testing.TB, ns *NetNS, match Event) Event {
	t.Helper()
	return r.waitFor(t, ns, 1, match)[0]
}

// waitFor returns the events that match, once there are n or more.
func (r *Recorder) waitFor(t testing.TB, ns *NetNS, n int, match Event) []Event {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all := r.Events(t, ns)
		var found []Event
		for _, e := range all {
			if e.matches(match) {
				found = append(found, e)
			}
		}
		if len(found) >= n {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events match %v, want %d; all:\n%s", len(found), match, n, show(all))
		}
	}
}

// LostEvents returns how many events were lost, by place.
func (r *Recorder) LostEvents() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.lost)
}

func (e Event) matches(want Event) bool {
	for name, value := range want {
		if e[name] != value {
			return false
		}
	}
	return true
}

func show(events []Event) string {
	var text strings.Builder
	for _, e := range events {
		fmt.Fprintln(&text, e)
	}
	return text.String()
}

// NetNS is a network namespace of the test's own, with loopback up.
type NetNS struct {
	Name  string
	Inode string
	// Made is when it was made. The kernel uses inode numbers again: what was
	// recorded before belongs to a namespace that is gone.
	Made time.Time
}

// NewNetNS makes a network namespace that is gone after the test.
func NewNetNS(t testing.TB, name string) *NetNS {
	t.Helper()
	RequireRoot(t)
	ns := &NetNS{Name: fmt.Sprintf("ebpfsrv-%s-%d", name, os.Getpid()), Made: time.Now()}
	Run(t, "ip", "netns", "add", ns.Name)
	t.Cleanup(func() { Run(t, "ip", "netns", "del", ns.Name) })
	ns.Run(t, "ip", "link", "set", "lo", "up")
	link := ns.Run(t, "readlink", "/proc/self/ns/net")
	ns.Inode = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(link), "net:["), "]")
	return ns
}

// Run runs a command in the namespace and returns its output.
func (ns *NetNS) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	command := ns.Command(name, args...)
	return Run(t, command.Path, command.Args[1:]...)
}

// Command is exec.Command in the namespace; the process id is the command's
// own. It enters the network namespace alone: "ip netns exec" also mounts
// things, which does not work everywhere.
func (ns *NetNS) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + ns.Name, name}, args...)...)
}

// Do calls f on a thread that is in the namespace; sockets opened there belong
// to it for good.
func (ns *NetNS) Do(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error, 1)
	failed := true // f ended the goroutine, as t.Fatal does
	go func() {
		defer close(done)
		// The thread is not unlocked: it ends with the goroutine, and nobody
		// else finds itself in this namespace.
		runtime.LockOSThread()
		handle, err := netns.GetFromName(ns.Name)
		if err == nil {
			err = netns.Set(handle)
			_ = handle.Close() // it was only needed to enter
		}
		if err == nil {
			f()
		}
		failed = false
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter network namespace %s: %v", ns.Name, err)
	}
	if failed {
		t.FailNow()
	}
}

// InCgroup runs a command in a cgroup, which is gone when this returns. The
// path is below the root of the cgroup2 file system.
func InCgroup(t testing.TB, path string, command *exec.Cmd) {
	t.Helper()
	root := bpf.CgroupRoot()
	folder := filepath.Join(root, path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(opened.Fd())}
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	// Folders above stay where others use them.
	for err = nil; err == nil && folder != root; folder = filepath.Dir(folder) {
		err = os.Remove(folder)
	}
}

// Run runs a command and returns its output; a failure ends the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
