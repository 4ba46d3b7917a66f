package connection_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// self is what every event of this process must say of its owner.
func self(t *testing.T, extra bpftest.Event) bpftest.Event {
	t.Helper()
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := bpftest.Event{
		"pid":     strconv.Itoa(os.Getpid()),
		"command": strings.TrimSpace(string(command)),
		"uid":     strconv.Itoa(os.Getuid()),
	}
	for name, value := range extra {
		want[name] = value
	}
	return want
}

func port(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// exchange sends 100 bytes to a server and gets 50 back, then both sides close.
// It returns the client's address.
func exchange(t *testing.T, network string, listener net.Listener) net.Addr {
	t.Helper()
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			c, err := listener.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := io.CopyN(io.Discard, c, 100); err != nil {
				return err
			}
			_, err = c.Write(make([]byte, 50))
			return err
		}()
	}()
	c, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c); n != 50 || err != nil {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return c.LocalAddr()
}

func TestTCP(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	for _, test := range []struct{ name, network, listen, ip string }{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"IPv4 to a dual-stack listener", "tcp", "[::]:0", "127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "tcp")
			want := self(t, bpftest.Event{"protocol": "tcp", "source_ip": test.ip, "destination_ip": test.ip, "return_code": "0"})
			ns.Do(t, func() {
				l, err := net.Listen("tcp", test.listen)
				if err != nil {
					t.Error(err)
					return
				}
				defer l.Close()
				if test.network == "tcp" {
					l = at{l, net.JoinHostPort(test.ip, port(l.Addr()))}
				}
				want["destination_port"] = port(l.Addr())
				want["source_port"] = port(exchange(t, test.network, l))
			})
			for _, side := range []struct{ direction, attribution, sent, received string }{
				{"outbound", "connect", "100", "50"}, {"inbound", "accept", "50", "100"},
			} {
				want["direction"], want["attribution"] = side.direction, side.attribution
				established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
				closed := r.WaitFor(t, ns, 1, with(want, "state", "closed"))[0]
				if established["connection_id"] != closed["connection_id"] {
					t.Errorf("%s: ids of one connection differ: %s, %s", side.direction, established["connection_id"], closed["connection_id"])
				}
				if closed["bytes_sent"] != side.sent || closed["bytes_received"] != side.received {
					t.Errorf("%s: sent %s, received %s", side.direction, closed["bytes_sent"], closed["bytes_received"])
				}
				checkDuration(t, established, closed)
			}
			if all := r.Events(t, ns); len(all) != 4 {
				t.Errorf("%d events, want 4: %v", len(all), all)
			}
		})
	}
	if lost := r.LostEvents(); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// at is a listener that says it has another address.
type at struct {
	net.Listener
	address string
}

func (l at) Addr() net.Addr {
	address, _ := net.ResolveTCPAddr("tcp", l.address)
	return address
}

func with(e bpftest.Event, name, value string) bpftest.Event {
	more := bpftest.Event{name: value}
	for name, value := range e {
		more[name] = value
	}
	return more
}

func checkDuration(t *testing.T, established, closed bpftest.Event) {
	t.Helper()
	from, err := time.Parse(time.RFC3339Nano, established["time"])
	if err != nil {
		t.Fatal(err)
	}
	until, err := time.Parse(time.RFC3339Nano, closed["time"])
	if err != nil {
		t.Fatal(err)
	}
	if took := until.Sub(from); strconv.FormatInt(took.Nanoseconds(), 10) != closed["duration_ns"] {
		t.Errorf("duration_ns %s, but the events are %v apart", closed["duration_ns"], took)
	}
	if since := time.Since(until); since < 0 || since > time.Minute {
		t.Errorf("closed %v ago by the wall clock", since)
	}
}

// dial connects a socket of its own making, so that the test sees the errno
// of connect() itself.
func dial(t *testing.T, kind int, address unix.Sockaddr, nonblocking bool) (fd int, err error) {
	t.Helper()
	family := unix.AF_INET
	if _, is6 := address.(*unix.SockaddrInet6); is6 {
		family = unix.AF_INET6
	}
	if nonblocking {
		kind |= unix.SOCK_NONBLOCK
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if err = unix.Connect(fd, address); !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func v4(a, b, c, d byte, port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: [4]byte{a, b, c, d}, Port: port}
}

func v6(text string, port int) *unix.SockaddrInet6 {
	return &unix.SockaddrInet6{Addr: [16]byte(net.ParseIP(text).To16()), Port: port}
}

func TestFailedConnects(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "failed")
	// One SYN more after the first, so that a timeout takes three seconds.
	ns.Run(t, "sysctl", "-qw", "net.ipv4.tcp_syn_retries=1", "net.ipv4.tcp_syn_linear_timeouts=0")
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

// What nobody accepted belongs to the process that listens.
func TestNeverAccepted(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "listener")
	ns.Do(t, func() {
		l, err := net.Listen("tcp4", "0.0.0.0:7001")
		if err != nil {
			t.Error(err)
			return
		}
		c, err := net.Dial("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		l.Close() // resets what waits to be accepted
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		c.Close()
	})
	want := self(t, bpftest.Event{"direction": "inbound", "attribution": "listener", "destination_port": "7001"})
	r.WaitFor(t, ns, 1, with(want, "state", "established"))
	r.WaitFor(t, ns, 1, with(want, "state", "closed"))
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"direction": "outbound", "state": "closed", "error": "ECONNRESET", "return_code": "-104"}))
}

func TestRetransmits(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "retrans")
	const size = 1 << 20
	ns.Run(t, "nft", `add table ip t; add chain ip t in { type filter hook input priority 0; };
		add rule ip t in tcp dport 7001 meta length > 1000 numgen inc mod 7 == 3 counter drop`)
	ns.Run(t, "ip", "link", "set", "lo", "mtu", "1500")
	ns.Do(t, func() {
		l, err := net.Listen("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		received := make(chan int64)
		go func() {
			c, err := l.Accept()
			if err != nil {
				received <- -1
				return
			}
			n, _ := io.Copy(io.Discard, c)
			c.Close()
			received <- n
		}()
		c, err := net.Dial("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
		c.Close()
		if n := <-received; n != size {
			t.Errorf("received %d bytes", n)
		}
	})
	bytes := strconv.Itoa(size)
	out := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"direction": "outbound", "state": "closed", "bytes_sent": bytes, "bytes_received": "0"}))[0]
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"direction": "inbound", "state": "closed", "bytes_sent": "0", "bytes_received": bytes}))
	if out["retransmits"] == "0" {
		t.Error("no retransmits, although packets were dropped")
	}
}

// Segments that the host itself fails to send are no payload sent twice.
func TestBytesWhenTheHostDrops(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "hostdrop")
	ns.Run(t, "nft", "add table ip t; add chain ip t out { type filter hook output priority 0; }")
	ns.Do(t, func() {
		l, err := net.Listen("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		served, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		bpftest.Run(t, "nsenter", "--net=/run/netns/"+ns.Name, "nft", "add rule ip t out tcp dport 7001 drop")
		if _, err := c.Write(make([]byte, 110)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // some attempts fail
		bpftest.Run(t, "nsenter", "--net=/run/netns/"+ns.Name, "nft", "flush chain ip t out")
		if _, err := io.ReadFull(served, make([]byte, 110)); err != nil {
			t.Error(err)
		}
		c.Close()
		served.Close()
	})
	r.WaitFor(t, ns, 1, bpftest.Event{"direction": "outbound", "state": "closed", "bytes_sent": "110"})
	r.WaitFor(t, ns, 1, bpftest.Event{"direction": "inbound", "state": "closed", "bytes_received": "110"})
}

func TestUDP(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	for _, test := range []struct{ name, network, listen, ip string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "udp")
			want := self(t, bpftest.Event{"protocol": "udp", "direction": "outbound", "source_ip": test.ip, "destination_ip": test.ip, "attribution": "connect"})
			ns.Do(t, func() {
				server, err := net.ListenPacket(test.network, test.listen)
				if err != nil {
					t.Error(err)
					return
				}
				defer server.Close()
				c, err := net.Dial(test.network, server.LocalAddr().String())
				if err != nil {
					t.Error(err)
					return
				}
				want["destination_port"], want["source_port"] = port(server.LocalAddr()), port(c.LocalAddr())
				for range 3 {
					if _, err := c.Write(make([]byte, 70)); err != nil {
						t.Error(err)
					}
				}
				if _, err := server.WriteTo(make([]byte, 33), c.LocalAddr()); err != nil {
					t.Error(err)
				}
				if _, err := c.Read(make([]byte, 100)); err != nil {
					t.Error(err)
				}
				c.Close()
			})
			established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
			want["bytes_sent"], want["bytes_received"] = "210", "33"
			closed := r.WaitFor(t, ns, 1, with(want, "state", "closed"))[0]
			if established["connection_id"] != closed["connection_id"] {
				t.Errorf("ids of one connection differ: %s, %s", established["connection_id"], closed["connection_id"])
			}
			checkDuration(t, established, closed)
			if all := r.Events(t, ns); len(all) != 2 {
				t.Errorf("%d events, want 2: %v", len(all), all)
			}
		})
	}
}

// Resolvers connect one UDP socket to address after address.
func TestUDPConnectedAgain(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "again")
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_DGRAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		if err := unix.Connect(fd, v4(127, 0, 0, 2, 7002)); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
	})
	ids := map[string]bool{}
	for _, port := range []string{"7001", "7002"} {
		established := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "destination_port": port}))[0]
		r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "closed", "destination_port": port, "connection_id": established["connection_id"]}))
		ids[established["connection_id"]] = true
	}
	if len(ids) != 2 {
		t.Errorf("ids %v, want two", ids)
	}
}

// A connect that fails on a UDP socket that stays connected has its own id.
func TestUDPFailedAgain(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "udpfail")
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_DGRAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		if err := unix.Connect(fd, v4(203, 0, 113, 1, 7002)); err == nil {
			t.Error("connected where there is no route")
		}
		unix.Close(fd)
	})
	first := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "destination_port": "7001"}))[0]
	failed := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "destination_port": "7002"}))[0]
	closed := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "closed", "destination_port": "7001"}))[0]
	if first["connection_id"] != closed["connection_id"] || first["connection_id"] == failed["connection_id"] {
		t.Errorf("ids: established %s, failed %s, closed %s", first["connection_id"], failed["connection_id"], closed["connection_id"])
	}
}

// Other sockets than those of TCP and UDP, and files, are none of its business.
func TestIgnored(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "ignored")
	path := filepath.Join(t.TempDir(), "socket")
	ns.Do(t, func() {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
		for _, fd := range []int{-1, 0, 1 << 20} {
			if err := unix.Connect(fd, v4(127, 0, 0, 1, 7001)); err == nil {
				t.Errorf("connect of descriptor %d succeeded", fd)
			}
		}
	})
	if all := r.Events(t, ns); len(all) != 0 {
		t.Errorf("events: %v", all)
	}
}
