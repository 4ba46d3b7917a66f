package stream

import (
	"math/rand/v2"
	"slices"

	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
	"github.com/srodi/ebpf-server/internal/event"
)

// reasons for which packets are dropped, with the place and what it mostly hits.
var reasons = []struct {
	name, location string
	protocol       int32
	share          float64
	outbound       bool
}{
	{"NETFILTER_DROP", "nf_hook_slow", tcp, 0.34, false},
	{"NO_SOCKET", "tcp_v4_rcv", tcp, 0.22, false},
	{"NO_SOCKET", "udp_unicast_rcv_skb", udp, 0.12, false},
	{"SOCKET_RCVBUFF", "sock_queue_rcv_skb_reason", udp, 0.07, false},
	{"NETFILTER_DROP", "nf_hook_slow", udp, 0.06, true},
	{"TCP_OLD_SEQUENCE", "tcp_validate_incoming", tcp, 0.05, false},
	{"TCP_CSUM", "tcp_v4_rcv", tcp, 0.01, false},
	{"IP_RPFILTER", "ip_rcv_finish_core", udp, 0.04, false},
	{"QDISC_DROP", "__dev_queue_xmit", tcp, 0.05, true},
	{"NEIGH_FAILED", "neigh_invalidate", icmp, 0.02, true},
	{"UNHANDLED_PROTO", "__netif_receive_skb_core", other, 0.02, false},
}

// Positions in the dictionary of protocols.
const (
	tcp = iota
	udp
	icmp
	other // not IP: it has no addresses
)

const (
	meanBurst  = 120
	maxBurst   = 20_000
	meanGap    = 300_000 // ns between two packets of a burst
	ownedShare = 0.3     // of the bursts: a socket tells the owner
)

var dropColumn = struct {
	reason, location, protocol, sourceIP, sourcePort, destinationIP, destinationPort, length, count, device int
}{
	dropCol("drop_reason"), dropCol("location"), dropCol("protocol"), dropCol("source_ip"), dropCol("source_port"),
	dropCol("destination_ip"), dropCol("destination_port"), dropCol("length"), dropCol("count"), dropCol("interface"),
}

func dropCol(name string) int { return packetdrop.Type.MustColumn(name) }

// drops makes dropped packets, in bursts that are spread over the span.
type drops struct {
	sheet
	r        *rand.Rand
	host     *host
	clock    clock
	end      int64
	count    int64 // events so far
	left     int64 // events
	next     int64 // time of the next one
	burst    burst
	byReason *choice
	every    int64 // one in so many goes to the planted address

	names, places []int32 // of the reasons, in the dictionaries
}

// burst is what the packets of a burst share.
type burst struct {
	left            int64
	reason, device  int32
	remote, command int32 // -1: no owner
	port            int64 // 0: another one for each packet
	length          int64
}

func newDrops(o Options, h *host, events int64) *drops {
	d := &drops{
		sheet: newSheet(packetdrop.Type), r: rand.New(rand.NewPCG(o.Seed, 3)), host: h,
		clock: newClock(o, events), end: o.End.UnixNano(), left: events, every: events / plantedDrops,
	}
	var weights []float64
	var names, places []string
	for _, reason := range reasons {
		weights = append(weights, reason.share)
		d.names = append(d.names, position(&names, reason.name))
		d.places = append(d.places, position(&places, reason.location))
	}
	d.byReason = newChoice(weights)
	k := dropColumn
	for column, values := range map[int][]string{
		event.ContainerID: h.containers, k.reason: names, k.location: places,
		k.protocol: {"tcp", "udp", "icmp", "ARP"}, k.sourceIP: h.ips, k.destinationIP: h.ips, k.device: {"eth0", "docker0", "eth1"},
	} {
		d.dictionary(column, values)
	}
	d.advance()
	return d
}

// advance goes to the next packet: of this burst, or the first of another one.
func (d *drops) advance() {
	if d.burst.left > 0 {
		d.next += 1 + int64(d.r.ExpFloat64()*meanGap)
	} else {
		d.newBurst()
		d.next = max(d.next+1, d.clock.at(float64(d.count)+d.r.Float64()))
	}
	d.next = min(d.next, d.end-1)
}

func (d *drops) newBurst() {
	r := d.r
	size := r.ExpFloat64() * r.ExpFloat64() * meanBurst // few are large
	d.burst = burst{
		left: min(1+int64(size), maxBurst), reason: d.byReason.draw(r), device: int32(r.IntN(20) / 16), remote: d.host.byAddress.draw(r),
		command: -1, length: []int64{40, 44, 52, 60, 84, 128, 576, 1500}[r.IntN(8)],
	}
	if r.Float64() < ownedShare {
		d.burst.command = d.host.byCommand.draw(r)
	}
	if r.Float64() < 0.7 {
		d.burst.port = d.host.ports[r.IntN(addresses)]
	}
}

// emit adds the next packet.
func (d *drops) emit() {
	b, r, k, h := &d.burst, d.r, &dropColumn, d.host
	reason := &reasons[b.reason]
	d.row(d.next)
	d.number(event.NetNS, hostNetNS)
	if b.command >= 0 {
		p := &h.commands[b.command]
		d.number(event.UID, p.uid)
		d.number(event.CgroupID, p.cgroup)
		d.number(event.NetNS, p.netns)
		if p.container >= 0 {
			d.text(event.ContainerID, p.container)
		}
	}
	d.text(k.reason, d.names[b.reason])
	d.text(k.location, d.places[b.reason])
	d.text(k.protocol, reason.protocol)
	d.text(k.device, b.device)
	length := b.length
	if r.Float64() < 0.25 {
		length = 40 + r.Int64N(1460)
	}
	d.number(k.length, length)
	d.number(k.count, 1)
	remote := b.remote
	if r.Float64() < 0.2 {
		remote = h.byAddress.draw(r)
	}
	d.endpoints(reason.protocol, remote, reason.outbound)
	d.count++
	d.left--
	b.left--
	d.advance()
}

// endpoints adds the addresses of a packet, those that it has.
func (d *drops) endpoints(protocol, remote int32, outbound bool) {
	k, r := &dropColumn, d.r
	source, destination := remote, int32(ownIPv4)
	if d.host.isIPv6(remote) {
		destination = ownIPv6
	}
	if outbound {
		source, destination = destination, source
	}
	if d.count%d.every == d.every/2 && d.count/d.every < plantedDrops {
		destination = plantedAddress
	} else if protocol == other {
		return
	}
	d.text(k.sourceIP, source)
	d.text(k.destinationIP, destination)
	if protocol != tcp && protocol != udp {
		return
	}
	d.number(k.sourcePort, 1024+r.Int64N(64000))
	port := d.burst.port
	if port == 0 {
		port = 1 + r.Int64N(65535)
	}
	d.number(k.destinationPort, port)
}

// position returns where a value stands in a list, after adding it if it is new.
func position(list *[]string, value string) int32 {
	i := slices.Index(*list, value)
	if i < 0 {
		i = len(*list)
		*list = append(*list, value)
	}
	return int32(i)
}
