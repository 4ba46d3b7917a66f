package main_test

import (
	"bufio"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// eventsOf is how many events traffic makes: four of each connection, and two of the
// socket that listens for them.
func eventsOf(connections int64) int64 { return 4*connections + 2 }

// traffic makes n connections of 100 bytes out and 50 back in the namespace and
// returns the process ids of both sides.
func traffic(t testing.TB, ns *bpftest.NetNS, n int) (server, client int) {
	t.Helper()
	return trafficTo(t, ns, "127.0.0.1:7000", n)
}

func trafficTo(t testing.TB, ns *bpftest.NetNS, address string, n int) (server, client int) {
	t.Helper()
	listening := serveIn(t, ns, address, n)
	connecting := ns.Command(filepath.Join(built, "tclient"), "client", address, strconv.Itoa(n))
	if out, err := connecting.CombinedOutput(); err != nil {
		_ = listening.Process.Kill()
		t.Fatalf("client: %v\n%s", err, out)
	}
	if err := listening.Wait(); err != nil {
		t.Fatalf("server: %v", err)
	}
	return listening.Process.Pid, connecting.Process.Pid
}

// serveIn starts the server's side, which ends after n connections.
func serveIn(t testing.TB, ns *bpftest.NetNS, address string, n int) *exec.Cmd {
	t.Helper()
	listening := ns.Command(filepath.Join(built, "tserver"), "server", address, strconv.Itoa(n))
	out, err := listening.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := listening.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("wait for the server: %v", err)
	}
	return listening
}

// in asks for events in a namespace since it was made.
func in(ns *bpftest.NetNS, pairs ...string) url.Values {
	return query(append(pairs, "netns", ns.Inode, "since", ns.Made.Format(time.RFC3339Nano))...)
}

func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return q
}

func TestTenThousandConnections(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "many")
	const n = 10_000
	serverPID, clientPID := traffic(t, ns, n)

	for _, side := range []struct {
		direction, command string
		pid                int
		sent, received     int64
	}{
		{"outbound", "tclient", clientPID, 100 * n, 50 * n},
		{"inbound", "tserver", serverPID, 50 * n, 100 * n},
	} {
		// By the namespace and, again, by everything that should be said of this side.
		for _, q := range []url.Values{
			in(ns, "direction", side.direction),
			in(ns, "direction", side.direction, "pid", strconv.Itoa(side.pid), "command", side.command,
				"source_ip", "127.0.0.0/8", "destination_ip", "127.0.0.1", "destination_port", "7000", "protocol", "tcp", "return_code", "0"),
		} {
			eventually(t, func() error {
				got := s.summary("connections", q)
				if got.Counts["established"] != n || got.Counts["closed"] != n || got.Counts["failed"] != 0 || got.Count != 2*n ||
					got.Sums["bytes_sent"] != side.sent || got.Sums["bytes_received"] != side.received {
					return fmt.Errorf("%s: %+v", q.Encode(), got)
				}
				if !got.Coverage.Complete {
					return fmt.Errorf("coverage %+v", got.Coverage)
				}
				return nil
			})
		}
	}
	checkPages(t, s, ns, n)
}

// checkPages reads all closed connections page by page: each of them once.
func checkPages(t *testing.T, s *server, ns *bpftest.NetNS, n int) {
	t.Helper()
	q := in(ns, "type", "connection", "state", "closed", "limit", "3000")
	seen := map[string]int{}
	for {
		page := s.events(q)
		for _, e := range page.Events {
			seen[e["connection_id"].(string)]++
		}
		if page.NextCursor == "" {
			break
		}
		q.Set("cursor", page.NextCursor)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("connection %s came %d times", id, times)
		}
	}
	if len(seen) != 2*n {
		t.Errorf("%d connections in all pages, want %d", len(seen), 2*n)
	}
}
