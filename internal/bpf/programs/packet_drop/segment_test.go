package packetdrop_test

import (
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// hasReason tells whether this kernel has a reason. One that has not calls such drops
// by another name, which a test may know.
func hasReason(t *testing.T, name string) bool {
	t.Helper()
	names, err := bpftest.NewHost(t).EnumNames("skb_drop_reason")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(slices.Collect(maps.Values(names)), "SKB_DROP_REASON_"+name)
}

// link is one connection between the namespaces of a pair.
type link struct{ client, served *net.TCPConn }

func connect(t *testing.T, a, b *bpftest.NetNS, network, address string) link {
	t.Helper()
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	var l net.Listener
	var c net.Conn
	var err error
	b.Do(t, func() { l, err = config.Listen(t.Context(), network, address) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a.Do(t, func() {
		d := net.Dialer{KeepAlive: -1}
		c, err = d.Dial(network, address)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { served.Close() })
	return link{c.(*net.TCPConn), served.(*net.TCPConn)}
}

// exchange sends bytes from the client to the server, which takes them.
func (l link) exchange(t *testing.T, data string) {
	t.Helper()
	if _, err := l.client.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	_ = l.served.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := l.served.Read(got); err != nil || string(got[:n]) != data {
		t.Fatalf("%q came in, want %q: %v", got[:n], data, err)
	}
}

// until waits for what must be.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// dropsOfPort are those in any of the namespaces, or in one that is not known.
func dropsOfPort(t *testing.T, r *bpftest.Recorder, port string, namespaces ...*bpftest.NetNS) (drops []bpftest.Event) {
	t.Helper()
	for _, ns := range append(namespaces, &bpftest.NetNS{Made: namespaces[0].Made}) {
		for _, e := range r.Events(t, ns) {
			if e["source_port"] == port || e["destination_port"] == port {
				drops = append(drops, e)
			}
		}
	}
	return drops
}

var ends = []struct{ name, network, near, far string }{{"IPv4", "tcp4", near4, far4}, {"IPv6", "tcp6", near6, far6}}

// Keep-alive probes that are answered are no drops, and each is counted as filtered. A
// probe that a firewall drops is one, with the same ends and of the same kind.
func TestKeepAliveProbes(t *testing.T) {
	const connections, probes = 10, 30
	for _, test := range ends {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			b.Run(t, "nft", `add table inet t
				add counter inet t probes
				add counter inet t dropped
				add chain inet t in { type filter hook input priority 0; }`)
			r := bpftest.Start(t, packetdrop.Monitor)
			if r.Lacks(t, "drop_reason") { // then TCP drops without passing the tracepoint
				return
			}
			var links []link
			for range connections {
				links = append(links, connect(t, a, b, test.network, net.JoinHostPort(test.far, "7001")))
			}
			r.Events(t, b) // counters are read when all is
			before := r.Status().Filtered[bpf.FilteredRule]
			// From now on, nothing but probes comes from there.
			b.Run(t, "nft", "add rule inet t in tcp dport 7001 counter name probes")
			for _, l := range links {
				if err := l.client.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 9}); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "probes", func() bool { n, _ := counted(t, b, "probes"); return n >= probes })
			b.Run(t, "nft", "flush chain inet t in; add rule inet t in tcp dport 7001 counter name dropped drop")
			answered, _ := counted(t, b, "probes")
			until(t, "probes that are dropped", func() bool { n, _ := counted(t, b, "dropped"); return n >= probes })
			for _, l := range links { // no more probes: this is sent again until it arrives
				if _, err := l.client.Write([]byte("x")); err != nil {
					t.Error(err)
				}
			}
			b.Run(t, "nft", "flush chain inet t in")
			for _, l := range links {
				if _, err := l.served.Read(make([]byte, 1)); err != nil {
					t.Error(err)
				}
			}
			events := dropsOfPort(t, r, "7001", a, b)
			filtered := int(r.Status().Filtered[bpf.FilteredRule] - before)
			dropped, _ := counted(t, b, "dropped")
			lost := bpftest.Event{"drop_reason": "NETFILTER_DROP", "protocol": "tcp", "source_ip": test.near, "destination_ip": test.far, "destination_port": "7001", "interface": "v-b"}
			if got := packets(events, lost); got != dropped {
				t.Errorf("%d drops by nft are told, nft counted %d", got, dropped)
			}
			t.Logf("%d answered, %d filtered, %d dropped", answered, filtered, dropped)
			others := packets(events, nil) - packets(events, lost)
			if !hasReason(t, "TCP_OLD_SEQUENCE") { // then probes look like what is out of the window
				if got := packets(events, bpftest.Event{"drop_reason": "TCP_INVALID_SEQUENCE", "destination_port": "7001"}); got != answered || got != others {
					t.Errorf("%d probes are told of %d, among %d others: %v", got, answered, others, events)
				}
				return
			}
			if others != 0 || filtered < answered {
				t.Errorf("%d of %d probes that were answered are filtered, and %d told: %v", filtered, answered, others, events)
			}
		})
	}
}

// What is sent again although it had arrived is no drop; what made it necessary, the
// answers that a firewall drops, are all told.
func TestSentAgain(t *testing.T) {
	const times = 3
	for _, test := range ends {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			const rules = `add table inet t
				add counter inet t seen
				add chain inet t in { type filter hook input priority 0; }`
			a.Run(t, "nft", rules)
			b.Run(t, "nft", rules)
			r := bpftest.Start(t, packetdrop.Monitor)
			if r.Lacks(t, "drop_reason") { // then TCP drops without passing the tracepoint
				return
			}
			l := connect(t, a, b, test.network, net.JoinHostPort(test.far, "7001"))
			l.exchange(t, "begin")
			r.Events(t, b) // counters are read when all is
			before := r.Status().Filtered[bpf.FilteredRule]
			b.Run(t, "nft", "add rule inet t in tcp dport 7001 counter name seen")
			a.Run(t, "nft", "add rule inet t in tcp sport 7001 counter name seen drop")
			l.exchange(t, "again")
			until(t, "segments that are sent again", func() bool { n, _ := counted(t, b, "seen"); return n > times })
			a.Run(t, "nft", "flush chain inet t in")
			l.exchange(t, "once")
			events := dropsOfPort(t, r, "7001", a, b)
			filtered := int(r.Status().Filtered[bpf.FilteredRule] - before)
			answers, _ := counted(t, a, "seen")
			lost := bpftest.Event{"drop_reason": "NETFILTER_DROP", "protocol": "tcp", "source_ip": test.far, "source_port": "7001", "destination_ip": test.near, "interface": "v-a"}
			if got := packets(events, lost); got != answers || answers < times || packets(events, nil) != got {
				t.Errorf("%d answers are told, nft dropped %d: %v", got, answers, events)
			}
			if filtered < times {
				t.Errorf("%d filtered, and %d at least were sent again", filtered, times)
			}
		})
	}
}

// Data for a socket that was closed is lost, also a single byte: the rule for the
// acknowledgement or FIN that comes too late does not take it.
func TestDataToClosedSocket(t *testing.T) {
	for _, test := range ends {
		for _, state := range []string{"closing", "TIME_WAIT", "gone"} {
			t.Run(test.name+" "+state, func(t *testing.T) {
				a, b := bpftest.Pair(t)
				r := bpftest.Start(t, packetdrop.Monitor)
				if r.Lacks(t, "drop_reason") { // then TCP drops without passing the tracepoint
					return
				}
				l := connect(t, a, b, test.network, net.JoinHostPort(test.far, "7001"))
				l.exchange(t, "begin")
				shows := func(is string) func() bool {
					return func() bool {
						return strings.Contains(strings.Join(strings.Fields(b.Run(t, "ss", "-Htan", "sport", "=", "7001")), " "), is)
					}
				}
				length := map[string]string{"IPv4": "53", "IPv6": "73"}[test.name] // IP, TCP with timestamps, and the byte
				want := bpftest.Event{"protocol": "tcp", "source_ip": test.near, "destination_ip": test.far, "destination_port": "7001", "interface": "v-b", "length": length}
				if state == "gone" { // closed with data unread
					// The reset that tells of it does not come, so that the client goes on.
					a.Run(t, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in tcp sport 7001 drop")
					if _, err := l.client.Write([]byte("unread")); err != nil {
						t.Fatal(err)
					}
					until(t, "data that waits", shows("ESTAB 6 "))
					want["drop_reason"] = "NO_SOCKET"
					delete(want, "length") // what was unread is sent again, perhaps with what follows
				}
				l.served.Close()
				if state == "TIME_WAIT" {
					until(t, "the end that is acknowledged", shows("FIN-WAIT-2"))
				}
				if state != "gone" {
					if n, err := l.client.Read(make([]byte, 1)); n != 0 || err == nil {
						t.Fatalf("%d bytes and %v, want the end", n, err)
					}
				}
				if _, err := l.client.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				e := r.WaitForFirst(t, b, want)
				t.Logf("%s at %s, %s bytes", e["drop_reason"], e["location"], e["length"])
			})
		}
	}
}
