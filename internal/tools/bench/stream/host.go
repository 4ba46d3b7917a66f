package stream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

const (
	commands  = 200
	addresses = 20_000
	hostNetNS = 4026531840
	bootScope = "6f1c2a90"
	ipv6Share = 0.08 // of the addresses
)

// Addresses of the host itself stand in the table behind the others.
const (
	ownIPv4 = addresses + iota
	ownIPv6
	plantedAddress
	firstContainer // one for each container from here on
)

// plantedCommandOnly is the command of the planted process; it stands in the
// table behind the others.
const plantedCommandOnly = commands

// host is what the events speak of.
type host struct {
	commands   []process
	names      []string // of the commands
	containers []string // ids
	ips        []string // raw, as batches hold them
	roundTrip  []int64
	ports      []int64 // that each address listens at
	byCommand  *choice
	byAddress  *choice
}

// roundTrips are those of the addresses, in us.
var roundTrips = logNormal(9000, 1.3)

// process is a command with the processes that run it.
type process struct {
	uid, cgroup, netns int64
	container          int32 // -1: none
	source             int32 // address that it connects from
	listens            int64 // port
	workers            uint64
	lifetime           int64 // ns until a worker is another process; 0: each few connections have their own
}

var (
	services = []string{"nginx", "postgres", "sshd", "java", "node", "redis-server", "envoy", "kubelet", "haproxy", "python3"}
	tools    = []string{"curl", "dig", "git-remote-http", "apt-get"}
)

// commandName: the fourteen that everyone knows, then made ones.
func commandName(i int) string {
	switch {
	case i < len(services):
		return services[i]
	case i < len(services)+len(tools):
		return tools[i-len(services)]
	case i == plantedCommandOnly:
		return "nightly-backup"
	}
	return fmt.Sprintf("service-%03d", i)
}

func newHost(r *rand.Rand) *host {
	h := &host{byCommand: zipf(commands, 1.1), byAddress: zipf(addresses, 1.05)}
	h.makeAddresses(r)
	for i := range commands + 1 {
		h.names = append(h.names, commandName(i))
		h.commands = append(h.commands, h.makeCommand(r, i))
	}
	return h
}

func (h *host) makeAddresses(r *rand.Rand) {
	taken := make(map[string]bool)
	for len(h.ips) < addresses {
		ip := netip.AddrFrom4([4]byte{byte(1 + r.IntN(200)), byte(r.IntN(256)), byte(r.IntN(256)), byte(1 + r.IntN(254))})
		if r.Float64() < ipv6Share {
			raw := [16]byte{0x20, 0x01, 0x0d, 0xb8}
			for i := 4; i < len(raw); i++ {
				raw[i] = byte(r.IntN(256))
			}
			ip = netip.AddrFrom16(raw)
		}
		if raw := string(ip.AsSlice()); !taken[raw] && ip != plantedIP {
			taken[raw] = true
			h.addAddress(r, ip)
		}
	}
	for _, own := range []netip.Addr{ownIPv4: netip.AddrFrom4([4]byte{10, 0, 0, 7}), ownIPv6: netip.MustParseAddr("fd00::7"), plantedAddress: plantedIP}[addresses:] {
		h.addAddress(r, own)
	}
}

func (h *host) addAddress(r *rand.Rand, ip netip.Addr) {
	ports := []int64{443, 443, 443, 443, 443, 80, 5432, 6379, 9092, 53}
	h.ips = append(h.ips, string(ip.AsSlice()))
	h.ports = append(h.ports, ports[r.IntN(len(ports))])
	h.roundTrip = append(h.roundTrip, roundTrips.draw(r))
}

func (h *host) isIPv6(address int32) bool { return len(h.ips[address]) == 16 }

func (h *host) makeCommand(r *rand.Rand, i int) process {
	p := process{
		uid: int64(1000 + r.IntN(30)), cgroup: int64(5000 + 7*i), netns: hostNetNS, container: -1, source: ownIPv4,
		listens: int64(8000 + i), workers: uint64(1 + r.IntN(8)), lifetime: int64(6+r.IntN(90)) * int64(time.Hour),
	}
	if i < 3 {
		p.uid, p.listens = int64(33*i), []int64{443, 5432, 22}[i]
	}
	if r.Float64() < 0.4 {
		p.container, p.netns = int32(len(h.containers)), hostNetNS+300+int64(i)
		p.source = int32(len(h.ips))
		h.containers = append(h.containers, containerID(r))
		h.addAddress(r, netip.AddrFrom4([4]byte{172, 17, byte(i / 250), byte(2 + i%250)}))
	}
	if i >= len(services) && (i < len(services)+len(tools) || i%9 == 8) {
		p.lifetime = 0
	}
	return p
}

func containerID(r *rand.Rand) string {
	var id strings.Builder
	for range 4 {
		fmt.Fprintf(&id, "%016x", r.Uint64())
	}
	return id.String()
}
