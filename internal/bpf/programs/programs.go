// Package programs is the list of monitors.
package programs

import (
	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// All lists the monitors, in the order in which they are shown.
var All = []*bpf.Monitor{
	connection.Monitor,
	packetdrop.Monitor,
}
