package stream

import (
	"math/rand/v2"

	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	"github.com/srodi/ebpf-server/internal/event"
)

const (
	inboundShare = 0.20
	udpShare     = 0.10
	unownedShare = 0.007
	failedShare  = 0.0392 // of those that open: 2 % of the events
	resetShare   = 0.03   // of those that close
	listenShare  = 0.02   // of those that come in: nobody has accepted them
)

// What connections last and carry, and how much longer than its address's
// shortest a round trip takes.
var (
	durations = logNormal(250e6, 2.2)
	sent      = logNormal(700, 1.3)
	received  = logNormal(4000, 1.9)
	delays    = logNormal(1000, 0.2)
)

// Positions in the dictionaries.
const (
	established = iota
	failed
	closed
)

const (
	byConnect = iota
	byAccept
	byListener
)

// failures are the ways in which a connection can end badly, by code and name;
// 0 is none. The last one has no code: the process gave up.
var failures = []struct {
	code  int64
	name  string
	share float64
}{{}, {-111, "ECONNREFUSED", 0.55}, {-110, "ETIMEDOUT", 0.25}, {-113, "EHOSTUNREACH", 0.1}, {-101, "ENETUNREACH", 0.05}, {0, "", 0.05}, {-104, "ECONNRESET", 0}}

const (
	refused = 1
	gaveUp  = 5
	reset   = 6
)

var connectionColumn = struct {
	id, state, direction, protocol, sourceIP, sourcePort, destinationIP, destinationPort, code, err,
	duration, sent, received, retransmits, rtt, attribution int
}{
	col("connection_id"), col("state"), col("direction"), col("protocol"), col("source_ip"), col("source_port"),
	col("destination_ip"), col("destination_port"), col("return_code"), col("error"),
	col("duration_ns"), col("bytes_sent"), col("bytes_received"), col("retransmits"), col("rtt_us"), col("attribution"),
}

func col(name string) int { return connection.Type.MustColumn(name) }

// made is one connection. It waits in a heap for its end.
type made struct {
	closes                      int64 // when
	duration                    int64
	cookie, pid                 int64
	sourcePort, destinationPort int64
	command                     int32 // -1: the owner is not known
	source, destination         int32
	failure                     int32
	owner                       int32 // how it is known
	inbound, udp                bool
}

// connections makes the events of connections: as many as there are slots, which
// are spread over the span by the clock. A slot goes to a connection that has
// ended meanwhile, else to one that opens then.
type connections struct {
	sheet
	r      *rand.Rand
	host   *host
	clock  clock
	slot   int64
	left   int64 // events
	next   int64 // time of the slot
	open   heap
	plants []plant
	cookie int64
	fails  *choice
	spawn  int64 // counts the processes of short life
}

func newConnections(o Options, h *host, events int64) *connections {
	weights := make([]float64, len(failures))
	for i, f := range failures {
		weights[i] = f.share
	}
	c := &connections{
		sheet: newSheet(connection.Type), r: rand.New(rand.NewPCG(o.Seed, 2)), host: h,
		clock: newClock(o, events), left: events, plants: plants(o), cookie: 4096, fails: newChoice(weights),
	}
	names := make([]string, len(failures))
	for i, f := range failures {
		names[i] = f.name
	}
	k := connectionColumn
	for column, values := range map[int][]string{
		event.Command: h.names, event.ContainerID: h.containers, k.id: {bootScope}, k.sourceIP: h.ips, k.destinationIP: h.ips, k.err: names,
		k.state: {"established", "failed", "closed"}, k.direction: {"outbound", "inbound"}, k.protocol: {"tcp", "udp"},
		k.attribution: {"connect", "accept", "listener"},
	} {
		c.dictionary(column, values)
	}
	c.advance()
	return c
}

func (c *connections) advance() {
	c.next = c.clock.at(float64(c.slot) + c.r.Float64())
	c.slot++
}

// emit adds the event of the slot.
func (c *connections) emit() {
	if len(c.open) > 0 && c.open[0].closes <= c.next {
		ended := c.open.pop()
		c.write(&ended, ended.closes, closed)
		c.ending(&ended)
	} else {
		opened := c.connect()
		if len(c.plants) > 0 && c.next >= c.plants[0].at {
			c.change(&opened, c.plants[0].kind)
			c.plants = c.plants[1:]
		}
		if opened.failure != 0 {
			c.write(&opened, c.next, failed)
			c.outcome(opened.failure)
		} else {
			c.write(&opened, c.next, established)
			c.outcome(0)
			opened.closes = c.next + opened.duration
			c.open.push(opened)
		}
	}
	c.left--
	c.advance()
}

// connect draws a connection.
func (c *connections) connect() made {
	r, h := c.r, c.host
	c.cookie++
	m := made{
		cookie: c.cookie, command: h.byCommand.draw(r), destination: h.byAddress.draw(r),
		duration: durations.draw(r), sourcePort: 32768 + r.Int64N(28232),
		udp: r.Float64() < udpShare, inbound: r.Float64() < inboundShare,
	}
	p := &h.commands[m.command]
	m.pid = c.pid(m.command, p)
	m.source, m.destinationPort = p.source, h.ports[m.destination]
	ipv6 := h.isIPv6(m.destination)
	if ipv6 {
		m.source = ownIPv6
	}
	if m.inbound {
		m.owner = byAccept
		if r.Float64() < listenShare {
			m.owner = byListener
		}
		m.source, m.destination = m.destination, ownIPv4
		if ipv6 {
			m.destination = ownIPv6
		}
		m.destinationPort = p.listens
	} else if r.Float64() < failedShare/(1-inboundShare) { // an attempt that comes in and fails is not seen
		m.failure = c.fails.draw(r)
	}
	if r.Float64() < unownedShare {
		m.command = -1
	}
	return m
}

// pid returns the process of a command that is at work now.
func (c *connections) pid(command int32, p *process) int64 {
	const most, connectionsEach = 4_000_000, 8
	if p.lifetime == 0 {
		c.spawn++
		return 1000 + c.spawn/connectionsEach*3%most
	}
	worker := c.r.Uint64() % p.workers
	x := uint64(command)<<40 ^ worker<<32 ^ uint64(c.next/p.lifetime)
	x *= 0x9e3779b97f4a7c15 // spreads over all numbers
	return 1000 + int64((x^x>>31)%most)
}

// write adds what all events of a connection have.
func (c *connections) write(m *made, at int64, state int32) {
	k := &connectionColumn
	c.row(at)
	c.number(event.NetNS, hostNetNS)
	if m.command >= 0 {
		p := &c.host.commands[m.command]
		c.number(event.PID, m.pid)
		c.text(event.Command, m.command)
		c.number(event.UID, p.uid)
		c.number(event.CgroupID, p.cgroup)
		if p.container >= 0 {
			c.text(event.ContainerID, p.container)
		}
		c.number(event.NetNS, p.netns)
		c.text(k.attribution, m.owner)
	}
	c.id(k.id, 0, m.cookie)
	c.text(k.state, state)
	c.text(k.direction, oneIf(m.inbound))
	c.text(k.protocol, oneIf(m.udp))
	c.text(k.sourceIP, m.source)
	c.number(k.sourcePort, m.sourcePort)
	c.text(k.destinationIP, m.destination)
	c.number(k.destinationPort, m.destinationPort)
}

func (c *connections) outcome(failure int32) {
	k := &connectionColumn
	if failure == gaveUp {
		return
	}
	c.number(k.code, failures[failure].code)
	if failure != 0 {
		c.text(k.err, failure)
	}
}

// ending adds what is known at the end of a connection.
func (c *connections) ending(m *made) {
	k, r := &connectionColumn, c.r
	how := int32(0)
	if !m.udp && r.Float64() < resetShare {
		how = reset
	}
	c.outcome(how)
	c.number(k.duration, m.duration)
	c.number(k.sent, sent.draw(r))
	c.number(k.received, received.draw(r))
	if m.udp {
		return
	}
	retransmits := int64(0)
	if r.Float64() < 0.03 {
		retransmits = 1 + r.Int64N(5)
	}
	c.number(k.retransmits, retransmits)
	remote := m.destination
	if m.inbound {
		remote = m.source
	}
	c.number(k.rtt, c.host.roundTrip[remote]*delays.draw(r)/1000)
}

func oneIf(yes bool) int32 {
	if yes {
		return 1
	}
	return 0
}
