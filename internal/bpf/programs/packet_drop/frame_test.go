package packetdrop_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherTest = 0x88b5 // IEEE 802: local experimental EtherType 1
)

// wire sends frames that no socket would send, from one end of a pair to the other.
type wire struct {
	near, far net.HardwareAddr
	socket    int
	device    int
}

func newWire(t *testing.T, a, b *bpftest.NetNS) *wire {
	t.Helper()
	w := new(wire)
	device := func(name string) (index int, address net.HardwareAddr) {
		found, err := net.InterfaceByName(name)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		return found.Index, found.HardwareAddr
	}
	b.Do(t, func() { _, w.far = device("v-b") })
	a.Do(t, func() {
		w.device, w.near = device("v-a")
		var err error
		if w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = unix.Close(w.socket) })
	return w
}

func (w *wire) send(t *testing.T, frame []byte) {
	t.Helper()
	if err := unix.Sendto(w.socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.device}); err != nil {
		t.Error(err)
	}
}

// frame puts a payload behind an Ethernet header.
func (w *wire) frame(etherType uint16, payload []byte) []byte {
	f := append(append([]byte{}, w.far...), w.near...)
	return append(binary.BigEndian.AppendUint16(f, etherType), payload...)
}

// packet is an IP packet with its header.
type packet struct {
	protocol            uint8
	source, destination string
	ttl                 uint8 // 0: 64
	payload             []byte
}

func (p packet) bytes() []byte {
	source, destination := netip.MustParseAddr(p.source), netip.MustParseAddr(p.destination)
	if p.ttl == 0 {
		p.ttl = 64
	}
	if source.Is6() {
		h := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(p.payload)))
		h = append(append(append(h, p.protocol, p.ttl), source.AsSlice()...), destination.AsSlice()...)
		return append(h, p.payload...)
	}
	h := make([]byte, 20)
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(p.payload)))
	h[8], h[9] = p.ttl, p.protocol
	copy(h[12:], source.AsSlice())
	copy(h[16:], destination.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, p.payload...)
}

func (p packet) etherType() uint16 {
	if netip.MustParseAddr(p.source).Is6() {
		return etherIPv6
	}
	return etherIPv4
}

// withChecksum puts the checksum of TCP, UDP or ICMPv6 (RFC 9293, 8200) at a
// place in the payload; wrong changes it.
func (p packet) withChecksum(at int, wrong uint16) packet {
	pseudo := append(netip.MustParseAddr(p.source).AsSlice(), netip.MustParseAddr(p.destination).AsSlice()...)
	pseudo = append(pseudo, 0, p.protocol)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(p.payload)))
	if p.protocol == unix.IPPROTO_ICMP {
		pseudo = nil
	}
	p.payload = append([]byte{}, p.payload...)
	binary.BigEndian.PutUint16(p.payload[at:], checksum(append(pseudo, p.payload...))^wrong)
	return p
}

func checksum(data []byte) uint16 {
	sum := uint32(0)
	for ; len(data) > 1; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		sum += uint32(data[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func udp(source, destination uint16, data string) []byte {
	h := binary.BigEndian.AppendUint16(nil, source)
	h = binary.BigEndian.AppendUint16(h, destination)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(data)))
	return append(append(h, 0, 0), data...)
}

const udpChecksum, tcpChecksum, icmpChecksum = 6, 16, 2 // where they are

func tcp(source, destination uint16, flags byte) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, source)
	binary.BigEndian.PutUint16(h[2:], destination)
	h[12], h[13] = 5<<4, flags
	return h
}

func icmp(kind byte) []byte { return []byte{kind, 0, 0, 0, 0, 1, 0, 1} }
