package programs_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// A packet that came in and was dropped before the kernel looked for its socket
// belongs to the connection with these ends: with IPv4 and IPv6, whoever opened it.
// With other ports, it belongs to nobody.
func TestOwnerByEnds(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	connections := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, bpf.Options{})
	for _, test := range []struct{ name, network, near, far, direction string }{
		{"IPv4 inbound", "tcp4", client, server, "inbound"},
		{"IPv4 outbound", "tcp4", client, server, "outbound"},
		{"IPv6 inbound", "tcp6", "fd09::1", "fd09::2", "inbound"},
		{"IPv6 outbound", "tcp6", "fd09::1", "fd09::2", "outbound"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			opened, accepted := connected(t, a, b, test.network, net.JoinHostPort(test.far, "7001"))
			_, port, _ := net.SplitHostPort(opened.LocalAddr().String())
			for ns, direction := range map[*bpftest.NetNS]string{a: "outbound", b: "inbound"} {
				connections.WaitFor(t, ns, 1, bpftest.Event{"state": "established", "direction": direction, "destination_port": "7001", "source_port": port})
			}
			at, writer := b, opened
			want := bpftest.Event{
				"protocol": "tcp", "source_ip": test.near, "source_port": port, "destination_ip": test.far, "destination_port": "7001", "interface": "v-b",
			}
			if test.direction == "outbound" {
				at, writer = a, accepted
				want = bpftest.Event{
					"protocol": "tcp", "source_ip": test.far, "source_port": "7001", "destination_ip": test.near, "destination_port": port, "interface": "v-a",
				}
			}
			at.Run(t, "nft", `add table inet t
				add chain inet t in { type filter hook prerouting priority -300; }
				add rule inet t in tcp dport 7001 drop
				add rule inet t in tcp sport 7001 drop`)
			if _, err := writer.Write([]byte("0123456789")); err != nil {
				t.Fatal(err)
			}
			want["attribution"], want["pid"], want["uid"] = "connection", strconv.Itoa(os.Getpid()), "0"
			found := drops.WaitForFirst(t, at, want)
			if executable, err := os.Executable(); err != nil || found["executable"] != executable {
				t.Errorf("executable %s, want %s (%v)", found["executable"], executable, err)
			}
			nobodys(t, drops, a, at, test.network, net.JoinHostPort(test.far, "7001"), want)
		})
	}
}

// connected opens a connection from one namespace to a server in another.
func connected(t *testing.T, from, to *bpftest.NetNS, network, address string) (opened, accepted net.Conn) {
	t.Helper()
	var listener net.Listener
	var err error
	to.Do(t, func() { listener, err = net.Listen(network, address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	from.Do(t, func() { opened, err = net.Dial(network, address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	if accepted, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return opened, accepted
}

// nobodys sees that what comes in where the same addresses have no connection yet has
// no owner: here the SYN from another port, or the answer to it. like is the drop of
// the connection that they have.
func nobodys(t *testing.T, drops *bpftest.Recorder, from, at *bpftest.NetNS, network, address string, like bpftest.Event) {
	t.Helper()
	const port = 7002
	from.Do(t, func() {
		d := net.Dialer{Timeout: 100 * time.Millisecond, LocalAddr: &net.TCPAddr{Port: port}}
		if c, err := d.Dial(network, address); err == nil {
			c.Close()
			t.Error("connected through a filter that drops")
		}
	})
	want := bpftest.Event{"protocol": "tcp", "source_ip": like["source_ip"], "destination_ip": like["destination_ip"], "interface": like["interface"]}
	if like["destination_port"] == "7001" {
		want["source_port"], want["destination_port"] = strconv.Itoa(port), "7001"
	} else {
		want["source_port"], want["destination_port"] = "7001", strconv.Itoa(port)
	}
	if e := drops.WaitForFirst(t, at, want); e["attribution"] != "" || e["pid"] != "" || e["uid"] != "" {
		t.Errorf("what nobody had taken belongs to somebody: %v", e)
	}
}

// The same for UDP sockets that are connected: also those that were before the program
// started. Where two have the same ends, a packet is nobody's.
func TestOwnerByEndsOfUDP(t *testing.T) {
	bpftest.RequireRoot(t)
	near, far := bpftest.Pair(t)
	bound := func(ns *bpftest.NetNS, address string, port int, to string) (fd int) {
		ns.Do(t, func() {
			var err error
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				t.Error(err)
				return
			}
			local := &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(address).As4()}
			remote := &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(to).As4()}
			if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, local), unix.Connect(fd, remote)); err != nil {
				t.Error(err)
			}
		})
		return fd
	}
	existing := bound(far, server, 7001, client)
	defer unix.Close(existing)
	host := bpftest.NewHost(t)
	connections := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, bpf.Options{})
	lacksExisting := connections.Lacks(t, "existing_udp")
	if !lacksExisting {
		connections.WaitFor(t, far, 1, bpftest.Event{"state": "established", "attribution": "existing", "protocol": "udp", "source_port": "7001"})
	}
	receivers := map[int]int{7001: existing}
	for port := 7002; port <= 7005; port++ {
		receivers[port] = bound(far, server, port, client)
		defer unix.Close(receivers[port])
	}
	second := bound(far, server, 7003, client) // takes the ends of the first
	defer unix.Close(second)
	unix.Close(bound(far, server, 7004, client)) // and this one did so for a time
	unix.Close(receivers[7005])
	far.Run(t, "nft", `add table inet t
		add chain inet t in { type filter hook prerouting priority -300; }
		add rule inet t in udp dport 7001-7006 drop`)
	senders := map[int]int{}
	for port := 7001; port <= 7006; port++ {
		senders[port] = bound(near, client, port, server)
		defer unix.Close(senders[port])
		if _, err := unix.Write(senders[port], []byte("hello")); err != nil {
			t.Error(err)
		}
	}
	for port := 7001; port <= 7006; port++ {
		got := drops.WaitForFirst(t, far, bpftest.Event{"protocol": "udp", "destination_port": strconv.Itoa(port)})
		want := bpftest.Event{"attribution": "", "pid": "", "uid": ""}
		if port == 7002 || port == 7001 && !lacksExisting {
			want = bpftest.Event{"attribution": "connection", "pid": strconv.Itoa(os.Getpid()), "uid": "0", "source_port": strconv.Itoa(port), "source_ip": client}
		}
		for column, value := range want {
			if got[column] != value {
				t.Errorf("port %d: %s is %q, want %q", port, column, got[column], value)
			}
		}
	}
}
