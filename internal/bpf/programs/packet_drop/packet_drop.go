// Package packetdrop is the monitor of packets that the kernel drops. How it
// sees them, and which are left out, is told in bpf/packet_drop.c.
package packetdrop

import (
	"math"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/event"
)

// Monitor declares the monitor.
var Monitor = &bpf.Monitor{
	Type:       Type,
	Enabled:    true,
	MaxAge:     "3d",
	MaxSize:    "500MiB",
	Needs:      "Linux 5.10 or later with BTF (CONFIG_DEBUG_INFO_BTF)",
	Features:   features,
	Load:       loadPacketDrop,
	Conditions: []string{"command", "uid", "cgroup", "ip", "loopback", "port", "interface"},
	Spared:     spared,
	Prepare:    prepare,
	Shares:     []string{packetDropMapConnections, packetDropMapMoreConnections, packetDropMapUdpConnections, packetDropMapConnectionsByEnds, packetDropMapUdpByEnds, packetDropMapListeningPorts},
	NewDecoder: newDecoder,
}

// Type declares the events: one for each dropped packet, or for several like
// ones in a flood.
var Type = event.MustType(event.Type{
	Name:       "packet_drop",
	Collection: "packet_drops",
	Summary:    "Packets that the kernel dropped, with its own reason and the place in the kernel.",
	Breakdown:  "drop_reason",
	Top:        []string{"command", "destination_ip"},
	Details:    []string{"location", "interface", "count", "length", "container_name", "k8s_pod"},
	Weight:     "count",
	Derived:    []event.Derived{event.CommunityID()},
	Ends: &event.Ends{
		Protocol: "protocol", Source: [2]string{"source_ip", "source_port"}, Destination: [2]string{"destination_ip", "destination_port"},
	},
	Columns: []event.Column{
		{Name: "drop_reason", Kind: event.KindString, Form: `[A-Z0-9_]+`, Distinct: true, Description: "The running kernel's own name of the reason, without SKB_DROP_REASON_; a number where it has no name. Absent on kernels without reasons (before 5.17).", Example: "NETFILTER_DROP"},
		{Name: "location", Kind: event.KindString, Distinct: true, Description: "Kernel function that dropped it.", Example: "nf_hook_slow"},
		{Name: "protocol", Kind: event.KindString, Description: "Protocol in the packet: tcp, udp, icmp ..., the number of an IP protocol without a name, or the EtherType of what is not IP.", Example: "udp"},
		{Name: "source_ip", Kind: event.KindIP, Distinct: true, Description: "Source address in the packet.", Example: "10.0.0.7"},
		{Name: "source_port", Kind: event.KindInt, Most: event.MaxPort, Description: "Source port in the packet.", Example: "49152"},
		{Name: "destination_ip", Kind: event.KindIP, Distinct: true, Description: "Destination address in the packet.", Example: "192.0.2.10"},
		{Name: "destination_port", Kind: event.KindInt, Most: event.MaxPort, Distinct: true, Description: "Destination port in the packet.", Example: "53"},
		{Name: "interface", Kind: event.KindString, Distinct: true, Description: "Network interface it came in on, or was to leave by.", Example: "eth0"},
		{Name: "length", Kind: event.KindInt, Most: math.MaxInt64, Unit: "bytes", Sum: true, Description: "Size of the IP packet with its header, of all packets of the event together; of what is not IP, what the kernel held.", Example: "84"},
		{Name: "count", Kind: event.KindInt, Most: math.MaxInt64, Description: "Dropped packets that the event stands for: 1, or more when like drops came in a flood. What differs between them is left out. Summaries count packets.", Example: "1"},
		{Name: "duration_ns", Kind: event.KindInt, Most: math.MaxInt64, Unit: "ns", Description: "From the first of these packets to the last, at time plus duration_ns; absent on 1.", Example: "998000000"},
		{Name: "attribution", Kind: event.KindString, Values: attributions[1:], Description: "How the owner is known: from the socket that the packet belonged to, from the one that was to receive it, or, where the packet had none yet, from the open connection with these addresses and ports. The process is that of the connection, or the one that called listen(); uid and cgroup_id alone are there where the socket has none that is known. Absent: not known.", Example: "socket"},
	},
})
