package block_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// connectionType has the columns of the real one.
var connectionType = event.MustType(event.Type{
	Name: "connection", Collection: "connections", Summary: "Connections.",
	Breakdown: "state", Top: []string{"command", "destination_ip"},
	Columns: []event.Column{
		{Name: "connection_id", Kind: event.KindID, Description: "."},
		{Name: "state", Kind: event.KindString, Values: []string{"established", "failed", "closed"}, Description: "."},
		{Name: "direction", Kind: event.KindString, Description: "."},
		{Name: "protocol", Kind: event.KindString, Description: "."},
		{Name: "source_ip", Kind: event.KindIP, Distinct: true, Description: "."},
		{Name: "source_port", Kind: event.KindInt, Description: "."},
		{Name: "destination_ip", Kind: event.KindIP, Distinct: true, Description: "."},
		{Name: "destination_port", Kind: event.KindInt, Distinct: true, Description: "."},
		{Name: "return_code", Kind: event.KindInt, Description: "."},
		{Name: "error", Kind: event.KindString, Description: "."},
		{Name: "duration_ns", Kind: event.KindInt, Description: "."},
		{Name: "bytes_sent", Kind: event.KindInt, Sum: true, Description: "."},
		{Name: "bytes_received", Kind: event.KindInt, Sum: true, Description: "."},
		{Name: "retransmits", Kind: event.KindInt, Sum: true, Description: "."},
		{Name: "rtt_us", Kind: event.KindInt, Description: "."},
		{Name: "attribution", Kind: event.KindString, Description: "."},
	},
})

var (
	colID, colState, colDirection, colProtocol = column("connection_id"), column("state"), column("direction"), column("protocol")
	colSourceIP, colSourcePort                 = column("source_ip"), column("source_port")
	colDestinationIP, colDestinationPort       = column("destination_ip"), column("destination_port")
	colReturnCode, colError                    = column("return_code"), column("error")
	colDuration, colSent, colReceived          = column("duration_ns"), column("bytes_sent"), column("bytes_received")
	colRetransmits, colRTT, colAttribution     = column("retransmits"), column("rtt_us"), column("attribution")
)

func column(name string) int { return connectionType.MustColumn(name) }

// host makes the stream of a busy host: 200 commands and 20,000 addresses by
// Zipf, 60,000 events an hour, most connections seen opening and closing.
type host struct {
	r                   *rand.Rand
	commands, addresses *rand.Zipf
	cookie, nextPID     int64
	now                 float64
	processes           map[uint64]int64 // the present pid of commands that are started again and again
}

type connection struct {
	time    int64
	closed  bool
	id, pid int64
	command uint64
	inbound bool
	failed  bool
	remote  uint64
	port    int64
}

func newHost(seed uint64) *host {
	r := rand.New(rand.NewPCG(seed, 1))
	return &host{
		r: r, commands: rand.NewZipf(r, 1.2, 3, 199), addresses: rand.NewZipf(r, 1.1, 10, 19_999),
		cookie: 0x1a2b3, nextPID: 40_000, now: 1.795e18, processes: map[uint64]int64{},
	}
}

func (h *host) logNormal(median, sigma float64) int64 {
	return int64(median * math.Exp(sigma*h.r.NormFloat64()))
}

// batch makes so many events of one type, sorted by time.
func (h *host) batch(events int) *event.Batch {
	var all []connection
	for len(all) < events+events/8 {
		h.now += h.r.ExpFloat64() * 3600e9 / 31_000
		c := h.open()
		all = append(all, c)
		if !c.failed {
			c.closed = true
			c.time += h.logNormal(200e6, 1.8)
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b connection) int { return cmp.Compare(a.time, b.time) })
	b := event.NewBatch(connectionType, events)
	for _, c := range all[:events] {
		h.add(b, c)
	}
	return b
}

func (h *host) open() connection {
	h.cookie += 1 + int64(h.r.ExpFloat64()*0.3)
	c := connection{
		time: int64(h.now), id: h.cookie, command: h.commands.Uint64(), inbound: h.r.Float64() < 0.3,
		failed: h.r.Float64() < 0.04, remote: h.addresses.Uint64(), port: 32768 + h.r.Int64N(28232),
	}
	c.pid = 1000 + int64(c.command)*13 + h.r.Int64N(1+int64(c.command)%4)
	if c.command%5 == 3 { // short-lived processes
		if h.processes[c.command] == 0 || h.r.IntN(30) == 0 {
			h.nextPID += h.r.Int64N(20)
			h.processes[c.command] = h.nextPID
		}
		c.pid = h.processes[c.command]
	}
	return c
}

func (h *host) add(b *event.Batch, c connection) {
	cgroup := c.command % 60
	b.Append(c.time)
	b.SetInt(event.PID, c.pid)
	b.SetString(event.Command, fmt.Sprintf("worker-%d", c.command))
	b.SetInt(event.UID, int64(cgroup%9)*1000)
	b.SetInt(event.CgroupID, 5000+int64(cgroup)*97)
	b.SetInt(event.NetNS, 4026531840)
	if cgroup%2 == 1 {
		b.SetString(event.ContainerID, fmt.Sprintf("%012x", (cgroup+1)*0x9e3779b97f4a7c15>>16))
		b.SetInt(event.NetNS, 4026532000+int64(cgroup)*71)
	}
	b.SetID(colID, "6f1c2a90", c.id)
	b.SetString(colProtocol, "tcp")
	local, remote := netip.AddrFrom4([4]byte{10, 0, 0, 7}), address(c.remote)
	if c.remote == 3 {
		local, remote = netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	b.SetInt(colSourcePort, c.port)
	if c.inbound {
		b.SetString(colDirection, "inbound")
		b.SetString(colAttribution, "accept")
		b.SetIP(colSourceIP, remote)
		b.SetIP(colDestinationIP, local)
		b.SetInt(colDestinationPort, []int64{443, 80, 22, 8080}[c.command%4])
	} else {
		b.SetString(colDirection, "outbound")
		b.SetString(colAttribution, "connect")
		b.SetIP(colSourceIP, local)
		b.SetIP(colDestinationIP, remote)
		b.SetInt(colDestinationPort, []int64{443, 443, 443, 80, 5432, 6379, 9092, 3306, 53, 8443, 1024 + int64(c.remote)}[c.remote%11])
	}
	h.end(b, c)
}

func (h *host) end(b *event.Batch, c connection) {
	b.SetInt(colReturnCode, 0)
	switch {
	case c.failed:
		b.SetString(colState, "failed")
		b.SetInt(colReturnCode, -111)
		b.SetString(colError, "ECONNREFUSED")
	case !c.closed:
		b.SetString(colState, "established")
	default:
		b.SetString(colState, "closed")
		b.SetInt(colDuration, h.logNormal(200e6, 1.8))
		b.SetInt(colSent, h.logNormal(800, 1.3))
		b.SetInt(colReceived, h.logNormal(6000, 1.6))
		b.SetInt(colRetransmits, 0)
		if h.r.IntN(20) == 0 {
			b.SetInt(colRetransmits, h.logNormal(2, 1))
		}
		b.SetInt(colRTT, h.logNormal(200+float64(c.remote%97)*300, 0.3))
		if h.r.IntN(50) == 0 {
			b.SetInt(colReturnCode, -104)
			b.SetString(colError, "ECONNRESET")
		}
	}
}

// address spreads numbers over the address space; every tenth is IPv6.
func address(n uint64) netip.Addr {
	x := (n + 1) * 0x9e3779b97f4a7c15
	if n%10 == 9 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 8: byte(x >> 56), 9: byte(x >> 48), 14: byte(x >> 40), 15: byte(x >> 32)})
	}
	return netip.AddrFrom4([4]byte{byte(x>>56)%223 + 1, byte(x >> 48), byte(x >> 40), byte(x >> 32)})
}
