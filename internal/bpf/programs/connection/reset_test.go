package connection_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// How connections end: what each side is told, and who reset them.
func TestEnds(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	type end struct{ code, reset string }
	for _, test := range []struct {
		name   string
		end    func(t *testing.T, ns *bpftest.NetNS, client, served *net.TCPConn)
		client end // what the event of the client's side says
		served end
	}{
		{"both close", func(t *testing.T, _ *bpftest.NetNS, client, served *net.TCPConn) {
			client.Close()
			drained(t, served, nil)
		}, end{"0", ""}, end{"0", ""}},
		{"close with data unread", func(t *testing.T, _ *bpftest.NetNS, client, served *net.TCPConn) {
			write(t, served)
			arrived(t, client)
			client.Close()
			drained(t, served, unix.ECONNRESET)
		}, end{"0", "local"}, end{"-104", "remote"}},
		{"close with SO_LINGER 0", func(t *testing.T, _ *bpftest.NetNS, client, served *net.TCPConn) {
			if err := client.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			client.Close()
			drained(t, served, unix.ECONNRESET)
		}, end{"0", "local"}, end{"-104", "remote"}},
		{"shutdown, then close with data unread", func(t *testing.T, _ *bpftest.NetNS, client, served *net.TCPConn) {
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			drained(t, served, nil, leaveOpen)
			write(t, served)
			arrived(t, client)
			client.Close()
			for served.SetLinger(-1) == nil && !gone(served) {
				time.Sleep(time.Millisecond)
			}
			served.Close()
		}, end{"0", "local"}, end{"-32", "remote"}},
		// The client's socket has ended in the ordinary way: what answers is its TIME_WAIT.
		{"data after close", func(t *testing.T, _ *bpftest.NetNS, client, served *net.TCPConn) {
			client.Close()
			drained(t, served, nil, leaveOpen)
			write(t, served)
			for !gone(served) {
				time.Sleep(time.Millisecond)
			}
			served.Close()
		}, end{"0", ""}, end{"-32", "remote"}},
		{"destroyed by an administrator", func(t *testing.T, ns *bpftest.NetNS, client, served *net.TCPConn) {
			ns.Run(t, "ss", "-K", "sport", "=", port(client.LocalAddr()))
			drained(t, client, unix.ECONNABORTED)
			drained(t, served, unix.ECONNRESET)
		}, end{"-103", "local"}, end{"-104", "remote"}},
		{"no answer to keep-alive", func(t *testing.T, ns *bpftest.NetNS, client, served *net.TCPConn) {
			if err := client.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1}); err != nil {
				t.Fatal(err)
			}
			ns.Run(t, "nft", "add rule ip t in tcp dport 7001 drop")
			drained(t, client, unix.ETIMEDOUT)
			ns.Run(t, "nft", "flush chain ip t in")
			write(t, served)
			drained(t, served, unix.ECONNRESET)
		}, end{"-110", "local"}, end{"-104", "remote"}},
		{"no answer to data", func(t *testing.T, ns *bpftest.NetNS, client, served *net.TCPConn) {
			ns.Run(t, "sysctl", "-qw", "net.ipv4.tcp_retries2=2")
			ns.Run(t, "nft", "add rule ip t in tcp dport 7001 drop")
			write(t, client)
			drained(t, client, unix.ETIMEDOUT)
			ns.Run(t, "nft", "flush chain ip t in")
			served.Close() // half open: its FIN is answered by a reset, which may be one of ours by what the kernel tells
		}, end{"-110", ""}, end{"-104", ""}},
		{"the other side has forgotten it", func(t *testing.T, ns *bpftest.NetNS, client, served *net.TCPConn) {
			ns.Run(t, "nft", "add rule ip t in tcp dport 7001 reject with tcp reset")
			write(t, client)
			drained(t, client, unix.ECONNRESET)
			ns.Run(t, "nft", "flush chain ip t in")
			write(t, served)
			drained(t, served, unix.ECONNRESET)
		}, end{"-104", "remote"}, end{"-104", "remote"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "ends")
			ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }")
			var client, served net.Conn
			ns.Do(t, func() { client, served = pair(t, listen(t, "127.0.0.1:7001")) })
			test.end(t, ns, client.(*net.TCPConn), served.(*net.TCPConn))
			for direction, want := range map[string]end{"outbound": test.client, "inbound": test.served} {
				e := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "closed", "direction": direction}))[0]
				if e["return_code"] != want.code || e["reset_by"] != want.reset {
					t.Errorf("%s: return_code %s, reset_by %q, want %s, %q", direction, e["return_code"], e["reset_by"], want.code, want.reset)
				}
			}
		})
	}
}

// A refusal by the other side's reset, beside one that a router tells by ICMP.
func TestRefusedBy(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "refused")
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in tcp dport 7002 reject with icmp port-unreachable")
	for address, by := range map[int]string{7001: "remote", 7002: ""} {
		ns.Do(t, func() {
			fd, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, address), false)
			unix.Close(fd)
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connect: %v", err)
			}
		})
		e := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "error": "ECONNREFUSED", "destination_port": port(&net.TCPAddr{Port: address})}))[0]
		if e["reset_by"] != by {
			t.Errorf("port %d: reset_by %q, want %q", address, e["reset_by"], by)
		}
	}
}

func write(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
}

// control calls f with the descriptor of a connection.
func control(c syscall.Conn, f func(fd int)) {
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// arrived waits for data without reading it.
func arrived(t *testing.T, c *net.TCPConn) {
	t.Helper()
	control(c, func(fd int) {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); err != nil {
			t.Error(err)
		}
	})
}

// gone tells whether a socket has reached CLOSE.
func gone(c *net.TCPConn) (closed bool) {
	control(c, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State == unix.BPF_TCP_CLOSE
	})
	return closed
}

type option int

const leaveOpen option = iota

// drained reads until the other side ends it, by this error or by a FIN, and
// closes the connection.
func drained(t *testing.T, c *net.TCPConn, want error, options ...option) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
	_, err := c.Read(make([]byte, 1))
	if want == nil && err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("read: %v, want %v", err, want)
	}
	if len(options) == 0 {
		c.Close()
	}
}
