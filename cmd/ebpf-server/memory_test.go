package main_test

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// memoryAsked says how many connections BenchmarkMemory makes.
var memoryAsked = takeVariable("EBPF_SERVER_TEST_CONNECTIONS")

const (
	heldConnections = 100_000
	// Each process has both ends of so many: RLIMIT_NOFILE may be 20,000, and not
	// everybody may raise it.
	heldByProcess = 5_000
	memorySamples = 10
)

// BenchmarkMemory makes connections by the million while others stay open, and
// reports what the program and its eBPF maps take: after the first tenth, at the
// end, and at most. Nothing may be lost but ends of which the kernel did not tell, and
// these must be counted.
func BenchmarkMemory(b *testing.B) {
	bpftest.RequireRoot(b)
	n, err := strconv.Atoi(cmp.Or(memoryAsked, "5000000"))
	if err != nil || n < memorySamples {
		b.Fatalf("EBPF_SERVER_TEST_CONNECTIONS: %q is no number of connections", memoryAsked)
	}
	for b.Loop() {
		s := startDefault(b)
		began := time.Now()
		held, release := holdOpen(b)
		var samples []memory
		var stormed []int
		for i := range memorySamples {
			made := stormOf(b, "storm", n/memorySamples)
			stormed = append(stormed, made.pid)
			samples = append(samples, s.memory())
			b.Logf("%d connections, %.0f/s: %+v, lost %v", (i+1)*(n/memorySamples), made.speed, samples[i], s.lostByPlace())
		}
		release()
		total := int64(n / memorySamples * memorySamples)
		s.waitForFile(b, 4*(total+heldConnections))
		missed := s.lostByPlace()["connection end_missed"] // by this kernel, see docs/kernels.md
		s.hasAllBut(b, missed, total, began, stormed...)
		s.hasHeld(b, began, held)
		report(b, samples)
		b.ReportMetric(float64(missed), "ends-missed")
		s.stop()
	}
}

// holdOpen opens connections that stay until release is called. It returns the
// processes that hold them.
func holdOpen(b *testing.B) (pids []int, release func()) {
	b.Helper()
	var let []func()
	for range heldConnections / heldByProcess {
		command := inOwnNetNS("hold", heldByProcess)
		in, err := command.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := command.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := command.Start(); err != nil {
			b.Fatal(err)
		}
		// Also when the benchmark fails: at the end of its input it ends.
		b.Cleanup(func() { in.Close() })
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			b.Fatalf("wait for held connections: %v", err)
		}
		pids = append(pids, command.Process.Pid)
		let = append(let, func() {
			in.Close()
			if err := command.Wait(); err != nil {
				b.Errorf("hold connections: %v", err)
			}
		})
	}
	return pids, func() {
		for _, f := range let {
			f()
		}
	}
}

// hasHeld wants the beginning and the end of all connections that were held.
func (s *server) hasHeld(b *testing.B, since time.Time, pids []int) {
	b.Helper()
	q := query("since", since.Format(time.RFC3339Nano), "command", "tclient")
	for _, pid := range pids {
		q.Add("pid", strconv.Itoa(pid))
	}
	got := s.summary("connections", q)
	if got.Counts["established"] != 2*heldConnections || got.Counts["closed"] != 2*heldConnections {
		b.Errorf("of %d connections that were held: %v", heldConnections, got.Counts)
	}
}

// memory is what the program takes, in bytes.
type memory struct {
	RSS, Anonymous, Maps int64 // Maps are those of eBPF, which no process has
}

func (s *server) memory() (m memory) {
	s.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.command.Process.Pid)
	status := s.fields(proc + "status")
	m.RSS, m.Anonymous = status["VmRSS"]*1024, status["RssAnon"]*1024
	files, err := filepath.Glob(proc + "fdinfo/*")
	if err != nil {
		s.t.Fatal(err)
	}
	counted := map[int64]bool{}
	for _, file := range files {
		info := s.fields(file)
		if id, isMap := info["map_id"]; isMap && !counted[id] {
			counted[id] = true
			m.Maps += info["memlock"]
		}
	}
	return m
}

// fields returns the numbers in a file of lines like "name: 12".
func (s *server) fields(file string) map[string]int64 {
	s.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) { // closed meanwhile
		s.t.Fatal(err)
	}
	found := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if words := strings.Fields(rest); len(words) > 0 {
			if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
				found[name] = n
			}
		}
	}
	return found
}

// lostByPlace leaves out places where nothing was lost.
func (s *server) lostByPlace() map[string]int64 {
	s.t.Helper()
	lost := map[string]int64{}
	for _, p := range s.programs().Programs {
		for place, n := range p.Lost {
			if n > 0 {
				lost[p.Name+" "+place] += n
			}
		}
	}
	return lost
}

func report(b *testing.B, samples []memory) {
	b.Helper()
	const mb = 1e6
	first, last := samples[0], samples[len(samples)-1]
	var peak memory
	for _, m := range samples {
		peak = memory{max(peak.RSS, m.RSS), max(peak.Anonymous, m.Anonymous), max(peak.Maps, m.Maps)}
	}
	b.ReportMetric(float64(first.RSS)/mb, "first-RSS-MB")
	b.ReportMetric(float64(last.RSS)/mb, "last-RSS-MB")
	b.ReportMetric(float64(peak.RSS)/mb, "peak-RSS-MB")
	b.ReportMetric(float64(peak.Anonymous)/mb, "peak-anonymous-MB")
	b.ReportMetric(float64(peak.Maps)/mb, "peak-maps-MB")
	b.ReportMetric(float64(last.RSS)/float64(first.RSS), "RSS-last/first")
	b.ReportMetric(float64(last.Anonymous)/float64(first.Anonymous), "anonymous-last/first")
	b.ReportMetric(float64(last.Maps)/float64(first.Maps), "maps-last/first")
}
