package connection_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// raiseOpenFiles lets the test have so many open files.
func raiseOpenFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	raised := limit
	raised.Cur, raised.Max = max(limit.Cur, n), max(limit.Max, n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		t.Fatalf("have %d files open, of at most %d: %v", n, limit.Max, err)
	}
	t.Cleanup(func() {
		limit.Max = raised.Max // it cannot be raised again by all who may lower it
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
}

// More sockets at once than have entries at hand (SOCKETS_AT_HAND in
// bpf/include/open_connections.h): those beyond are remembered elsewhere, and then the
// first again.
func TestCrowd(t *testing.T) {
	const n = 8400 // with two ends on this host each
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "crowd")
	raiseOpenFiles(t, 2*n+1000) // other tests leave some open
	ns.Do(t, func() {
		server := socketOf(t, 0)
		listenOn(t, server)
		var open []int
		defer func() {
			for _, fd := range open {
				unix.Close(fd)
			}
		}()
		for range n {
			client, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), false)
			if err != nil {
				t.Error(err)
				break
			}
			served, _, err := unix.Accept(server)
			if err != nil {
				t.Error(err)
				break
			}
			if _, err := unix.Write(client, make([]byte, 10)); err != nil {
				t.Error(err)
			}
			open = append(open, client, served)
		}
		for _, fd := range open {
			unix.Close(fd)
		}
		open = nil
		one, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		unix.Close(one)
	})
	for _, ends := range []bpftest.Event{
		{"direction": "outbound", "attribution": "connect", "bytes_sent": "10", "bytes_received": "0"},
		{"direction": "inbound", "attribution": "accept", "bytes_sent": "0"},
	} {
		r.WaitFor(t, ns, n, self(t, with(ends, "state", "closed")))
	}
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "closed", "direction": "outbound", "bytes_sent": "0"})
	established := r.WaitFor(t, ns, 2*n+1, self(t, bpftest.Event{"state": "established"}))
	ids := map[string]bool{}
	for _, e := range established {
		ids[e["connection_id"]] = true
	}
	if len(ids) != len(established) {
		t.Errorf("%d connections have %d ids", len(established), len(ids))
	}
}
