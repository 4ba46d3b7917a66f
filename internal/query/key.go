package query

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
)

// defaultIPv6Bits is the network of an IPv6 address where only the length for
// IPv4 is given: what one link or one customer has.
const defaultIPv6Bits = 64

// key is one of the things that events are grouped by: a column, the networks of
// a column of addresses ("destination_ip/24", "destination_ip/24/48"), or
// the time in steps of the interval.
type key struct {
	column   int
	networks *networks // nil: the values as they are
}

// networks are the lengths of the prefixes of IPv4 and of IPv6 addresses.
type networks struct{ ipv4, ipv6 int }

// parseKey reads a key. The error has no name: the caller knows the parameter.
func parseKey(t *event.Type, text string) (key, *ParamError) {
	name, lengths, isNetwork := strings.Cut(text, "/")
	at, ok := t.Column(name)
	if !ok {
		return key{}, &ParamError{Value: text, Reason: noColumn([]*event.Type{t}, name)}
	}
	if !isNetwork {
		return key{column: at}, nil
	}
	if t.Columns[at].Kind != event.KindIP {
		return key{}, &ParamError{Value: text, Reason: "asks for networks of a column that has no addresses"}
	}
	first, second, both := strings.Cut(lengths, "/")
	if !both {
		second = strconv.Itoa(defaultIPv6Bits)
	}
	ipv4, err4 := strconv.ParseUint(first, 10, 8)
	ipv6, err6 := strconv.ParseUint(second, 10, 8)
	if err4 != nil || err6 != nil || ipv4 > 32 || ipv6 > 128 {
		return key{}, &ParamError{Value: text, Reason: "is no network: write " + name + "/24 for IPv4 by /24 and IPv6 by /64, or " + name + "/24/48 to choose both (at most /32/128)"}
	}
	return key{at, &networks{int(ipv4), int(ipv6)}}, nil
}

// mask returns the first address of the network that one is in, both as
// batches hold them.
func (n *networks) mask(address string) string {
	p, ok := n.prefix(address)
	if !ok {
		return address
	}
	return string(p.Masked().Addr().AsSlice())
}

func (n *networks) prefix(address string) (netip.Prefix, bool) {
	ip, ok := netip.AddrFromSlice([]byte(address))
	bits := n.ipv4
	if ip.Is6() {
		bits = n.ipv6
	}
	return netip.PrefixFrom(ip, bits), ok
}

// groupsByTime tells whether time is among the keys.
func (q Summary) groupsByTime() bool {
	for _, text := range q.GroupBy {
		if text == timeColumn {
			return true
		}
	}
	return false
}
