package main_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// counter returns one of the kernel's counters of a namespace, such as
// TcpRetransSegs.
func (h *hosts) counter(ns *bpftest.NetNS, name string) int64 {
	h.Helper()
	fields := strings.Fields(ns.Run(h, "nstat", "-asz", name))
	at := slices.Index(fields, name)
	if at < 0 {
		h.Fatalf("nstat does not tell of %s", name)
	}
	return h.number(fields[at+1])
}

// socket is what ss tells of an open connection.
type socket struct {
	acknowledged, received, retransmits int64
	rtt                                 int64 // in microseconds
}

// sockets returns what ss tells of the connections that a process holds, by the
// client's port; flag is -t or -u. ss -p would look through all processes of the
// machine for it, which can take seconds.
func (h *hosts) sockets(ns *bpftest.NetNS, flag string, whose owner) map[int]socket {
	h.Helper()
	held := map[string]bool{}
	descriptors, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", whose.PID))
	for _, descriptor := range descriptors {
		if file, err := os.Readlink(descriptor); err == nil { // else it was closed meanwhile
			held[file] = true
		}
	}
	found := map[int]socket{}
	for line := range strings.Lines(ns.Run(h, "ss", flag+"ineOH", "state", "established")) {
		inode := regexp.MustCompile(` ino:(\d+)`).FindStringSubmatch(line)
		if inode == nil || !held["socket:["+inode[1]+"]"] {
			continue
		}
		ends := strings.Fields(line)[2:4]
		client := ends[0]
		if ns == h.service {
			client = ends[1]
		}
		var s socket
		for pattern, value := range map[string]*int64{
			`bytes_acked:(\d+)`: &s.acknowledged, `bytes_received:(\d+)`: &s.received, `retrans:\d+/(\d+)`: &s.retransmits,
		} {
			if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil { // ss leaves out zeros
				*value = h.number(m[1])
			}
		}
		if m := regexp.MustCompile(` rtt:([\d.]+)`).FindStringSubmatch(line); m != nil {
			milliseconds, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				h.Fatal(err)
			}
			s.rtt = int64(math.Round(milliseconds * 1000))
		}
		found[int(h.number(client[strings.LastIndexByte(client, ':')+1:]))] = s
	}
	return found
}

// countPayload makes the packet filter count the bytes of each TCP connection of a
// service. A packet has an IPv4 header of 20 bytes and one of TCP of 32: so it is
// with timestamps and without loss; one with a SYN has no payload. Nothing is to
// be sent twice, so the probe that Linux sends when an ACK is late (RFC 8985) is
// switched off.
func (h *hosts) countPayload(port int) {
	h.Helper()
	for _, ns := range []*bpftest.NetNS{h.client, h.service} {
		ns.Run(h, "sysctl", "-qw", "net.ipv4.tcp_early_retrans=0")
	}
	h.service.Run(h, "nft", fmt.Sprintf(`
		add table ip payload
		add set ip payload received { type inet_service; size 65535; flags dynamic; counter; }
		add set ip payload sent { type inet_service; size 65535; flags dynamic; counter; }
		add chain ip payload in { type filter hook input priority 0; }
		add chain ip payload out { type filter hook output priority 0; }
		add rule ip payload in tcp dport %[1]d tcp flags & syn == 0 update @received { tcp sport }
		add rule ip payload out tcp sport %[1]d tcp flags & syn == 0 update @sent { tcp dport }`, port))
}

var countForm = regexp.MustCompile(`(\d+) counter packets (\d+) bytes (\d+)`)

// payload returns what the service sent and received by the client's port, as was
// counted.
func (h *hosts) payload() map[int]transfer {
	h.Helper()
	count := func(set string) map[int]int64 {
		found := map[int]int64{}
		for _, m := range countForm.FindAllStringSubmatch(h.service.Run(h, "nft", "list", "set", "ip", "payload", set), -1) {
			found[int(h.number(m[1]))] = h.number(m[3]) - (20+32)*h.number(m[2])
		}
		return found
	}
	sent, all := count("sent"), map[int]transfer{}
	for port, received := range count("received") {
		all[port] = transfer{sent: sent[port], received: received}
	}
	return all
}

// transfer is what an end sent and received, and how many segments it sent again.
type transfer struct{ sent, received, retransmits int64 }

// comparePayload compares both ends of all connections with what is known of the
// clients' ends, and with the bytes that were counted: in all of a port, which may
// have been used again. Where something was sent again after all, they do not tell
// the payload.
func (h *hosts) comparePayload(service owner, client []end) {
	h.Helper()
	for i := range client {
		client[i].sent, client[i].received = untold, untold
	}
	near, far := h.transfers(h.client, client), h.transfers(h.service, far(client, service))
	for port, counted := range h.payload() {
		if near[port].retransmits+far[port].retransmits != 0 {
			h.Logf("port %d: client %+v, service %+v", port, near[port], far[port])
			continue
		}
		if near[port] != (transfer{sent: counted.received, received: counted.sent}) || far[port] != counted {
			h.Errorf("port %d: counted %+v, client %+v, service %+v", port, counted, near[port], far[port])
		}
	}
}

// transfers compares the ends in a namespace with those that are wanted, and
// returns what was recorded by the client's port.
func (h *hosts) transfers(ns *bpftest.NetNS, want []end) map[int]transfer {
	h.Helper()
	over := h.closed(ns, len(want))
	h.compare(ns, over, want)
	all := map[int]transfer{}
	for _, e := range over {
		t := all[e.SourcePort]
		all[e.SourcePort] = transfer{t.sent + e.Sent, t.received + e.Received, t.retransmits + e.Retransmits}
	}
	return all
}

// losePackets makes each namespace drop every 50th TCP packet that comes in.
func (h *hosts) losePackets() {
	h.Helper()
	for _, ns := range []*bpftest.NetNS{h.client, h.service} {
		ns.Run(h, "ip", "link", "set", "cable", "gso_max_segs", "1") // a packet is a segment
		ns.Run(h, "nft", `
			add table ip loss
			add chain ip loss in { type filter hook input priority 0; }
			add rule ip loss in meta l4proto tcp numgen inc mod 50 == 49 drop`)
	}
}
