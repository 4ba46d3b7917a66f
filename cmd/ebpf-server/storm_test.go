package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

const (
	stormConnections = 200_000
	// Short runs, and many: what else the machine does comes and goes. The ring
	// buffer holds half the events of one, so that work is not merely put off.
	pairs           = 11
	pairConnections = 50_000
)

// BenchmarkStorm makes short connections, 100 bytes out and 50 back, with both
// processors busy: in turn without the monitor and with it, of which it reports the
// median ratio, once as programs in Go make them, and once with as little spent on
// each as can be (testdata/traffic/storm.go), where the monitor weighs twice as much.
// Then more of the latter, of which each must be there with its four events; and again,
// while the kernel measures the eBPF programs, which itself costs time.
func BenchmarkStorm(b *testing.B) {
	bpftest.RequireRoot(b)
	for b.Loop() {
		b.ReportMetric(onOff(b, "programs"), "on/off")
		b.ReportMetric(onOff(b, "storm"), "on/off-storm")
		s := startDefault(b)
		made, cpu := s.storm(b)
		s.stop()
		b.ReportMetric(made.speed, "connections/s")
		b.ReportMetric(cpu, "CPU-s/Mevent")
		measureHooks(b)
	}
}

func onOff(b *testing.B, role string) float64 {
	b.Helper()
	var ratios []float64
	for range pairs {
		without := stormOf(b, role, pairConnections)
		s := startDefault(b)
		with := stormOf(b, role, pairConnections)
		s.stop()
		b.Logf("%s: %.0f connections/s without the monitor, %.0f with it", role, without.speed, with.speed)
		ratios = append(ratios, with.speed/without.speed)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

func startDefault(b *testing.B) *server {
	b.Helper()
	return start(b, filepath.Join(built, "ebpf-server"), filepath.Join(b.TempDir(), "events.db"))
}

// stormed is a storm that is over: the process that made it, and how many
// connections it made in a second.
type stormed struct {
	pid   int
	speed float64
}

// stormOf makes n connections in a role of testdata/traffic. After a while only: what ran before is gone then, and
// run times are not sampled, as they are in the monitor's first second.
func stormOf(b testing.TB, role string, n int) stormed {
	b.Helper()
	time.Sleep(2 * time.Second)
	command := inOwnNetNS(role, n)
	out, err := command.Output()
	if err != nil {
		b.Fatalf("%s: %v", role, err)
	}
	ns, err := strconv.ParseInt(string(bytes.TrimSpace(out)), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return stormed{command.Process.Pid, float64(n) / (float64(ns) / 1e9)}
}

// inOwnNetNS is a role of testdata/traffic in a network namespace that goes with
// the process. So no connection in TIME_WAIT is there from before, and there is
// room for all of this one: the kernel resets connections that find none.
func inOwnNetNS(role string, n int) *exec.Cmd {
	command := exec.Command("sh", "-c", `ip link set lo up && sysctl -qw net.ipv4.tcp_max_tw_buckets=10000000 && exec "$@"`,
		"sh", filepath.Join(built, "tclient"), role, strconv.Itoa(n))
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	return command
}

// storm checks that all of a storm is in the file. It also returns the program's
// CPU time, in seconds for a million events.
func (s *server) storm(b *testing.B) (made stormed, cpu float64) {
	b.Helper()
	pid := s.command.Process.Pid
	before, _ := s.storedEvents()
	began, used := time.Now(), cpuSeconds(b, pid)
	made = stormOf(b, "storm", stormConnections)
	stored := s.waitForFile(b, before+4*stormConnections)
	cpu = (cpuSeconds(b, pid) - used) / float64(stored-before) * 1e6
	s.hasAllOf(b, stormConnections, began, made.pid)
	return made, cpu
}

// waitForFile waits until so many events are in the file or counted as lost.
func (s *server) waitForFile(b *testing.B, want int64) (stored int64) {
	b.Helper()
	eventually(b, func() error {
		var all bool
		lost := s.programs().lost()
		if stored, all = s.storedEvents(); !all || stored+lost < want {
			return fmt.Errorf("%d events are stored, %d lost, want %d; all of them in the file: %v", stored, lost, want, all)
		}
		return nil
	})
	return stored
}

// hasAllOf wants n connections of these processes: every event and byte.
func (s *server) hasAllOf(b testing.TB, n int64, since time.Time, pids ...int) {
	b.Helper()
	s.hasAllBut(b, 0, n, since, pids...)
}

// hasAllBut wants so many ends missing and nothing else, and that this was counted.
func (s *server) hasAllBut(b testing.TB, missing, n int64, since time.Time, pids ...int) {
	b.Helper()
	q := query("since", since.Format(time.RFC3339Nano), "command", "tclient", "protocol", "tcp", "return_code", "0")
	for _, pid := range pids {
		q.Add("pid", strconv.Itoa(pid))
	}
	var closed int64
	for _, side := range []struct {
		direction      string
		sent, received int64
	}{{"outbound", 100, 50}, {"inbound", 50, 100}} {
		q.Set("direction", side.direction)
		got := s.summary("connections", q)
		ends := got.Counts["closed"]
		if got.Count != n+ends || got.Counts["established"] != n || got.Sums["bytes_sent"] != side.sent*ends ||
			got.Sums["bytes_received"] != side.received*ends || got.Coverage.Complete != (missing == 0) {
			b.Errorf("%s, of %d connections: %v, %v, coverage %+v", side.direction, n, got.Counts, got.Sums, got.Coverage)
		}
		closed += ends
	}
	if lost := s.programs().lost(); closed != 2*n-missing || lost != missing {
		b.Errorf("%d ends of %d connections, %d events were lost, want %d: %v", closed, n, lost, missing, s.lostByPlace())
	}
}

// measureHooks reports what each eBPF program takes by the kernel's statistics,
// and what an empty one does: the part of it that is the measurement's own.
func measureHooks(b *testing.B) {
	b.Helper()
	s := startDefault(b)
	defer s.stop()
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer empty.Close()
	attached, err := link.AttachTracing(link.TracingOptions{Program: empty})
	if err != nil {
		b.Fatal(err)
	}
	defer attached.Close()
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	s.storm(b)
	stats.Close()

	var all float64 // ns in eBPF
	for _, p := range s.programs().Programs {
		for _, h := range p.Hooks {
			all += float64(h.Runs * h.NSPerRun)
			if h.Runs >= stormConnections/2 { // the others run for what else the machine does
				b.ReportMetric(float64(h.NSPerRun), "ns/"+h.Name)
				b.ReportMetric(float64(h.Runs)/stormConnections, "runs/"+h.Name)
			}
		}
	}
	b.ReportMetric(all/stormConnections, "eBPF-ns/connection")
	floor, err := empty.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(floor.Runtime.Nanoseconds())/float64(floor.RunCount), "ns/empty-run")
}
