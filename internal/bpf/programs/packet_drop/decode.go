package packetdrop

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/event"
)

// Bits of enum known in bpf/include/packet_drop_packet.h.
const (
	knownProtocol = 1 << iota
	knownSource
	knownDestination
	knownPorts
)

// Names of enum attribution there, by its values; the first has none.
var attributions = []string{"", "socket", "receiving_socket", "connection"}

const (
	reasonEnum   = "skb_drop_reason"
	reasonPrefix = "SKB_DROP_REASON_"
)

var columns = struct {
	reason, location, protocol, sourceIP, sourcePort, destinationIP, destinationPort, device, length, count, duration, attribution int
}{
	Type.MustColumn("drop_reason"), Type.MustColumn("location"), Type.MustColumn("protocol"),
	Type.MustColumn("source_ip"), Type.MustColumn("source_port"), Type.MustColumn("destination_ip"), Type.MustColumn("destination_port"),
	Type.MustColumn("interface"), Type.MustColumn("length"), Type.MustColumn("count"), Type.MustColumn("duration_ns"), Type.MustColumn("attribution"),
}

// features tells whether the kernel says why it drops a packet, and whether it
// lets this process see where.
func features(host *bpf.Host) (map[string]bool, error) {
	names, err := host.EnumNames(reasonEnum)
	if err != nil {
		return nil, err
	}
	left, err := spared(host)
	return map[string]bool{
		"drop_reason": len(names) > 0, "location": len(host.Symbols.Ranges("tcp_v4_rcv")) > 0, "full_listen_queue": len(left) == 0,
	}, err
}

// spared leaves out the hook for SYNs that a full accept queue refuses where the tracepoint
// does not tell the place (before Linux 6.3), that hides its symbols, or has no name for it.
func spared(host *bpf.Host) ([]string, error) {
	arguments, err := host.TracepointArguments("consume_skb")
	if err != nil {
		return nil, err
	}
	names, err := host.EnumNames(reasonEnum)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name == reasonPrefix+"TCP_LISTEN_OVERFLOW" && arguments > 1 && len(host.Symbols.Ranges("tcp_rcv_state_process")) > 0 {
			return nil, nil
		}
	}
	return []string{"consume_skb"}, nil
}

// prepare tells the object what the running kernel calls the drops that are
// left out by rule, and whether it tells the receiving socket.
func prepare(spec *ebpf.CollectionSpec, host *bpf.Host) error {
	names, err := host.EnumNames(reasonEnum)
	if err != nil {
		return err
	}
	wanted := map[string]string{
		"QUEUE_PURGE": packetDropVarQueuePurge, "NOT_SPECIFIED": packetDropVarNotSpecified,
		"TCP_OLD_DATA": packetDropVarOldData, "TCP_OLD_SEQUENCE": packetDropVarOldSequence, "TCP_CLOSE": packetDropVarTcpClose,
		"TCP_RFC7323_PAWS": packetDropVarPaws, "TCP_RFC7323_PAWS_ACK": packetDropVarPawsAck, "TCP_RFC7323_TW_PAWS": packetDropVarTwPaws,
		"TCP_LISTEN_OVERFLOW": packetDropVarOverflow,
	}
	knowsPurge := false
	for value, name := range names {
		variable := wanted[strings.TrimPrefix(name, reasonPrefix)]
		if variable == "" {
			continue
		}
		knowsPurge = knowsPurge || variable == packetDropVarQueuePurge
		if err := spec.Variables[variable].Set(uint32(value)); err != nil {
			return fmt.Errorf("set number of %s: %w", name, err)
		}
	}
	arguments, err := host.TracepointArguments("kfree_skb")
	if err != nil {
		return err
	}
	if err := spec.Variables[packetDropVarHasRxSk].Set(arguments > 3); err != nil { // skb, location, reason, rx_sk
		return fmt.Errorf("set that there is rx_sk: %w", err)
	}
	receivers := places(host, "tcp_rcv_state_process", "tcp_v4_rcv", "tcp_v6_rcv")
	if err := spec.Variables[packetDropVarReceivers].Set(receivers); err != nil {
		return err
	}
	if err := spec.Variables[packetDropVarSynReceivers].Set(places(host, "tcp_rcv_state_process")); err != nil {
		return err
	}
	if err := spec.Variables[packetDropVarVsockReceivers].Set(places(host, "virtio_transport_recv_pkt", "virtio_transport_recv_connected")); err != nil {
		return err
	}
	if knowsPurge {
		return nil
	}
	return spec.Variables[packetDropVarPurgers].Set(places(host, "sk_stream_kill_queues"))
}

// places are those of the parts of functions; zeros stand for nowhere.
func places(host *bpf.Host, functions ...string) (all [6]packetDropPlace) {
	i := 0
	for _, function := range functions {
		for _, part := range host.Symbols.Ranges(function) {
			if i < len(all) {
				all[i] = packetDropPlace{Begin: part.From, End: part.Until}
				i++
			}
		}
	}
	return all
}

type decoder struct {
	host    *bpf.Host
	reasons map[uint64]string // empty: this kernel gives no reasons
	windows windows
}

func newDecoder(host *bpf.Host) bpf.Decoder {
	d := &decoder{host: host, reasons: map[uint64]string{}}
	// prepare has read the same names, so an error would have come there.
	names, _ := host.EnumNames(reasonEnum)
	for value, name := range names {
		d.reasons[value] = strings.TrimPrefix(strings.TrimPrefix(name, reasonPrefix), "SKB_")
	}
	return d
}

// Decode implements bpf.Decoder.
func (d *decoder) Decode(record []byte, b *event.Batch) error {
	if len(record) < int(unsafe.Sizeof(packetDropPacketDropEvent{})) {
		return fmt.Errorf("record of %d bytes is too short", len(record))
	}
	// The layout comes from the object's BTF; the reader's buffer is aligned.
	e := (*packetDropPacketDropEvent)(unsafe.Pointer(unsafe.SliceData(record)))
	d.append(&e.Drop, &e.Tally, b)
	return nil
}

// append adds an event: one drop, or several that are alike.
func (d *decoder) append(e *packetDropDrop, tally *packetDropTally, b *event.Batch) {
	b.Append(d.host.Clock.Wall(tally.FirstNs))
	if e.Netns != 0 {
		b.SetInt(event.NetNS, int64(e.Netns))
	}
	if e.Attribution != 0 {
		b.SetString(columns.attribution, attributions[e.Attribution])
		d.host.Names.SetUser(b, e.Uid)
		if e.CgroupId != 0 {
			d.host.Names.SetCgroup(b, e.CgroupId)
		}
	}
	if e.Process.Pid != 0 {
		b.SetBytes(event.Command, bpf.Text(&e.Command))
		d.host.Names.SetProcess(b, bpf.ProcessID{PID: e.Process.Pid, ExecID: e.Process.ExecId, StartNs: e.Process.StartNs})
	}
	if len(d.reasons) > 0 {
		b.SetString(columns.reason, d.reason(e.Reason))
	}
	if symbol := d.host.Symbols.Name(e.Location); symbol != "" {
		b.SetString(columns.location, symbol)
	}
	packet(e, b)
	if e.Known&knownPorts != 0 && tally.PortsDiffer == 0 {
		b.SetInt(columns.sourcePort, int64(tally.SourcePort))
	}
	if device := bpf.Text(&e.Interface); len(device) > 0 {
		b.SetBytes(columns.device, device)
	}
	b.SetInt(columns.length, int64(tally.Length))
	b.SetInt(columns.count, int64(tally.Count))
	if tally.Count > 1 {
		b.SetInt(columns.duration, max(0, int64(tally.LastNs-tally.FirstNs)))
	}
}

// reason names a reason; those of other subsystems (the upper 16 bits) are not
// in the enum and stay numbers.
func (d *decoder) reason(n uint32) string {
	name, known := d.reasons[uint64(n)]
	if !known {
		name = strconv.FormatUint(uint64(n), 10)
		d.reasons[uint64(n)] = name
	}
	return name
}

func packet(e *packetDropDrop, b *event.Batch) {
	if e.Known&knownProtocol != 0 {
		b.SetString(columns.protocol, protocolName(e.IpProtocol))
	} else if name := etherTypeName(e.EtherType); name != "" {
		b.SetString(columns.protocol, name)
	}
	if e.Known&knownSource != 0 {
		b.SetIP(columns.sourceIP, netip.AddrFrom16(e.Source.Ip))
	}
	if e.Known&knownDestination != 0 {
		b.SetIP(columns.destinationIP, netip.AddrFrom16(e.Destination.Ip))
	}
	if e.Known&knownPorts != 0 {
		b.SetInt(columns.destinationPort, int64(e.DestinationPort))
	}
}

// Names of IP protocols by their IANA numbers, in lower case.
var protocolNames = map[uint8]string{
	1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
	58: "icmpv6", 89: "ospf", 103: "pim", 112: "vrrp", 115: "l2tp", 132: "sctp", 136: "udplite",
}

func protocolName(n uint8) string {
	if name, known := protocolNames[n]; known {
		return name
	}
	return strconv.Itoa(int(n))
}

// etherTypeName names what is not IP by its IEEE 802 number. A packet that says
// it is IP and could not be read, or says nothing, has no protocol that is known.
func etherTypeName(n uint16) string {
	switch n {
	case 0, 0x0800, 0x86dd:
		return ""
	case 0x0806:
		return "arp"
	}
	return fmt.Sprintf("0x%04x", n)
}
