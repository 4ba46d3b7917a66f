package connection_test

import (
	"errors"
	"net"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

func TestFailedConnects(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "failed")
	// One SYN more after the first, so that a timeout takes three seconds.
	// Kernels before 6.5 have no linear timeouts, hence -e.
	ns.Run(t, "sysctl", "-qew", "net.ipv4.tcp_syn_retries=1", "net.ipv4.tcp_syn_linear_timeouts=0")
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in tcp dport 7010 drop")
	for _, test := range []struct {
		name     string
		kind     int
		address  unix.Sockaddr
		errno    unix.Errno
		ip, port string
		protocol string
	}{
		{"refused", unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), unix.ECONNREFUSED, "127.0.0.1", "7001", "tcp"},
		{"refused IPv6", unix.SOCK_STREAM, v6("::1", 7002), unix.ECONNREFUSED, "::1", "7002", "tcp"},
		{"unreachable", unix.SOCK_STREAM, v4(192, 0, 2, 1, 7003), unix.ENETUNREACH, "192.0.2.1", "7003", "tcp"},
		{"unreachable IPv6", unix.SOCK_STREAM, v6("2001:db8::1", 7004), unix.ENETUNREACH, "2001:db8::1", "7004", "tcp"},
		{"unreachable UDP", unix.SOCK_DGRAM, v4(192, 0, 2, 1, 7005), unix.ENETUNREACH, "192.0.2.1", "7005", "udp"},
		{"unreachable UDP over IPv6", unix.SOCK_DGRAM, v6("2001:db8::1", 7006), unix.ENETUNREACH, "2001:db8::1", "7006", "udp"},
		{"timed out", unix.SOCK_STREAM, v4(127, 0, 0, 1, 7010), unix.ETIMEDOUT, "127.0.0.1", "7010", "tcp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns.Do(t, func() {
				fd, err := dial(t, test.kind, test.address, false)
				unix.Close(fd)
				if !errors.Is(err, test.errno) {
					t.Errorf("connect: %v, want %v", err, test.errno)
				}
			})
			want := self(t, bpftest.Event{
				"destination_port": test.port, "destination_ip": test.ip, "protocol": test.protocol, "direction": "outbound", "state": "failed",
				"return_code": strconv.Itoa(-int(test.errno)), "error": unix.ErrnoName(test.errno), "attribution": "connect",
			})
			r.WaitFor(t, ns, 1, want)
			r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": test.port})
		})
	}
}

func TestNoPortLeft(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "ports")
	ns.Run(t, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40000")
	ns.Do(t, func() {
		l, err := net.Listen("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		first, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), false)
		defer unix.Close(first)
		if err != nil {
			t.Errorf("first connect: %v", err)
		}
		second, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), false)
		defer unix.Close(second)
		if !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("second connect: %v", err)
		}
	})
	// The socket went to SYN_SENT and back without an sk_err.
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "error": "EADDRNOTAVAIL", "destination_port": "7001"}))
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "failed"})
}

// A non-blocking connect that fails is told once, although the process is told
// of the failure by a second connect().
func TestLateFailureIsToldOnce(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "late")
	ns.Do(t, func() {
		address := v4(127, 0, 0, 1, 7001)
		fd, err := dial(t, unix.SOCK_STREAM, address, true)
		defer unix.Close(fd)
		if !errors.Is(err, unix.EINPROGRESS) {
			t.Errorf("first connect: %v", err)
		}
		if err := unix.Connect(fd, address); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("second connect: %v", err)
		}
		r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "error": "ECONNREFUSED"}))

		// The third begins a new attempt on the same socket: a new connection.
		if err := unix.Connect(fd, address); !errors.Is(err, unix.EINPROGRESS) {
			t.Errorf("third connect: %v", err)
		}
	})
	failed := r.WaitFor(t, ns, 2, self(t, bpftest.Event{"state": "failed", "error": "ECONNREFUSED"}))
	if failed[0]["connection_id"] == failed[1]["connection_id"] {
		t.Errorf("two attempts have one id, %s", failed[0]["connection_id"])
	}
}

// One socket fails again and again, at once and in the network: each failure is told,
// and once.
func TestOneSocketFailsOften(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "often")
	refused, unreachable := v4(127, 0, 0, 1, 7001), v4(192, 0, 2, 1, 7002)
	connect := func(fd int, to unix.Sockaddr, want unix.Errno) {
		if err := unix.Connect(fd, to); !errors.Is(err, want) {
			t.Errorf("connect: %v, want %v", err, want)
		}
	}
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_STREAM, refused, false)
		defer unix.Close(fd)
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("first connect: %v", err)
		}
		connect(fd, unreachable, unix.ENETUNREACH)
		connect(fd, unreachable, unix.ENETUNREACH)
		connect(fd, refused, unix.ECONNREFUSED)

		if err := unix.SetNonblock(fd, true); err != nil {
			t.Error(err)
		}
		connect(fd, refused, unix.EINPROGRESS)
		r.WaitFor(t, ns, 3, self(t, bpftest.Event{"state": "failed", "error": "ECONNREFUSED"}))
		// The process takes the error from the socket: nothing is left for connect() to return.
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); unix.Errno(n) != unix.ECONNREFUSED {
			t.Errorf("SO_ERROR: %v, %v", unix.Errno(n), err)
		}
		connect(fd, refused, unix.ECONNABORTED)
		connect(fd, unreachable, unix.ENETUNREACH)
	})
	r.WaitFor(t, ns, 3, self(t, bpftest.Event{"state": "failed", "error": "ENETUNREACH"}))
	ids := map[string]bool{}
	for _, e := range r.WaitFor(t, ns, 6, self(t, bpftest.Event{"state": "failed"})) {
		ids[e["connection_id"]] = true
	}
	if len(ids) != 6 {
		t.Errorf("six attempts have %d ids", len(ids))
	}
}

// The kernel side remembers how often a socket was connected for so many sockets only: one
// that it has forgotten gets no id a second time.
func TestAttemptsForgotten(t *testing.T) {
	const room = 16
	r := bpftest.Start(t, bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) {
		spec.Maps["attempts"].MaxEntries = room
	}))
	ns := bpftest.NewNetNS(t, "forgotten")
	address := v4(127, 0, 0, 1, 7001)
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_STREAM, address, false)
		defer unix.Close(fd)
		for range 3 {
			for range 20 * room {
				other, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7002), false)
				unix.Close(other)
				if !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("another connect: %v", err)
				}
			}
			for range 2 {
				if !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("connect: %v", err)
				}
				err = unix.Connect(fd, address)
			}
		}
	})
	ids := map[string]bool{}
	for _, e := range r.WaitFor(t, ns, 7, self(t, bpftest.Event{"state": "failed", "destination_port": "7001"})) {
		ids[e["connection_id"]] = true
	}
	if len(ids) != 7 {
		t.Errorf("seven attempts have %d ids", len(ids))
	}
}

// A connect that the process gives up has no outcome: no return code is made up.
func TestAbandonedConnect(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "abandoned")
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in tcp dport 7010 drop")
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7010), true)
		if !errors.Is(err, unix.EINPROGRESS) {
			t.Errorf("connect: %v", err)
		}
		unix.Close(fd)
	})
	e := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "destination_port": "7010"}))[0]
	if code, ok := e["return_code"]; ok {
		t.Errorf("return_code %s", code)
	}
}
