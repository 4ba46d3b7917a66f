package packetdrop_test

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

const (
	near4, far4 = "10.9.0.1", "10.9.0.2"
	near6, far6 = "fd09::1", "fd09::2"
)

// Each frame comes in on v-b, where the kernel drops it.
func TestReasons(t *testing.T) {
	const icmpProto, tcpProto, udpProto, icmp6Proto, testProto = 1, 6, 17, 58, 253
	a, b := bpftest.Pair(t)
	b.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	w := newWire(t, a, b)
	r := bpftest.Start(t, packetdrop.Monitor)
	if r.Lacks(t, "drop_reason") {
		return
	}
	from := func(p packet, near, far string) packet { p.source, p.destination = near, far; return p }
	for _, test := range []struct {
		name     string
		packet   packet // for IPv4 and IPv6, unless it says from where it comes
		checksum int    // where it is
		wrong    uint16 // what it is wrong by
		change   func(frame []byte) []byte
		want     bpftest.Event
	}{
		{name: "closed port", packet: packet{protocol: udpProto, payload: udp(7001, 7002, "hello")}, checksum: udpChecksum,
			want: bpftest.Event{"drop_reason": "NO_SOCKET", "protocol": "udp", "source_port": "7001", "destination_port": "7002"}},
		{name: "reset to a closed port", packet: packet{protocol: tcpProto, payload: tcp(7003, 7004, 0x04)}, checksum: tcpChecksum,
			want: bpftest.Event{"drop_reason": "NO_SOCKET", "protocol": "tcp", "source_port": "7003", "destination_port": "7004"}},
		{name: "wrong UDP checksum", packet: packet{protocol: udpProto, payload: udp(7005, 7006, "hello")}, checksum: udpChecksum, wrong: 1,
			want: bpftest.Event{"drop_reason": "UDP_CSUM", "protocol": "udp", "source_port": "7005", "destination_port": "7006"}},
		{name: "wrong TCP checksum", packet: packet{protocol: tcpProto, payload: tcp(7007, 7008, 0x02)}, checksum: tcpChecksum, wrong: 1,
			want: bpftest.Event{"drop_reason": "TCP_CSUM", "protocol": "tcp", "source_port": "7007", "destination_port": "7008"}},
		{name: "wrong ICMP checksum", packet: packet{protocol: icmpProto, source: near4, destination: far4, payload: icmp(8)}, checksum: icmpChecksum, wrong: 1,
			want: bpftest.Event{"drop_reason": "ICMP_CSUM", "protocol": "icmp"}},
		{name: "wrong ICMPv6 checksum", packet: packet{protocol: icmp6Proto, source: near6, destination: far6, payload: icmp(128)}, checksum: icmpChecksum, wrong: 1,
			want: bpftest.Event{"drop_reason": "ICMP_CSUM", "protocol": "icmpv6"}},
		{name: "for nobody here", packet: packet{protocol: udpProto, payload: udp(7009, 7010, "hello")}, checksum: udpChecksum,
			change: func(frame []byte) []byte { frame[5] ^= 0xff; return frame },
			want:   bpftest.Event{"drop_reason": "OTHERHOST", "protocol": "udp", "source_port": "7009", "destination_port": "7010"}},
		{name: "unknown VLAN", packet: packet{protocol: udpProto, payload: udp(7011, 7012, "hello")}, checksum: udpChecksum,
			change: func(frame []byte) []byte { return slices.Insert(frame, 12, 0x81, 0x00, 0x00, 0x07) },
			want:   bpftest.Event{"drop_reason": "OTHERHOST", "protocol": "udp", "source_port": "7011", "destination_port": "7012"}},
		{name: "VLAN in a VLAN", packet: packet{protocol: udpProto, payload: udp(7021, 7022, "hello")}, checksum: udpChecksum,
			change: func(frame []byte) []byte {
				return slices.Insert(frame, 12, 0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x08)
			},
			want: bpftest.Event{"drop_reason": "UNHANDLED_PROTO", "protocol": "udp", "source_port": "7021", "destination_port": "7022"}},
		{name: "unknown protocol", packet: packet{protocol: testProto, payload: []byte("hello")},
			want: bpftest.Event{"drop_reason": "IP_NOPROTO", "protocol": "253"}},
		{name: "TTL expired", packet: packet{protocol: udpProto, source: near4, destination: "10.9.0.77", ttl: 1, payload: udp(7013, 7014, "hello")}, checksum: udpChecksum,
			want: bpftest.Event{"drop_reason": "IP_INHDR", "protocol": "udp", "source_port": "7013", "destination_port": "7014"}},
		{name: "hop limit expired", packet: packet{protocol: udpProto, source: near6, destination: "fd09::77", ttl: 1, payload: udp(7015, 7016, "hello")}, checksum: udpChecksum,
			want: bpftest.Event{"drop_reason": "IP_INHDR", "protocol": "udp", "source_port": "7015", "destination_port": "7016"}},
		{name: "no route", packet: packet{protocol: udpProto, source: near4, destination: "192.0.2.1", payload: udp(7017, 7018, "hello")}, checksum: udpChecksum,
			want: bpftest.Event{"drop_reason": "IP_INNOROUTES", "protocol": "udp", "source_port": "7017", "destination_port": "7018"}},
		{name: "no IPv6 route", packet: packet{protocol: udpProto, source: near6, destination: "2001:db8::1", payload: udp(7019, 7020, "hello")}, checksum: udpChecksum,
			want: bpftest.Event{"drop_reason": "IP_INNOROUTES", "protocol": "udp", "source_port": "7019", "destination_port": "7020"}},
	} {
		packets := []packet{test.packet}
		if test.packet.source == "" {
			packets = []packet{from(test.packet, near4, far4), from(test.packet, near6, far6)}
		}
		for _, p := range packets {
			t.Run(test.name+" from "+p.source, func(t *testing.T) {
				if test.checksum > 0 {
					p = p.withChecksum(test.checksum, test.wrong)
				}
				frame := w.frame(p.etherType(), p.bytes())
				if test.change != nil {
					frame = test.change(frame)
				}
				w.send(t, frame)
				want := maps.Clone(test.want)
				want["source_ip"], want["destination_ip"] = p.source, p.destination
				want["length"], want["interface"], want["count"] = strconv.Itoa(len(p.bytes())), "v-b", "1"
				r.WaitFor(t, b, 1, want)
			})
		}
	}
}

// Whatever a rule drops, of each protocol, is there to the last packet and byte.
func TestNftDropOfEachProtocol(t *testing.T) {
	a, b := bpftest.Pair(t)
	b.Run(t, "nft", `add table inet t
		add counter inet t dropped
		add chain inet t in { type filter hook input priority 0; }
		add rule inet t in th dport 7001 counter name dropped drop
		add rule inet t in icmp type echo-request counter name dropped drop
		add rule inet t in icmpv6 type echo-request counter name dropped drop`)
	w := newWire(t, a, b)
	r := bpftest.Start(t, packetdrop.Monitor)
	if r.Lacks(t, "drop_reason") { // then what the kernel takes in looks alike
		return
	}
	const each = 40 // more than are told one by one
	sent := 0
	for name, p := range map[string]packet{
		"udp":    packet{protocol: unix.IPPROTO_UDP, source: near4, destination: far4, payload: udp(7000, 7001, "hello")}.withChecksum(udpChecksum, 0),
		"udp/6":  packet{protocol: unix.IPPROTO_UDP, source: near6, destination: far6, payload: udp(7000, 7001, "hello")}.withChecksum(udpChecksum, 0),
		"tcp":    packet{protocol: unix.IPPROTO_TCP, source: near4, destination: far4, payload: tcp(7000, 7001, 0x02)}.withChecksum(tcpChecksum, 0),
		"tcp/6":  packet{protocol: unix.IPPROTO_TCP, source: near6, destination: far6, payload: tcp(7000, 7001, 0x02)}.withChecksum(tcpChecksum, 0),
		"icmp":   packet{protocol: unix.IPPROTO_ICMP, source: near4, destination: far4, payload: icmp(8)}.withChecksum(icmpChecksum, 0),
		"icmpv6": packet{protocol: unix.IPPROTO_ICMPV6, source: near6, destination: far6, payload: icmp(128)}.withChecksum(icmpChecksum, 0),
	} {
		for range each {
			w.send(t, w.frame(p.etherType(), p.bytes()))
		}
		sent += each
		want := bpftest.Event{
			"drop_reason": "NETFILTER_DROP", "protocol": strings.TrimSuffix(name, "/6"), "source_ip": p.source, "destination_ip": p.destination, "interface": "v-b",
		}
		if got := packets(r.Events(t, b), want); got != each {
			t.Errorf("%s: %d drops, want %d", name, got, each)
		}
	}
	dropped, size := counted(t, b, "dropped")
	seen, length := 0, 0
	for _, e := range r.Events(t, b) {
		if e["drop_reason"] == "NETFILTER_DROP" {
			n, _ := strconv.Atoi(e["length"])
			length += n
			seen += packets([]bpftest.Event{e}, nil)
		}
	}
	if seen != dropped || dropped != sent || length != size {
		t.Errorf("%d packets with %d bytes of %d; nft counted %d with %d", seen, length, sent, dropped, size)
	}
}

func TestNotIP(t *testing.T) {
	a, b := bpftest.Pair(t)
	w := newWire(t, a, b)
	r := bpftest.Start(t, packetdrop.Monitor)
	w.send(t, w.frame(etherTest, make([]byte, 46)))
	e := r.WaitFor(t, b, 1, bpftest.Event{"protocol": "0x88b5", "drop_reason": reason(t, r, "UNHANDLED_PROTO"), "interface": "v-b", "length": "46", "count": "1"})
	for _, column := range []string{"source_ip", "destination_ip", "source_port", "destination_port"} {
		if value, known := e[0][column]; known {
			t.Errorf("%s %s is made up", column, value)
		}
	}
}

// A full receive buffer belongs to the socket that does not read, not to the
// process that sends.
func TestFullReceiveBuffer(t *testing.T) {
	for _, test := range []struct{ network, near, far string }{{"udp4", near4, far4}, {"udp6", near6, far6}} {
		t.Run(test.network, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			r := bpftest.Start(t, packetdrop.Monitor)
			var c *net.UDPConn
			b.Do(t, func() {
				// Of this thread alone, which ends with the call.
				if err := unix.Setfsuid(4711); err != nil {
					t.Error(err)
				}
				var err error
				if c, err = net.ListenUDP(test.network, &net.UDPAddr{IP: net.ParseIP(test.far), Port: 7001}); err != nil {
					t.Error(err)
					return
				}
				if err := c.SetReadBuffer(1); err != nil { // the kernel takes the least that is allowed
					t.Error(err)
				}
			})
			defer c.Close()
			const n = 20
			source := send(t, a, test.network, net.JoinHostPort(test.far, "7001"), n, 1000)
			received := 0
			buffer := make([]byte, 2000)
			for ; ; received++ {
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := c.Read(buffer); err != nil {
					break
				}
			}
			want := withReceiver(t, "4711", bpftest.Event{
				"drop_reason": reason(t, r, "SOCKET_RCVBUFF"), "protocol": "udp", "source_ip": test.near, "source_port": source, "destination_ip": test.far,
				"destination_port": "7001", "interface": "v-b",
			})
			if dropped := packets(r.Events(t, b), want); dropped != n-received || received == n {
				t.Errorf("%d dropped and %d received, of %d", dropped, received, n)
			}
		})
	}
}

// What is dropped for want of room in the listen queue belongs to the listener.
func TestFullListenQueue(t *testing.T) {
	bpftest.RequireRoot(t)
	reasons, err := bpftest.NewHost(t).EnumNames("skb_drop_reason")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(slices.Collect(maps.Values(reasons)), "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW") {
		t.Log("this kernel lacks drop_reason_listen_overflow")
		return
	}
	const backlog = 3
	for _, test := range []struct {
		near, far string
		family    int
	}{{near4, far4, unix.AF_INET}, {near6, far6, unix.AF_INET6}} {
		t.Run(test.far, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			r := bpftest.Start(t, packetdrop.Monitor)
			far := socketAddress(test.far, 7001)
			b.Do(t, func() {
				l := openSocket(t, test.family)
				if err := unix.Bind(l, far); err != nil {
					t.Error(err)
				}
				if err := unix.Listen(l, backlog); err != nil {
					t.Error(err)
				}
			})
			connect := func() {
				if err := unix.Connect(openSocket(t, test.family), far); err != unix.EINPROGRESS {
					t.Error(err)
				}
			}
			a.Do(t, func() {
				for range backlog {
					connect()
					time.Sleep(50 * time.Millisecond) // or the kernel takes them for a flood
				}
			})
			// There is room for one more. Two handshakes begin, and can end when both have begun.
			a.Run(t, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in tcp sport 7001 drop")
			a.Do(t, func() {
				connect()
				connect()
			})
			a.Run(t, "nft", "delete table inet t")
			want := withReceiver(t, "0", bpftest.Event{
				"drop_reason": "TCP_LISTEN_OVERFLOW", "protocol": "tcp", "source_ip": test.near, "destination_ip": test.far,
				"destination_port": "7001", "interface": "v-b",
			})
			for deadline := time.Now().Add(10 * time.Second); packets(r.Events(t, b), want) < 2; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("no drop for the listener: %v", r.Events(t, b))
				}
			}
		})
	}
}

// withReceiver adds the owner of the socket that was to receive the packet, where
// the kernel tells it (Linux 6.11 and later).
func withReceiver(t *testing.T, uid string, e bpftest.Event) bpftest.Event {
	t.Helper()
	arguments, err := bpftest.NewHost(t).TracepointArguments("kfree_skb")
	if err != nil {
		t.Fatal(err)
	}
	if arguments > 3 {
		e["attribution"], e["uid"] = "receiving_socket", uid
	}
	return e
}

func openSocket(t *testing.T, family int) int {
	t.Helper()
	s, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { _ = unix.Close(s) })
	return s
}

func socketAddress(ip string, port int) unix.Sockaddr {
	address := netip.MustParseAddr(ip)
	if address.Is6() {
		return &unix.SockaddrInet6{Port: port, Addr: address.As16()}
	}
	return &unix.SockaddrInet4{Port: port, Addr: address.As4()}
}

// packets adds up how many packets those events stand for that match.
func packets(events []bpftest.Event, want bpftest.Event) int {
	sum := 0
	for _, e := range events {
		if matches(e, want) {
			n, _ := strconv.Atoi(e["count"])
			sum += n
		}
	}
	return sum
}

func matches(e, want bpftest.Event) bool {
	for column, value := range want {
		if e[column] != value {
			return false
		}
	}
	return true
}
