package main_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// A flood on small ring buffers while nobody reads them: everything that was seen
// is stored, lost or left out, to the last event, wherever it is told.
func TestFloodIsAccountedFor(t *testing.T) {
	const connections, otherConnections = 2000, 1000
	// Addresses that nobody else on this machine uses: then what is told of them
	// is this test's own.
	own := net.IPv4(127, byte(64+os.Getpid()>>8%64), byte(os.Getpid()), 1).To4()
	leftOut := net.IPv4(127, own[1], own[2], 2)
	only := fmt.Sprintf(`, include: ["ip=%s,%s"]`, own, leftOut)
	for name, include := range map[string]string{"only the flood": only, "everything": ""} {
		t.Run(name, func(t *testing.T) {
			rules := fmt.Sprintf("ring_buffer: 64KiB, exclude: [ip=%s]%s", leftOut, include)
			config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
			text := fmt.Sprintf("programs:\n  connection: {own_api: true, %s}\n  packet_drop: {%s}\n", rules, rules)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			db := filepath.Join(t.TempDir(), "events.db")
			s := start(t, filepath.Join(built, "ebpf-server"), db, "--config", config)
			ns := bpftest.NewNetNS(t, "flood")
			dropUDP(t, ns)
			var drops, otherDrops int64
			begin := time.Now()
			s.whileStopped(func() {
				trafficTo(t, ns, own.String()+":7000", connections)
				trafficTo(t, ns, leftOut.String()+":7000", otherConnections)
				ns.Do(t, func() {
					drops = sendDatagrams(t, own, 17, 3000)
					otherDrops = sendDatagrams(t, leftOut, 1, 3000)
				})
			})
			onlyOwn := include != ""
			eventually(t, func() error {
				for _, p := range s.programs().Programs {
					recorded, filtered := eventsOf(connections), eventsOf(otherConnections)
					if p.Name == "packet_drop" {
						recorded, filtered = drops, otherDrops
					}
					got := s.summary(p.Collection, query("since", begin.Format(time.RFC3339Nano)))
					lost, excluded := got.Coverage.Lost[p.Name], got.Coverage.Filtered[p.Name]["excluded"]
					// The kernel may skip a program that interrupts itself: an upper bound.
					beyond := got.Count + lost - recorded
					if beyond < 0 || excluded < filtered ||
						onlyOwn && beyond > p.Lost["program_skipped"] || !onlyOwn && excluded != filtered {
						return fmt.Errorf("of %d, and %d to be left out, there are %d and coverage %+v", recorded, filtered, got.Count, got.Coverage)
					}
					if p.Name == "connection" && (lost == 0 || got.Coverage.Complete) {
						return fmt.Errorf("no connection was lost: %+v", got)
					}
				}
				return nil
			})
			s.balances()
			s.stop()
			verb(t, "check", "--db", db)
		})
	}
}

// whileStopped does something while the server does not run.
func (s *server) whileStopped(do func()) {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := s.command.Process.Signal(syscall.SIGCONT); err != nil {
			s.t.Error(err)
		}
	}()
	do()
}

// balances wants the books of every program to balance since the server's start,
// on a file that was new then. Others on this machine make events too, of which
// some may be on their way, so it may take more than one look.
func (s *server) balances() {
	s.t.Helper()
	eventually(s.t, func() error {
		told := s.metrics()
		for _, p := range s.programs().Programs {
			all := s.summary(p.Collection, nil)
			if err := balance(told, p, all); err != nil {
				return fmt.Errorf("%w: %+v, metrics %v, stored %d, coverage %+v", err, p, told, all.Count, all.Coverage)
			}
		}
		return nil
	})
}

func balance(metrics map[string]int64, p program, stored summary) error {
	filtered, lost, before := int64(0), int64(0), int64(0)
	for kind, n := range p.Filtered {
		filtered += n
		if metrics[fmt.Sprintf("filtered_total{program=%q,reason=%q}", p.Name, kind)] != n {
			return fmt.Errorf("%s in metrics", kind)
		}
	}
	for place, n := range p.Lost {
		lost += n
		if place != "program_skipped" && place != "write_failed" {
			before += n
		}
		if metrics[fmt.Sprintf("lost_total{place=%q,program=%q}", place, p.Name)] != n {
			return fmt.Errorf("%s in metrics", place)
		}
	}
	maps.DeleteFunc(p.Filtered, func(_ string, n int64) bool { return n == 0 })
	switch {
	case metrics[fmt.Sprintf("seen_total{program=%q}", p.Name)] != p.Seen || metrics[fmt.Sprintf("events_total{program=%q}", p.Name)] != p.Events:
		return fmt.Errorf("seen and events in metrics")
	case p.Seen != p.Events+filtered+before:
		return fmt.Errorf("seen is not the sum of what became of it")
	case p.Events != stored.Count+p.Lost["write_failed"]:
		return fmt.Errorf("not all that was recorded is stored or counted as lost")
	case stored.Coverage.Lost[p.Name] != lost:
		return fmt.Errorf("losses in coverage")
	case !maps.Equal(stored.Coverage.Filtered[p.Name], p.Filtered):
		return fmt.Errorf("filtered in coverage")
	}
	return nil
}

// metrics returns what GET /metrics says of programs, by name and labels.
func (s *server) metrics() map[string]int64 {
	s.t.Helper()
	response, err := http.Get(s.url + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	told := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(value, 64)
		if name, ours := strings.CutPrefix(name, "ebpf_server_"); ours && err == nil {
			told[name] = int64(n)
		}
	}
	return told
}
