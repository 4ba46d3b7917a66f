package connection_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// socketOf makes a socket that is closed after the test.
func socketOf(t *testing.T, protocol int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func listenOn(t *testing.T, fd int) {
	t.Helper()
	if err := errors.Join(unix.Bind(fd, v4(127, 0, 0, 1, 7001)), unix.Listen(fd, 8)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
}

// TCP fast open: data in the SYN, and an accept before the handshake is complete.
func TestFastOpen(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "fastopen")
	// Client and server, both without a cookie.
	ns.Run(t, "sysctl", "-qw", "net.ipv4.tcp_fastopen=0x207")
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in tcp dport 7001 tcp flags & (syn|ack) == ack drop")
	ns.Do(t, func() {
		server, client := socketOf(t, 0), socketOf(t, 0)
		if err := unix.SetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 8); err != nil {
			t.Fatal(err)
		}
		listenOn(t, server)
		if err := unix.Sendto(client, make([]byte, 10), unix.MSG_FASTOPEN, v4(127, 0, 0, 1, 7001)); err != nil {
			t.Fatal(err)
		}
		served, _, err := unix.Accept(server)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := unix.GetsockoptTCPInfo(served, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.State != unix.BPF_TCP_SYN_RECV {
			t.Errorf("accepted in state %d, %v: not before the handshake was complete", info.State, err)
		}
		ns.Run(t, "nft", "flush chain ip t in")
		if n, err := unix.Read(served, make([]byte, 100)); n != 10 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		if _, err := unix.Write(served, make([]byte, 5)); err != nil {
			t.Error(err)
		}
		if n, err := unix.Read(client, make([]byte, 100)); n != 5 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		want := self(t, bpftest.Event{"direction": "inbound", "attribution": "accept"})
		established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
		unix.Close(client)
		unix.Close(served)
		closed := r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_sent": "5", "bytes_received": "10"}))[0]
		checkDuration(t, established, closed)
		want = self(t, bpftest.Event{"direction": "outbound", "attribution": "connect"})
		r.WaitFor(t, ns, 1, with(want, "state", "established"))
		r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_sent": "10", "bytes_received": "5"}))
	})
}

// hasMPTCP tells whether the kernel was built with it, as Recorder.Lacks does.
func hasMPTCP(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat("/proc/sys/net/mptcp")
	if err != nil {
		t.Log("this kernel lacks mptcp")
	}
	return err == nil
}

// MPTCP on both sides, or on one: then it falls back to TCP.
func TestMPTCP(t *testing.T) {
	if !hasMPTCP(t) {
		return
	}
	r := bpftest.Start(t, connection.Monitor)
	for _, test := range []struct {
		name           string
		client, server int
	}{{"both", unix.IPPROTO_MPTCP, unix.IPPROTO_MPTCP}, {"the client alone", unix.IPPROTO_MPTCP, 0}, {"the server alone", 0, unix.IPPROTO_MPTCP}} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "mptcp")
			ns.Run(t, "sysctl", "-qw", "net.mptcp.enabled=1")
			ns.Do(t, func() {
				server, client := socketOf(t, test.server), socketOf(t, test.client)
				listenOn(t, server)
				if err := unix.Connect(client, v4(127, 0, 0, 1, 7001)); err != nil {
					t.Fatal(err)
				}
				served, _, err := unix.Accept(server)
				if err != nil {
					t.Fatal(err)
				}
				for _, pair := range [][3]int{{client, served, 10}, {served, client, 5}} {
					if _, err := unix.Write(pair[0], make([]byte, pair[2])); err != nil {
						t.Fatal(err)
					}
					if n, err := unix.Read(pair[1], make([]byte, 100)); n != pair[2] || err != nil {
						t.Fatalf("read %d, %v", n, err)
					}
				}
				if both := test.client == test.server; fellBack(t, served, test.server) == both {
					t.Errorf("fell back to TCP: %v", both)
				}
				unix.Close(client)
				if n, err := unix.Read(served, make([]byte, 100)); n != 0 || err != nil {
					t.Errorf("read %d, %v at the end", n, err)
				}
				unix.Close(served)
			})
			for _, want := range []bpftest.Event{
				{"direction": "outbound", "attribution": "connect", "bytes_sent": "10", "bytes_received": "5"},
				{"direction": "inbound", "attribution": "accept", "bytes_sent": "5", "bytes_received": "10"},
			} {
				r.WaitFor(t, ns, 1, self(t, merge(want, bpftest.Event{"state": "closed", "protocol": "tcp"})))
			}
			r.WaitFor(t, ns, 2, self(t, bpftest.Event{"state": "established"}))
		})
	}
}

// fellBack tells whether an accepted socket is plain TCP.
func fellBack(t *testing.T, fd, listener int) bool {
	t.Helper()
	if listener != unix.IPPROTO_MPTCP {
		return true
	}
	// An MPTCP listener hands out TCP sockets where the client does not speak MPTCP.
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	return protocol == unix.IPPROTO_TCP
}

// The kernel opens further subflows by itself; they belong to the process too.
func TestMPTCPSubflows(t *testing.T) {
	if !hasMPTCP(t) {
		return
	}
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "subflows")
	ns.Run(t, "sysctl", "-qw", "net.mptcp.enabled=1")
	ns.Run(t, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
	ns.Run(t, "ip", "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2")
	ns.Run(t, "ip", "mptcp", "endpoint", "add", "192.0.2.1", "dev", "lo", "subflow")
	ns.Do(t, func() {
		server, client := socketOf(t, unix.IPPROTO_MPTCP), socketOf(t, unix.IPPROTO_MPTCP)
		listenOn(t, server)
		if err := unix.Connect(client, v4(127, 0, 0, 1, 7001)); err != nil {
			t.Fatal(err)
		}
		served, _, err := unix.Accept(server)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]int{{client, served}, {served, client}} {
			if _, err := unix.Write(pair[0], make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Read(pair[1], make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		for direction, attribution := range map[string]string{"outbound": "connect", "inbound": "accept"} {
			r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "direction": direction, "attribution": attribution, "source_ip": "192.0.2.1"}))
		}
		unix.Close(client)
		unix.Close(served)
	})
	r.WaitFor(t, ns, 4, self(t, bpftest.Event{"state": "closed"}))
}

// An MPTCP connect that fails at once, and one that fails by a reset, is told once.
func TestMPTCPFails(t *testing.T) {
	if !hasMPTCP(t) {
		return
	}
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "mptcpfail")
	for address, want := range map[*unix.SockaddrInet4]unix.Errno{v4(192, 0, 2, 1, 7003): unix.ENETUNREACH, v4(127, 0, 0, 1, 7001): unix.ECONNREFUSED} {
		ns.Do(t, func() {
			fd := socketOf(t, unix.IPPROTO_MPTCP)
			if err := unix.Connect(fd, address); !errors.Is(err, want) {
				t.Errorf("connect: %v, want %v", err, want)
			}
			unix.Close(fd)
		})
		r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "error": unix.ErrnoName(want)}))
	}
	r.WaitFor(t, ns, 2, bpftest.Event{"direction": "outbound"})
}

// No port is left: the subflow goes to SYN_SENT and back, and connect() tells why.
func TestMPTCPHasNoPort(t *testing.T) {
	if !hasMPTCP(t) {
		return
	}
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "mptcpport")
	ns.Run(t, "sysctl", "-qw", "net.mptcp.enabled=1", "net.ipv4.ip_local_port_range=40000 40000")
	ns.Do(t, func() {
		listenOn(t, socketOf(t, 0))
		first, second := socketOf(t, unix.IPPROTO_MPTCP), socketOf(t, unix.IPPROTO_MPTCP)
		defer unix.Close(first)
		defer unix.Close(second)
		if err := unix.Connect(first, v4(127, 0, 0, 1, 7001)); err != nil {
			t.Errorf("first connect: %v", err)
		}
		if err := unix.Connect(second, v4(127, 0, 0, 1, 7001)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("second connect: %v", err)
		}
	})
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "error": "EADDRNOTAVAIL", "destination_port": "7001"}))
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "failed"})
}
