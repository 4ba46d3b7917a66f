package packetdrop_test

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

const (
	flagsOfTCP = 13 // where they are
	flagRST    = 0x04
	flagACK    = 0x10
)

// listen returns a socket that gets all frames on v-b in a namespace.
func listen(t *testing.T, b *bpftest.NetNS) int {
	t.Helper()
	socket := -1
	b.Do(t, func() {
		device, err := net.InterfaceByName("v-b")
		if err == nil {
			all := uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00) // in network order
			socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			if err == nil {
				err = unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { _ = unix.Close(socket) })
	return socket
}

// take returns the first segment to port 7001 that came in with these flags and so
// much data.
func take(t *testing.T, socket int, source, destination string, flags byte, data string) packet {
	t.Helper()
	header := 14 + len(packet{source: source, destination: destination}.bytes())
	frame := make([]byte, 2000)
	for {
		n, err := unix.Read(socket, frame)
		if err != nil {
			t.Fatalf("no segment with %q: %v", data, err)
		}
		if n < header+20 || binary.BigEndian.Uint16(frame[header+2:]) != 7001 || frame[header+flagsOfTCP]&^0x08 != flags {
			continue
		}
		segment := append([]byte{}, frame[header:n]...)
		if string(segment[segment[12]>>4*4:]) == data {
			return packet{protocol: unix.IPPROTO_TCP, source: source, destination: destination, payload: segment}
		}
	}
}

// changed returns the segment with other flags and a sequence number that is higher.
func (p packet) changed(flags byte, by uint32) packet {
	p.payload = append([]byte{}, p.payload...)
	p.payload[flagsOfTCP] = flags
	binary.BigEndian.PutUint32(p.payload[4:], binary.BigEndian.Uint32(p.payload[4:])+by)
	binary.BigEndian.PutUint16(p.payload[tcpChecksum:], 0)
	return p.withChecksum(tcpChecksum, 0)
}

// A segment that a connection does not take is a drop, but for what it has had before:
// each of these is one of the connection's own, which comes once more or was changed.
func TestSegmentsOfBefore(t *testing.T) {
	const each = 20
	for _, test := range ends {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			w := newWire(t, a, b)
			r := bpftest.Start(t, packetdrop.Monitor)
			if r.Lacks(t, "drop_reason") { // then TCP drops without passing the tracepoint
				return
			}
			socket := listen(t, b)
			l := connect(t, a, b, test.network, net.JoinHostPort(test.far, "7001"))
			greeting := take(t, socket, test.near, test.far, flagACK, "") // the end of the handshake
			l.exchange(t, "first")
			first := take(t, socket, test.near, test.far, flagACK, "first")
			time.Sleep(50 * time.Millisecond) // so that the timestamps of what follows differ
			l.exchange(t, "second")
			second := take(t, socket, test.near, test.far, flagACK, "second")
			arguments, err := bpftest.NewHost(t).TracepointArguments("kfree_skb")
			if err != nil {
				t.Fatal(err)
			}
			old := "TCP_OLD_SEQUENCE"
			if !hasReason(t, old) {
				old = "TCP_INVALID_SEQUENCE"
			}
			for _, segment := range []struct {
				name   string
				packet packet
				reason string
				noLoss bool
			}{
				{"an acknowledgement that data has overtaken", greeting.changed(flagACK, 0), "TCP_RFC7323_PAWS", hasReason(t, "TCP_RFC7323_PAWS_ACK") || arguments > 3},
				{"data with a time of before", first.changed(flagACK, 0), "TCP_RFC7323_PAWS", false},
				{"data of before", second.changed(flagACK, 0), "TCP_OLD_DATA", true},
				{"data of long before", second.changed(flagACK, 1<<32-100), old, hasReason(t, "TCP_OLD_SEQUENCE")},
				{"a reset of before", second.changed(flagRST|flagACK, 1<<32-100), old, false},
				{"data beyond the window", second.changed(flagACK, 1<<30), "TCP_INVALID_SEQUENCE", false},
			} {
				was := dropsOfPort(t, r, "7001", a, b)
				before := r.Status().Filtered[bpf.FilteredRule]
				frame := w.frame(segment.packet.etherType(), segment.packet.bytes())
				for range each {
					w.send(t, frame)
				}
				is := dropsOfPort(t, r, "7001", a, b)
				filtered := int(r.Status().Filtered[bpf.FilteredRule] - before)
				want := bpftest.Event{"drop_reason": segment.reason, "protocol": "tcp", "source_ip": test.near, "destination_ip": test.far, "destination_port": "7001", "interface": "v-b"}
				wanted := each
				if segment.noLoss {
					wanted = 0
				}
				told, all := packets(is, want)-packets(was, want), packets(is, nil)-packets(was, nil)
				if told != wanted || all != wanted || filtered < each-wanted {
					t.Errorf("%s: %d told with %s and %d in all, want %d of %d; %d filtered; all: %v", segment.name, told, segment.reason, all, wanted, each, filtered, is)
				}
			}
			l.exchange(t, "third") // it lives
		})
	}
}
