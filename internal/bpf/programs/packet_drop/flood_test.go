package packetdrop_test

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// counted returns what an nft counter of a namespace has seen.
func counted(t *testing.T, ns *bpftest.NetNS, name string) (packets, bytes int) {
	t.Helper()
	text := ns.Run(t, "nft", "list", "counter", "inet", "t", name)
	if _, err := fmt.Sscanf(afterWord(text, "packets"), "%d bytes %d", &packets, &bytes); err != nil {
		t.Fatalf("read counter: %v\n%s", err, text)
	}
	return packets, bytes
}

// A flood is counted to the last packet and byte in few events, and hides none of
// the others.
func TestFlood(t *testing.T) {
	for _, test := range []struct{ network, near, far string }{{"udp4", near4, far4}, {"udp6", near6, far6}} {
		t.Run(test.network, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			b.Run(t, "nft", `add table inet t
				add counter inet t flood
				add counter inet t others
				add chain inet t in { type filter hook input priority 0; }
				add rule inet t in udp dport 7001 counter name flood drop
				add rule inet t in udp dport 7101-7120 counter name others drop`)
			r := bpftest.Start(t, packetdrop.Monitor)
			const senders, others = 2, 20
			each := 100_000
			if bpftest.Emulated() {
				each = 25_000
			}
			var flood sync.WaitGroup
			for range senders {
				flood.Go(func() { send(t, a, test.network, net.JoinHostPort(test.far, "7001"), each, 100) })
			}
			for i := range others {
				send(t, a, test.network, net.JoinHostPort(test.far, strconv.Itoa(7101+i)), 1, 10)
				_ = r.Events(t, b) // somebody asks meanwhile
			}
			flood.Wait()

			events := r.Events(t, b)
			want := bpftest.Event{"drop_reason": reason(t, r, "NETFILTER_DROP"), "source_ip": test.near, "destination_ip": test.far, "interface": "v-b", "destination_port": "7001"}
			dropped, floodBytes := counted(t, b, "flood")
			if dropped < senders*each/2 {
				t.Errorf("a flood of %d packets only", dropped)
			}
			stored, length := 0, 0
			for _, e := range events {
				if matches(e, want) {
					n, _ := strconv.Atoi(e["length"])
					stored, length = stored+1, length+n
				}
			}
			t.Logf("%d packets in %d events", dropped, stored)
			if got := packets(events, want); got != dropped || length != floodBytes {
				t.Errorf("%d packets with %d bytes; nft counted %d with %d", got, length, dropped, floodBytes)
			}
			if stored > 2000 {
				t.Errorf("%d events", stored)
			}
			for i := range others {
				want["destination_port"] = strconv.Itoa(7101 + i)
				if got := packets(events, want); got != 1 {
					t.Errorf("%d drops at port %s, want 1", got, want["destination_port"])
				}
			}
			if lost := r.LostEvents(); len(lost) != 0 {
				t.Errorf("lost %v", lost)
			}
		})
	}
}

// A flood from addresses that are made up, and one to all ports: each becomes few
// kinds, and nothing else is hidden by it.
func TestFloodOfDifferentPackets(t *testing.T) {
	const n = 40_000
	for _, test := range []struct {
		name   string
		packet func(i int) packet
		absent []string
	}{
		{"sources", func(i int) packet {
			return packet{protocol: unix.IPPROTO_TCP, source: fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&0xff, i&0xff), destination: far4,
				payload: tcp(uint16(1024+i), 7001, 0x02)}.withChecksum(tcpChecksum, 0)
		}, []string{"source_ip", "source_port"}},
		{"destinations", func(i int) packet {
			return packet{protocol: unix.IPPROTO_UDP, source: near4, destination: far4,
				payload: udp(7000, uint16(1024+i), "")}.withChecksum(udpChecksum, 0)
		}, []string{"source_ip", "destination_ip", "destination_port"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			b.Run(t, "nft", `add table inet t
				add counter inet t flood
				add chain inet t in { type filter hook input priority 0; }
				add rule inet t in iifname v-b counter name flood drop`)
			w := newWire(t, a, b)
			r := bpftest.Start(t, packetdrop.Monitor)
			var frames [n][]byte
			for i := range frames {
				p := test.packet(i)
				frames[i] = w.frame(p.etherType(), p.bytes())
			}
			before, _ := counted(t, b, "flood")
			began := time.Now()
			for _, frame := range frames {
				w.send(t, frame)
			}
			windows := int(time.Since(began)/time.Second) + 2
			// Neighbours are looked for meanwhile: what nft counts after the events may be more.
			least, _ := counted(t, b, "flood")
			events := r.Events(t, b)
			dropped, _ := counted(t, b, "flood")
			want := bpftest.Event{"drop_reason": reason(t, r, "NETFILTER_DROP"), "interface": "v-b"}
			if want["drop_reason"] == "" { // then the place tells it from other drops there
				want["location"] = "nf_hook_slow"
			}
			if got := packets(events, want); got < least-before || got > dropped {
				t.Errorf("%d packets; nft counted %d before, %d when all were sent and %d after", got, before, least, dropped)
			}
			widest, largest := 0, bpftest.Event{}
			for _, e := range events {
				if count, _ := strconv.Atoi(e["count"]); count > widest {
					widest, largest = count, e
				}
			}
			// A second, MAX_KINDS in bpf/include/packet_drop_flood.h are told apart. A slow
			// machine does not send more than those, which is no flood.
			if least := n/windows - 8192; least <= 0 {
				t.Logf("%d packets in more than %d s are no flood", n, windows-2)
			} else if widest < least {
				t.Errorf("the largest of %d events has %d packets, want %d", len(events), widest, least)
			} else {
				for _, column := range test.absent {
					if value, known := largest[column]; known {
						t.Errorf("%d packets have %s %s", widest, column, value)
					}
				}
			}
			t.Logf("%d packets in %d events, the largest of %d", dropped, len(events), widest)
			if lost := r.LostEvents(); len(lost) != 0 {
				t.Errorf("lost %v", lost)
			}
		})
	}
}
