package event

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"math"
)

// CommunityID declares the field by which records of one flow are found in the
// data of other tools (Zeek, Suricata, Wireshark): version 1 with seed 0 of
// https://github.com/corelight/community-id-spec. It is a function of protocol
// and ends, whoever sent first. Where that is not known it is absent: so for
// ICMP, whose type and code are not recorded.
func CommunityID() Derived {
	return Derived{
		Column: Column{
			Name: "community_id", Kind: KindString, Form: `1:[A-Za-z0-9+/]{27}=`, Example: "1:wCb3OG7yAFWelaUydu0D+125CLM=",
			Description: "Community ID (version 1, seed 0) of protocol, addresses and ports, by which the same flow is found in the records of other tools; TCP, UDP and SCTP.",
		},
		From:   []string{"protocol", "source_ip", "source_port", "destination_ip", "destination_port"},
		Append: appendCommunityID,
	}
}

// Numbers of the protocols that have ports.
var withPorts = map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}

// end is an address, 4 or 16 bytes, and a port.
type end struct {
	ip   string
	port uint16
}

func appendCommunityID(dst []byte, row Row, from []int) ([]byte, bool) {
	name, _ := row.String(from[0])
	protocol, ok := withPorts[name]
	if !ok {
		return dst, false
	}
	source, ok := row.end(from[1], from[2])
	destination, known := row.end(from[3], from[4])
	if !ok || !known || len(source.ip) != len(destination.ip) {
		return dst, false
	}
	return communityID(dst, protocol, source, destination), true
}

func (r Row) end(ip, port int) (end, bool) {
	address, ok := r.String(ip)
	n, known := r.Int(port)
	return end{address, uint16(n)}, ok && known && n >= 0 && n <= math.MaxUint16
}

func communityID(dst []byte, protocol byte, a, b end) []byte {
	if b.ip < a.ip || b.ip == a.ip && b.port < a.port {
		a, b = b, a
	}
	input := make([]byte, 2, 40) // the seed
	input = append(append(input, a.ip...), b.ip...)
	input = append(input, protocol, 0)
	input = binary.BigEndian.AppendUint16(input, a.port)
	input = binary.BigEndian.AppendUint16(input, b.port)
	sum := sha1.Sum(input)
	return base64.StdEncoding.AppendEncode(append(dst, "1:"...), sum[:])
}
