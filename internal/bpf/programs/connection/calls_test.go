package connection_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// On every kernel: what kernels do that cannot tell the arguments of a call when
// it returns.
func TestArgumentsAreNoted(t *testing.T) {
	m := *connection.Monitor
	m.Spared = nil
	r := bpftest.Start(t, &m)
	ns := bpftest.NewNetNS(t, "noted")
	ns.Run(t, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40000")
	ns.Do(t, func() {
		listenOn(t, socketOf(t, 0))
		for _, c := range []struct {
			kind    int
			address unix.Sockaddr
			errno   error
		}{
			{unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), nil},
			{unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), unix.EADDRNOTAVAIL}, // the only port is taken
			{unix.SOCK_STREAM, v4(192, 0, 2, 1, 7002), unix.ENETUNREACH},
			{unix.SOCK_DGRAM, v4(127, 0, 0, 1, 7003), nil},
		} {
			fd, err := dial(t, c.kind, c.address, false)
			defer unix.Close(fd)
			if !errors.Is(err, c.errno) {
				t.Errorf("connect: %v, want %v", err, c.errno)
			}
		}
	})
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "destination_port": "7001", "direction": "outbound"}))
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "destination_port": "7001", "error": "EADDRNOTAVAIL"}))
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "destination_port": "7002", "error": "ENETUNREACH"}))
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "destination_port": "7003", "protocol": "udp"}))
	r.WaitFor(t, ns, 2, bpftest.Event{"state": "failed"})
}

// connect() does not wait, and is asked for the outcome when the connection was
// established and reset: that it returns an error is no failure of its own.
func TestResetBeforeConnectIsAsked(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "asked")
	address := v4(127, 0, 0, 1, 7001)
	ns.Do(t, func() {
		server := socketOf(t, 0)
		listenOn(t, server)
		client, err := dial(t, unix.SOCK_STREAM, address, true)
		defer unix.Close(client)
		if !errors.Is(err, unix.EINPROGRESS) {
			t.Errorf("connect: %v", err)
		}
		served, _, err := unix.Accept(server)
		if err == nil {
			err = errors.Join(unix.SetsockoptLinger(served, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(served))
		}
		if err != nil {
			t.Error(err)
		}
		r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "closed", "direction": "outbound", "error": "ECONNRESET"}))
		if err := unix.Connect(client, address); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("second connect: %v", err)
		}
		// It begins a new attempt, which fails at once.
		if err := unix.Connect(client, v4(192, 0, 2, 1, 7002)); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("third connect: %v", err)
		}
	})
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "direction": "outbound"}))
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "error": "ENETUNREACH"}))
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "failed"})
}

// A thread that connects by TCP and UDP in turn: that a TCP connection was begun is not
// taken for what the next call does, however it ended and whether connect() began it.
func TestCallsInTurn(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "turns")
	const rounds = 5
	ns.Do(t, func() {
		server := socketOf(t, 0)
		listenOn(t, server)
		connect := func(kind int, port int, nonblocking bool) {
			fd, err := dial(t, kind, v4(127, 0, 0, 1, port), nonblocking)
			if err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EINPROGRESS) {
				t.Error(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
		}
		accept := func() {
			fd, _, err := unix.Accept(server)
			if err != nil {
				t.Error(err)
			}
			unix.Close(fd)
		}
		for range rounds {
			connect(unix.SOCK_STREAM, 7099, false) // nobody is there
			connect(unix.SOCK_DGRAM, 7001, false)
			connect(unix.SOCK_STREAM, 7001, false)
			connect(unix.SOCK_DGRAM, 7001, false)
			accept()
			connect(unix.SOCK_STREAM, 7001, true)
			connect(unix.SOCK_DGRAM, 7001, false)
			accept()
			fast := socketOf(t, 0)
			if err := unix.Sendto(fast, nil, unix.MSG_FASTOPEN, v4(127, 0, 0, 1, 7001)); err != nil {
				t.Error(err)
			}
			connect(unix.SOCK_DGRAM, 7001, false)
			accept()
			unix.Close(fast)
		}
	})
	want := self(t, bpftest.Event{"direction": "outbound", "attribution": "connect"})
	established := with(want, "state", "established")
	r.WaitFor(t, ns, 4*rounds, with(established, "protocol", "udp"))
	r.WaitFor(t, ns, 3*rounds, with(established, "protocol", "tcp"))
	r.WaitFor(t, ns, rounds, with(want, "error", "ECONNREFUSED"))
}
