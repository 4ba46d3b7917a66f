package programs_test

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

const (
	client = "10.9.0.1"
	server = "10.9.0.2"
)

// A packet that is dropped tells the process whose connection it belongs to, wherever
// that is: as it leaves, as it comes in, and before the kernel has looked for the
// socket.
func TestOwnerOfDrop(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	connections := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, bpf.Options{})
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, at, hook, network, attribution string }{
		{"as it leaves", "a", "output", "tcp", "socket"},
		{"as it comes in", "b", "input", "tcp", "socket"},
		{"before the socket is known", "b", "prerouting", "tcp", "connection"},
		{"UDP as it leaves", "a", "output", "udp", "socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			at := map[string]*bpftest.NetNS{"a": a, "b": b}[test.at]
			address := net.JoinHostPort(server, "7001")
			var c net.Conn
			if test.network == "tcp" {
				var listener net.Listener
				b.Do(t, func() { listener, err = net.Listen("tcp", address) })
				if err != nil {
					t.Fatal(err)
				}
				defer listener.Close()
				a.Do(t, func() { c, err = net.Dial("tcp", address) })
				if err != nil {
					t.Fatal(err)
				}
				served, err := listener.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer served.Close()
			} else {
				a.Do(t, func() { c, err = net.Dial("udp", address) })
				if err != nil {
					t.Fatal(err)
				}
			}
			defer c.Close()
			connections.WaitFor(t, a, 1, bpftest.Event{"state": "established", "direction": "outbound", "destination_port": "7001"})
			at.Run(t, "nft", "add table ip t; add chain ip t c { type filter hook "+test.hook+" priority -300; };"+
				"add rule ip t c "+test.network+" dport 7001 counter drop")
			// It is sent again and again; the first is enough. UDP says what the filter said.
			if _, err := c.Write([]byte("0123456789")); err != nil && test.network == "tcp" {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(c.LocalAddr().String())
			want := bpftest.Event{
				"attribution": test.attribution, "pid": strconv.Itoa(os.Getpid()), "command": strings.TrimSpace(string(command)), "uid": "0",
				"source_ip": client, "source_port": port, "destination_ip": server, "destination_port": "7001", "protocol": test.network,
			}
			found := drops.WaitForFirst(t, at, want)
			if executable, err := os.Executable(); err != nil || found["executable"] != executable {
				t.Errorf("executable %s, want %s (%v)", found["executable"], executable, err)
			}
			at.Run(t, "nft", "flush ruleset")
		})
	}
}

// What is dropped at a socket that listens is its process's: here the SYNs that the
// socket's own filter refuses.
func TestDropOfListener(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, bpf.Options{})
	arguments, err := host.TracepointArguments("kfree_skb")
	if err != nil {
		t.Fatal(err)
	}
	ns := bpftest.NewNetNS(t, "listener")
	ns.Do(t, func() {
		var config net.ListenConfig
		config.SetMultipathTCP(false) // which takes no filters
		listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		raw, err := listener.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		refuse := unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}}
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &refuse)
		}); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if c, err := net.DialTimeout("tcp4", "127.0.0.1:7001", 100*time.Millisecond); err == nil {
			c.Close()
			t.Error("connected through a filter that refuses")
		}
	})
	want := bpftest.Event{"destination_port": "7001", "protocol": "tcp"}
	if arguments >= 4 { // the kernel tells which socket was to receive it
		want = bpftest.Event{"destination_port": "7001", "protocol": "tcp", "attribution": "receiving_socket", "pid": strconv.Itoa(os.Getpid()), "uid": "0"}
	}
	if e := drops.WaitForFirst(t, ns, want); arguments < 4 && e["pid"] != "" {
		t.Errorf("not known to belong to %s: %v", e["pid"], e)
	}
}

// Packets of nobody have no owner: here the SYN of a new connection, with the ends of
// one that is over.
func TestDropOfNobody(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	connections := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, bpf.Options{})
	a, b := bpftest.Pair(t)
	address := net.JoinHostPort(server, "7001")
	var listener net.Listener
	var err error
	b.Do(t, func() { listener, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := func() (c net.Conn, err error) {
		// Less than the second after which a SYN is sent again.
		d := net.Dialer{Timeout: 700 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(client), Port: 7002}}
		a.Do(t, func() { c, err = d.Dial("tcp", address) })
		return c, err
	}
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	served, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).SetLinger(0); err != nil { // with RST: no end waits in TIME_WAIT
		t.Fatal(err)
	}
	c.Close()
	served.Close()
	connections.WaitFor(t, b, 1, bpftest.Event{"state": "closed", "direction": "inbound", "source_port": "7002", "destination_port": "7001"})
	b.Run(t, "nft", "add table ip t; add chain ip t c { type filter hook prerouting priority -300; }; add rule ip t c tcp dport 7001 tcp flags syn drop")
	if c, err := dial(); err == nil {
		c.Close()
		t.Error("connected through a filter that drops")
	}
	connections.WaitFor(t, a, 1, bpftest.Event{"state": "failed", "destination_port": "7001"})
	for _, e := range drops.WaitFor(t, b, 1, bpftest.Event{"destination_port": "7001"}) {
		if e["attribution"] != "" || e["pid"] != "" || e["uid"] != "" {
			t.Errorf("a SYN that nobody had taken belongs to somebody: %v", e)
		}
	}
}

// A rule by command means the drops of which the process is known.
func TestDropRuleOfCommand(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	rules := bpf.Options{Exclude: []bpf.Rule{{Commands: []string{strings.TrimSpace(string(command))}}}}
	bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, rules)
	ns := bpftest.NewNetNS(t, "command")
	ns.Run(t, "nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c udp dport 7001-7002 drop")
	ns.Do(t, func() {
		connected, err := net.Dial("udp", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		defer connected.Close()
		ns.Run(t, "nft", "add chain ip t o { type filter hook output priority 0; }; add rule ip t o udp dport 7001 drop")
		_, _ = connected.Write([]byte("x")) // the filter says that it is not permitted
		other, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close()
		if _, err := other.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7002}); err != nil {
			t.Error(err)
		}
	})
	drops.WaitFor(t, ns, 1, bpftest.Event{"destination_port": "7002", "protocol": "udp", "command": ""})
	drops.WaitFor(t, ns, 0, bpftest.Event{"destination_port": "7001"})
	if n := drops.Status().Filtered[bpf.FilteredExcluded]; n < 1 {
		t.Errorf("%d drops were left out", n)
	}
}
