package connection_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
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

// The index by ends has an entry for each connection with another host that is remembered,
// and for no other: not for those that there was no room for, nor for one that ended.
func TestIndexOfEnds(t *testing.T) {
	const n, room = 100, 50 // some of which listeners of this machine take
	r := bpftest.Start(t, bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) {
		spec.Maps["connections"].MaxEntries = 1
		spec.Maps["more_connections"].MaxEntries = room
	}))
	index := newestMap(t, "connections_by_ends")
	before := entries(t, index)
	client, server := bpftest.Pair(t)
	var listener int
	server.Do(t, func() {
		listener = socketOf(t, 0)
		if err := errors.Join(unix.Bind(listener, v4(10, 9, 0, 2, 7001)), unix.Listen(listener, n)); err != nil {
			t.Error(err)
		}
	})
	open := []int{listener} // whose end resets the connections that nobody accepted
	client.Do(t, func() {
		for range n {
			fd, err := dial(t, unix.SOCK_STREAM, v4(10, 9, 0, 2, 7001), false)
			if err != nil {
				t.Error(err)
			}
			open = append(open, fd)
		}
	})
	r.Events(t, client) // the status is of after them
	lost := r.Status().Lost[bpf.LostMapFull]
	if got := entries(t, index) - before; lost == 0 || got <= 0 || got > room+1 {
		t.Errorf("%d more ends are remembered, %d connections are not", got, lost)
	}
	for _, fd := range open {
		unix.Close(fd)
	}
	for deadline := time.Now().Add(10 * time.Second); entries(t, index) > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d ends are remembered of connections that ended", entries(t, index)-before)
		}
	}
}

// newestMap finds an eBPF map by its name, of which the kernel keeps 15 bytes.
func newestMap(t *testing.T, name string) (newest *ebpf.Map) {
	t.Helper()
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		if info, err := m.Info(); err != nil || info.Name != name[:15] {
			m.Close()
			continue
		}
		newest = m
	}
	if newest == nil {
		t.Fatalf("there is no map %s", name)
	}
	t.Cleanup(func() { newest.Close() })
	return newest
}

func entries(t *testing.T, m *ebpf.Map) (n int) {
	t.Helper()
	var hash, sk uint64
	all := m.Iterate()
	for all.Next(&hash, &sk) {
		n++
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		t.Error(err)
	}
	return n
}
