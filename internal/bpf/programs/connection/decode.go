package connection

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/event"
)

// The numbers are those of the enums in bpf/include/connection.h.
var (
	states       = [...]string{1: "established", 2: "failed", 3: "closed", 4: "listening", 5: "stopped"}
	directions   = [...]string{1: "outbound", 2: "inbound"}
	attributions = [...]string{1: "connect", 2: "accept", 3: "listener", 4: "existing", 5: "datagram"}
	resetters    = [...]string{1: "local", 2: "remote"}
)

const (
	knownCode = 1 << iota
	knownDuration
	knownBytes
	knownTCP
	knownMessages

	knownOfEnd = knownDuration | knownBytes | knownTCP | knownMessages // see struct end_event
)

// attemptShift is where the attempt stands in the number of a connection id:
// above the cookie, which counts the sockets since boot.
const attemptShift = 40

var columns = struct {
	id, state, direction, protocol, sourceIP, sourcePort, destinationIP, destinationPort, returnCode, err,
	duration, sent, received, messagesSent, messagesReceived, retransmits, rtt, resetBy, attribution int
}{
	Type.MustColumn("connection_id"), Type.MustColumn("state"), Type.MustColumn("direction"), Type.MustColumn("protocol"),
	Type.MustColumn("source_ip"), Type.MustColumn("source_port"), Type.MustColumn("destination_ip"), Type.MustColumn("destination_port"),
	Type.MustColumn("return_code"), Type.MustColumn("error"),
	Type.MustColumn("duration_ns"), Type.MustColumn("bytes_sent"), Type.MustColumn("bytes_received"), Type.MustColumn("messages_sent"), Type.MustColumn("messages_received"), Type.MustColumn("retransmits"), Type.MustColumn("rtt_us"),
	Type.MustColumn("reset_by"), Type.MustColumn("attribution"),
}

type decoder struct{ host *bpf.Host }

func newDecoder(host *bpf.Host) bpf.Decoder { return &decoder{host} }

// Decode implements bpf.Decoder.
func (d *decoder) Decode(record []byte, b *event.Batch) error {
	if len(record) < int(unsafe.Sizeof(connectionConnectionEvent{})) {
		return fmt.Errorf("record of %d bytes is too short", len(record))
	}
	// The layout comes from the object's BTF; the reader's buffer is aligned.
	e := (*connectionConnectionEvent)(unsafe.Pointer(unsafe.SliceData(record)))
	if int(e.State) >= len(states) || int(e.Facts.Direction) >= len(directions) || int(e.Facts.Attribution) >= len(attributions) || int(e.Facts.ResetBy) >= len(resetters) {
		return fmt.Errorf("record with state %d, direction %d, attribution %d, reset by %d", e.State, e.Facts.Direction, e.Facts.Attribution, e.Facts.ResetBy)
	}
	ends := e.Known&knownOfEnd != 0
	if ends && len(record) < int(unsafe.Sizeof(connectionEndEvent{})) {
		return fmt.Errorf("record of an end of %d bytes is too short", len(record))
	}
	b.Append(d.host.Clock.Wall(e.TimeNs))
	d.owner(e, b)
	b.SetInt(event.NetNS, int64(e.Facts.Netns))
	b.SetID(columns.id, d.host.Boot, int64(e.Facts.Cookie|uint64(e.Facts.Attempt)<<attemptShift))
	b.SetString(columns.state, states[e.State])
	listens := e.Facts.Direction == 0
	if !listens {
		b.SetString(columns.direction, directions[e.Facts.Direction])
	}
	protocol := "tcp"
	if e.Facts.Protocol == unix.IPPROTO_UDP {
		protocol = "udp"
	}
	b.SetString(columns.protocol, protocol)
	if listens {
		b.SetIP(columns.destinationIP, netip.AddrFrom16(e.Facts.Ends.Local.Ip).Unmap())
		b.SetInt(columns.destinationPort, int64(e.Facts.Ends.LocalPort))
	} else {
		endpoints(e, b)
	}
	if e.Known&knownCode != 0 {
		b.SetInt(columns.returnCode, int64(e.ReturnCode))
		if e.ReturnCode < 0 {
			b.SetString(columns.err, unix.ErrnoName(unix.Errno(-e.ReturnCode)))
		}
	}
	if e.Facts.ResetBy != 0 {
		b.SetString(columns.resetBy, resetters[e.Facts.ResetBy])
	}
	if ends {
		end((*connectionEndEvent)(unsafe.Pointer(e)), b)
	}
	return nil
}

// end sets what only an end tells.
func end(e *connectionEndEvent, b *event.Batch) {
	if e.Event.Known&knownDuration != 0 {
		b.SetInt(columns.duration, int64(e.DurationNs))
	}
	if e.Event.Known&knownBytes != 0 {
		b.SetInt(columns.sent, int64(e.Traffic.BytesSent))
		b.SetInt(columns.received, int64(e.Traffic.BytesReceived))
	}
	if e.Event.Known&knownMessages != 0 {
		b.SetInt(columns.messagesSent, int64(e.Traffic.MessagesSent))
		b.SetInt(columns.messagesReceived, int64(e.Traffic.MessagesReceived))
	}
	if e.Event.Known&knownTCP != 0 {
		b.SetInt(columns.retransmits, int64(e.Retransmits))
		if e.RttUs != 0 { // 0: it was never measured
			b.SetInt(columns.rtt, int64(e.RttUs))
		}
	}
}

func (d *decoder) owner(e *connectionConnectionEvent, b *event.Batch) {
	process := bpf.ProcessID{PID: e.Facts.Owner.Process.Pid, ExecID: e.Facts.Owner.Process.ExecId, StartNs: e.Facts.Owner.Process.StartNs}
	// The process that called listen() may have left the socket to a child and
	// ended; then it has no part in what nobody accepted.
	if e.Facts.Attribution == 0 || (attributions[e.Facts.Attribution] == "listener" && directions[e.Facts.Direction] == "inbound" && !process.Alive()) {
		return
	}
	b.SetString(columns.attribution, attributions[e.Facts.Attribution])
	if e.Facts.Owner.Process.Pid == 0 {
		return // it existed, and several processes held it
	}
	b.SetBytes(event.Command, bpf.Text(&e.Facts.Owner.Command))
	d.host.Names.SetProcess(b, process)
	d.host.Names.SetUser(b, e.Facts.Owner.Uid)
	d.host.Names.SetCgroup(b, e.Facts.Owner.CgroupId)
}

// endpoints gives source and destination: the source opened the connection.
func endpoints(e *connectionConnectionEvent, b *event.Batch) {
	source, sourcePort := netip.AddrFrom16(e.Facts.Ends.Local.Ip), e.Facts.Ends.LocalPort
	destination, destinationPort := netip.AddrFrom16(e.Facts.Ends.Remote.Ip), e.Facts.Ends.RemotePort
	if directions[e.Facts.Direction] == "inbound" {
		source, sourcePort, destination, destinationPort = destination, destinationPort, source, sourcePort
	}
	setEnd(b, columns.sourceIP, columns.sourcePort, source, sourcePort)
	setEnd(b, columns.destinationIP, columns.destinationPort, destination, destinationPort)
}

// setEnd leaves out what the socket did not have yet: the unspecified address, port 0.
func setEnd(b *event.Batch, ipColumn, portColumn int, ip netip.Addr, port uint16) {
	if ip = ip.Unmap(); !ip.IsUnspecified() {
		b.SetIP(ipColumn, ip)
	}
	if port != 0 {
		b.SetInt(portColumn, int64(port))
	}
}
