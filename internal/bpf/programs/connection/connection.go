// Package connection is the monitor of TCP connections and of the sockets that
// listen for them, of connected UDP sockets and of what UDP sockets exchange
// without connect(). How it sees them is told in bpf/connection.c.
package connection

import (
	"math"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/event"
)

// Monitor declares the monitor.
var Monitor = &bpf.Monitor{
	Type:    Type,
	Enabled: true,
	Needs:   "Linux 5.10 or later with BTF (CONFIG_DEBUG_INFO_BTF), tracefs, and for UDP a cgroup2 mount",
	Load:    loadConnection,
	Optional: map[string]string{
		connectionProgConnect4:            "udp_close",
		connectionProgConnect6:            "udp_close",
		connectionProgSockRelease:         "udp_close",
		connectionProgSockSendLength:      featureUDPBytes,
		connectionProgSockRecvLength:      featureUDPBytes,
		connectionProgSendmsg4:            featureUDPFlows,
		connectionProgSendmsg6:            featureUDPFlows,
		connectionProgRecvmsg4:            featureUDPFlows,
		connectionProgRecvmsg6:            featureUDPFlows,
		connectionProgIdleFlows:           featureUDPFlows,
		connectionProgIoUringComplete:     featureURing,
		connectionProgIoUringConnected:    featureURing,
		connectionProgExistingListeners:   featureExisting,
		connectionProgExistingConnections: featureExisting,
		connectionProgExistingTold:        featureExisting,
	},
	Prerequisites: map[string]string{featureUDPFlows: featureUDPBytes},
	Conditions:    []string{"command", "uid", "cgroup", "ip", "loopback", "port"},
	HasOwnAPI:     true,
	HasUDPIdle:    true,
	Features:      features,
	Spared:        spared,
	Prepare:       prepare,
	Iterators:     []string{connectionProgExistingListeners, connectionProgExistingConnections, connectionProgExistingTold},
	Shares:        []string{connectionMapConnections, connectionMapMoreConnections, connectionMapCrowd, connectionMapUdpConnections, connectionMapConnectionsByEnds, connectionMapUdpByEnds, connectionMapListeningPorts},
	Sweeps:        map[string]string{connectionProgIdleFlows: connectionMapFlows},
	NewDecoder:    newDecoder,
}

const (
	featureUDPBytes = "udp_bytes"
	featureUDPFlows = "udp_flows"
	featureExisting = "existing_connections"
	// featureExistingUDP needs a cookie of a socket that has none yet.
	featureExistingUDP = "existing_udp"
	featureURing       = "io_uring_accept"
	featureMultishot   = "io_uring_multishot"
)

// Type declares the events: one when the outcome of a connection is known, and
// one when it ends; and the same of a socket that listens.
var Type = event.MustType(event.Type{
	Name:       "connection",
	Collection: "connections",
	Summary:    "TCP connections, connected UDP sockets and UDP flows without connect: opened, failed and closed, with the process that owns them; and the TCP sockets that listen.",
	Breakdown:  "state",
	Failures:   []string{"failed"},
	Top:        []string{"command", "destination_ip"},
	Details:    []string{"direction", "error", "duration_ns", "bytes_sent", "bytes_received", "retransmits", "reset_by", "container_name", "k8s_pod"},
	Derived:    []event.Derived{event.CommunityID()},
	Life: &event.Life{
		ID:       "connection_id",
		Begins:   event.Mark{Column: "state", Values: []string{"established", "listening"}},
		Ends:     event.Mark{Column: "state", Values: []string{"closed", "stopped"}},
		Found:    event.Mark{Column: "attribution", Values: []string{"existing"}},
		Duration: "duration_ns",
		Attempt:  3 * time.Minute, // connect() tries for 127 s by default (tcp_syn_retries)
	},
	Ends: &event.Ends{
		Protocol: "protocol", Source: [2]string{"source_ip", "source_port"}, Destination: [2]string{"destination_ip", "destination_port"},
	},
	Columns: []event.Column{
		{Name: "connection_id", Kind: event.KindID, Description: "The same for all events of one connection, or of one socket that listens; unique over reboots.", Example: "6f1c2a90-1a2b"},
		{Name: "state", Kind: event.KindString, Values: []string{"established", "failed", "closed", "listening", "stopped"}, Description: "What became of it: established or failed when the outcome is known, closed when it ends. Of a TCP socket that waits for connections: listening when listen() has succeeded, stopped when it listens no more.", Example: "established"},
		{Name: "direction", Kind: event.KindString, Values: []string{"outbound", "inbound"}, Description: "Who opened it: this host (outbound) or the other side (inbound). Absent of a socket that listens.", Example: "outbound"},
		{Name: "protocol", Kind: event.KindString, Values: []string{"tcp", "udp"}, Description: "Protocol of the socket; udp is a connected UDP socket or, with attribution datagram, what a process exchanged with one peer over a socket that is not connected to it.", Example: "tcp"},
		{Name: "source_ip", Kind: event.KindIP, Distinct: true, Description: "Address of the side that opened it. Absent of a socket that listens.", Example: "10.0.0.7"},
		{Name: "source_port", Kind: event.KindInt, Most: event.MaxPort, Description: "Port of the side that opened it. Absent of a socket that listens.", Example: "49152"},
		{Name: "destination_ip", Kind: event.KindIP, Distinct: true, Description: "Address of the side that was connected to; of a socket that listens, its own: 0.0.0.0 or :: if it listens on all.", Example: "192.0.2.10"},
		{Name: "destination_port", Kind: event.KindInt, Most: event.MaxPort, Distinct: true, Description: "Port of the side that was connected to, or that listens.", Example: "443"},
		{Name: "return_code", Kind: event.KindInt, Description: "0 or the negative errno of the outcome; on closed (TCP), of the end: 0 also when this side gave up (see reset_by). Absent on failed: the process gave up before there was an outcome.", Example: "-111"},
		{Name: "error", Kind: event.KindString, Form: `[A-Z0-9_]+`, Description: "Name of that errno.", Example: "ECONNREFUSED"},
		{Name: "duration_ns", Kind: event.KindInt, Most: math.MaxInt64, Unit: "ns", Description: "From established to closed, of a UDP flow from the first to the last datagram; on closed. On stopped, for how long it listened. Absent if it was established, or listened, before the monitor started.", Example: "1532000"},
		{Name: "bytes_sent", Kind: event.KindInt, Most: math.MaxInt64, Unit: "bytes", Sum: true, Description: "Payload this host's socket sent, retransmissions not counted again; on closed. UDP: of all datagrams to the peer; absent if it was connected before the monitor started.", Example: "512"},
		{Name: "bytes_received", Kind: event.KindInt, Most: math.MaxInt64, Unit: "bytes", Sum: true, Description: "Payload this host's socket received; on closed. UDP: of all datagrams from the peer; absent if it was connected before the monitor started.", Example: "20480"},
		{Name: "messages_sent", Kind: event.KindInt, Most: math.MaxInt64, Sum: true, Description: "Messages this host's socket sent: datagrams, but several are one if the process leaves it to the kernel to cut them (UDP_SEGMENT); UDP, on closed.", Example: "3"},
		{Name: "messages_received", Kind: event.KindInt, Most: math.MaxInt64, Sum: true, Description: "Messages this host's socket received (several datagrams are one with UDP_GRO); UDP, on closed.", Example: "3"},
		{Name: "retransmits", Kind: event.KindInt, Most: math.MaxInt64, Sum: true, Description: "Segments that were sent again; TCP, on closed.", Example: "0"},
		{Name: "rtt_us", Kind: event.KindInt, Most: math.MaxInt64, Unit: "us", Description: "Smoothed round trip time at the end, if it was measured; TCP, on closed.", Example: "187"},
		{Name: "reset_by", Kind: event.KindString, Values: []string{"local", "remote"}, Description: "Who ended it by a reset: this host (local) or the other side (remote); TCP. Absent: nobody did, or it is not known.", Example: "remote"},
		{Name: "attribution", Kind: event.KindString, Values: []string{"connect", "accept", "listener", "existing", "datagram"}, Description: "How the owner is known: it connected, it accepted, it listened (of a connection: and nobody accepted), it sent or received the datagrams, or (existing) the connection, or the listening socket, was there when the monitor started, and it held the socket; the time is then that of the start, and the process is absent where several held it. Absent: the owner is not known.", Example: "connect"},
	},
})
