package main_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// Everything answers after an end and a new start: by window, pid and command.
func TestRestart(t *testing.T) {
	db := filepath.Join(t.TempDir(), "events.db")
	binary := filepath.Join(built, "ebpf-server")
	ns := bpftest.NewNetNS(t, "restart")
	const n = 200
	begin := time.Now()

	first := start(t, binary, db)
	serverPID, clientPID := traffic(t, ns, n)
	eventually(t, func() error {
		if got := first.summary("connections", in(ns)); got.Count != eventsOf(n) {
			return fmt.Errorf("%d events before the restart, want %d", got.Count, eventsOf(n))
		}
		return nil
	})
	end := time.Now()
	first.stop()

	second := start(t, binary, db)
	window := []string{"netns", ns.Inode, "since", begin.Format(time.RFC3339Nano), "until", end.Format(time.RFC3339Nano)}
	for _, test := range []struct {
		name  string
		query url.Values
		want  int64
	}{
		{"window", query(window...), eventsOf(n)},
		{"server's pid", query(append(window, "pid", strconv.Itoa(serverPID))...), 2*n + 2},
		{"client's pid", query(append(window, "pid", strconv.Itoa(clientPID))...), 2 * n},
		{"command", query(append(window, "command", "tclient", "state", "closed")...), n},
		{"before the window", query("netns", ns.Inode, "until", begin.Format(time.RFC3339Nano)), 0},
		{"after the window", query("netns", ns.Inode, "since", end.Format(time.RFC3339Nano)), 0},
	} {
		if test.name == "before the window" {
			test.query.Set("since", begin.Add(-time.Hour).Format(time.RFC3339Nano))
		}
		if got := second.summary("connections", test.query); got.Count != test.want {
			t.Errorf("%s: %d events, want %d", test.name, got.Count, test.want)
		}
	}
	// The time between the two runs was not watched, and the answer says so.
	got := second.summary("connections", query("since", begin.Format(time.RFC3339Nano)))
	if got.Coverage.Complete || len(got.Coverage.Gaps) == 0 {
		t.Errorf("coverage over the restart: %+v", got.Coverage)
	}
}

func TestRetention(t *testing.T) {
	config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	if err := os.WriteFile(config, []byte("storage: {flush_interval: 200ms}\nretention: {max_age: 2s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"), "--config", config)
	ns := bpftest.NewNetNS(t, "retention")
	traffic(t, ns, 10)
	if got := s.summary("connections", in(ns)); got.Count == 0 {
		t.Fatal("nothing was recorded")
	}
	// Answers leave out what is too old, and then it leaves the file as well.
	eventually(t, func() error {
		if got := s.summary("connections", in(ns)); got.Count != 0 {
			return fmt.Errorf("%d events are still answered", got.Count)
		}
		return nil
	})
	eventually(t, func() error {
		var health struct{ Store struct{ Events int64 } }
		s.get("/health", nil, &health)
		if health.Store.Events > 20 { // those of this test's own requests
			return fmt.Errorf("%d events are still in the file", health.Store.Events)
		}
		return nil
	})
	if got := s.summary("connections", query("since", "-1m")); got.Coverage.Complete {
		t.Error("coverage does not tell of what retention removed")
	}
}

// An answer includes what happened before the question, although the program
// is not woken for every event.
func TestAnswersAreCurrent(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "current")
	for i := range 20 {
		ns.Do(t, func() {
			if _, err := net.Dial("tcp4", "127.0.0.1:7001"); err == nil {
				t.Error("connected to a closed port")
			}
		})
		if got := s.events(in(ns, "type", "connection", "state", "failed")); got.Count != i+1 {
			t.Fatalf("%d events after %d failed connects", got.Count, i+1)
		}
	}
}

// The drops of two known packets, by what the API says of them.
func TestDrops(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "drops")
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in udp dport 7002 drop")
	ns.Do(t, func() {
		for _, port := range []string{"7001", "7002"} {
			c, err := net.Dial("udp4", "127.0.0.1:"+port)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	})
	got := s.summary("packet_drops", in(ns, "protocol", "udp", "interface", "lo"))
	if got.Count != 2 || got.Counts["NO_SOCKET"] != 1 || got.Counts["NETFILTER_DROP"] != 1 || got.Sums["length"] != 2*(28+5) {
		t.Errorf("summary: %+v", got)
	}
	var posted summary
	s.post("/api/packet_drops/summary", `{"duration":60,"filters":{"netns":`+ns.Inode+`,"protocol":"udp"}}`, &posted)
	if posted.Count != 2 {
		t.Errorf("posted summary: %+v", posted)
	}
}

// After a kill everything that was written is there, and the time without the
// program is told as a crash.
func TestKill(t *testing.T) {
	config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	if err := os.WriteFile(config, []byte("storage: {flush_interval: 200ms}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, binary := filepath.Join(t.TempDir(), "events.db"), filepath.Join(built, "ebpf-server")
	ns := bpftest.NewNetNS(t, "kill")
	first := start(t, binary, db, "--config", config)
	traffic(t, ns, 50)
	eventually(t, func() error {
		if got := first.summary("connections", in(ns)).Count; got != eventsOf(50) {
			return fmt.Errorf("%d events, want %d", got, eventsOf(50))
		}
		if _, all := first.storedEvents(); !all {
			return errors.New("events are still in memory")
		}
		return nil
	})
	if err := first.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-first.ended; err == nil {
		t.Error("the server ended well although it was killed")
	}

	second := start(t, binary, db, "--config", config)
	got := second.summary("connections", in(ns))
	if got.Count != eventsOf(50) {
		t.Errorf("%d events after the kill, want %d", got.Count, eventsOf(50))
	}
	if got.Coverage.Complete || got.Coverage.Gaps[len(got.Coverage.Gaps)-1].Reason != "crashed" {
		t.Errorf("coverage over the kill: %+v", got.Coverage)
	}
}

// What is lost while the program cannot read is told for that time.
func TestLossIsToldForItsTime(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "loss")
	const n = 200_000                   // more than fit in the ring buffer, see monitor.h
	time.Sleep(1200 * time.Millisecond) // the counters are read every second
	if err := s.command.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	ns.Do(t, func() { udpConnections(t, n/2) })
	end := time.Now()
	time.Sleep(1200 * time.Millisecond)
	if err := s.command.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	during := s.summary("connections", query("since", begin.Format(time.RFC3339Nano), "until", end.Format(time.RFC3339Nano)))
	recorded := s.summary("connections", in(ns)).Count
	lost := during.Coverage.Lost["connection"]
	// Connections of others on this machine may be among the lost.
	if during.Coverage.Complete || lost == 0 || recorded+lost < n {
		t.Errorf("%d recorded and %d lost of %d; coverage of that time %+v", recorded, lost, n, during.Coverage)
	}
}

// What happens while the program stops is recorded, or lies in a gap.
func TestStopTellsWhatItMissed(t *testing.T) {
	db, binary := filepath.Join(t.TempDir(), "events.db"), filepath.Join(built, "ebpf-server")
	first := start(t, binary, db)
	ns := bpftest.NewNetNS(t, "stop")
	made := map[string]time.Time{} // when each was there, by the client's port
	var stopped atomic.Bool
	connecting := make(chan struct{})
	go func() {
		defer close(connecting)
		ns.Do(t, func() {
			l, err := net.Listen("tcp4", "127.0.0.1:7001")
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			for !stopped.Load() {
				c, err := net.Dial("tcp4", "127.0.0.1:7001")
				if err != nil {
					t.Error(err)
					return
				}
				_, port, _ := net.SplitHostPort(c.LocalAddr().String())
				made[port] = time.Now()
				if served, err := l.Accept(); err == nil {
					served.Close()
				}
				c.Close()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}()
	time.Sleep(500 * time.Millisecond)
	first.stop()
	stopped.Store(true)
	<-connecting

	second := start(t, binary, db)
	page := second.events(in(ns, "type", "connection", "state", "established", "direction", "outbound", "limit", "10000"))
	recorded := map[string]bool{}
	for _, e := range page.Events {
		recorded[strconv.Itoa(int(e["source_port"].(float64)))] = true
	}
	if len(page.Coverage.Gaps) == 0 || len(recorded) == 0 || len(recorded) == len(made) {
		t.Fatalf("%d of %d connections recorded, gaps %v: the test did not meet the stop", len(recorded), len(made), page.Coverage.Gaps)
	}
	for port, at := range made {
		if !recorded[port] && at.Before(page.Coverage.Gaps[0].From) {
			t.Errorf("a connection %v before the first gap is not recorded", page.Coverage.Gaps[0].From.Sub(at))
		}
	}
}
