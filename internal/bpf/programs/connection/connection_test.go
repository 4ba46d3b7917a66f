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
			if all := ofConnections(r.Events(t, ns)); len(all) != 4 {
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
