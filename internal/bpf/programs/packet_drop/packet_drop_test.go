package packetdrop_test

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

func send(t *testing.T, ns *bpftest.NetNS, network, address string, datagrams, size int) (source string) {
	t.Helper()
	ns.Do(t, func() {
		c, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		to, err := net.ResolveUDPAddr(network, address)
		if err != nil {
			t.Error(err)
			return
		}
		for range datagrams {
			// What an output rule drops is an error of the sender.
			_, _ = c.WriteTo(make([]byte, size), to)
		}
		_, source, _ = net.SplitHostPort(c.LocalAddr().String())
	})
	return source
}

// reason is what the event must say, nothing on a kernel without reasons.
func reason(t *testing.T, r *bpftest.Recorder, name string) string {
	t.Helper()
	if r.Lacks(t, "drop_reason") {
		return ""
	}
	return name
}

func TestClosedPort(t *testing.T) {
	r := bpftest.Start(t, packetdrop.Monitor)
	for _, test := range []struct {
		name, network, ip string
		header            int
	}{{"IPv4", "udp4", "127.0.0.1", 28}, {"IPv6", "udp6", "::1", 48}} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "closed")
			source := send(t, ns, test.network, net.JoinHostPort(test.ip, "7001"), 3, 10)
			r.WaitFor(t, ns, 3, bpftest.Event{
				"drop_reason": reason(t, r, "NO_SOCKET"), "protocol": "udp", "source_ip": test.ip, "source_port": source,
				"destination_ip": test.ip, "destination_port": "7001", "interface": "lo", "length": strconv.Itoa(test.header + 10),
			})
		})
	}
	if lost := r.LostEvents(); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

func TestNftDrop(t *testing.T) {
	r := bpftest.Start(t, packetdrop.Monitor)
	a, b := bpftest.Pair(t)
	const rules = `add table inet t
		add counter inet t dropped
		add chain inet t in { type filter hook input priority 0; }
		add rule inet t in udp dport 7001 counter name dropped drop`
	b.Run(t, "nft", rules)
	for _, test := range []struct {
		network, source, destination string
		header                       int
	}{{"udp4", "10.9.0.1", "10.9.0.2", 28}, {"udp6", "fd09::1", "fd09::2", 48}} {
		port := send(t, a, test.network, net.JoinHostPort(test.destination, "7001"), 5, 100)
		r.WaitFor(t, b, 5, bpftest.Event{
			"drop_reason": reason(t, r, "NETFILTER_DROP"), "protocol": "udp", "source_ip": test.source, "source_port": port,
			"destination_ip": test.destination, "destination_port": "7001", "interface": "v-b", "length": strconv.Itoa(test.header + 100),
		})
	}
	var packets, bytes, seen, seenBytes int
	counted := b.Run(t, "nft", "list", "counter", "inet", "t", "dropped")
	if _, err := fmt.Sscanf(afterWord(counted, "packets"), "%d bytes %d", &packets, &bytes); err != nil {
		t.Fatalf("read counter: %v\n%s", err, counted)
	}
	for _, e := range r.Events(t, b) {
		if e["destination_port"] == "7001" {
			length, _ := strconv.Atoi(e["length"])
			seen, seenBytes = seen+1, seenBytes+length
		}
	}
	if seen != packets || seenBytes != bytes {
		t.Errorf("%d events with %d bytes; nft counted %d packets with %d bytes", seen, seenBytes, packets, bytes)
	}
}

func afterWord(text, word string) string {
	for i := range len(text) - len(word) {
		if text[i:i+len(word)] == word {
			return text[i+len(word)+1:]
		}
	}
	return ""
}

// A packet dropped on its way out still belongs to a socket, which tells the
// user and the cgroup.
func TestOutputDropTellsTheOwner(t *testing.T) {
	r := bpftest.Start(t, packetdrop.Monitor)
	ns := bpftest.NewNetNS(t, "out")
	ns.Run(t, "nft", "add table ip t; add chain ip t out { type filter hook output priority 0; }; add rule ip t out udp dport 7001 drop")
	bpftest.InCgroup(t, "ebpfsrv-test.slice/drop-test.service",
		ns.Command("setpriv", "--reuid=4711", "--clear-groups", "bash", "-c", "echo hello > /dev/udp/127.0.0.1/7001 || true"))
	r.WaitFor(t, ns, 1, bpftest.Event{
		"drop_reason": reason(t, r, "NETFILTER_DROP"), "uid": "4711", "attribution": "socket", "unit": "drop-test.service", "destination_port": "7001", "interface": "lo", "length": "34",
	})
}

func TestTCPToClosedPort(t *testing.T) {
	r := bpftest.Start(t, packetdrop.Monitor)
	ns := bpftest.NewNetNS(t, "rst")
	ns.Do(t, func() {
		if _, err := net.Dial("tcp4", "127.0.0.1:7001"); err == nil {
			t.Error("connected to a closed port")
		}
	})
	r.WaitFor(t, ns, 1, bpftest.Event{"drop_reason": reason(t, r, "NO_SOCKET"), "protocol": "tcp", "destination_port": "7001", "interface": "lo"})
}

// Over a wire the FIN of the server meets a client in TIME_WAIT: no drop either.
func TestCloseInTimeWaitIsNoDrop(t *testing.T) {
	r := bpftest.Start(t, packetdrop.Monitor)
	a, b := bpftest.Pair(t)
	for _, test := range []struct{ network, address string }{{"tcp4", "10.9.0.2:7001"}, {"tcp6", "[fd09::2]:7001"}} {
		var l net.Listener
		b.Do(t, func() {
			var err error
			if l, err = net.Listen(test.network, test.address); err != nil {
				t.Error(err)
			}
		})
		for range 5 {
			var c net.Conn
			a.Do(t, func() {
				var err error
				if c, err = net.Dial(test.network, test.address); err != nil {
					t.Error(err)
				}
			})
			served, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			time.Sleep(50 * time.Millisecond)
			served.Close()
		}
		l.Close()
	}
	for _, ns := range []*bpftest.NetNS{a, b, {}} { // of many drops in TCP the namespace is not known
		for _, e := range r.Events(t, ns) {
			if e["protocol"] == "tcp" && (e["source_port"] == "7001" || e["destination_port"] == "7001") {
				t.Errorf("a drop: %v", e)
			}
		}
	}
}
