package stream

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	plantedPID      = 4_100_001 // above those of all other processes
	plantedDaemon   = 4_100_002
	plantedCommand  = 40
	plantedPairs    = 50 // connections of each planted process, each opened and closed
	plantedVisits   = 10 // connections to the planted address
	plantedDrops    = 6  // packets to it that were dropped
	plantedFailures = 40

	failWindow      = 26*time.Hour + 30*time.Minute
	processLives    = 20 * time.Minute
	plantedDuration = 50 * time.Millisecond
)

var plantedIP = netip.AddrFrom4([4]byte{203, 0, 113, 77})

type plantKind uint8

const (
	plantPID plantKind = iota + 1
	plantDaemon
	plantVisit
	plantFailure
)

// plant changes the first connection that opens at its time or later.
type plant struct {
	at   int64
	kind plantKind
}

// plants keep away from the end, so that what opens is also closed.
func plants(o Options) []plant {
	var all []plant
	add := func(kind plantKind, n int, from time.Time, over time.Duration) {
		for i := range n {
			at := from.Add(time.Duration((float64(i) + 0.5) / float64(n) * float64(over)))
			all = append(all, plant{at.UnixNano(), kind})
		}
	}
	add(plantPID, plantedPairs, o.Begin().Add(o.Span/100*61), processLives)
	add(plantDaemon, plantedPairs, o.Begin(), o.Span/100*97)
	add(plantVisit, plantedVisits, o.Begin(), o.Span/100*90)
	add(plantFailure, plantedFailures, o.Planted().FailSince, failWindow)
	slices.SortFunc(all, func(a, b plant) int { return cmp.Compare(a.at, b.at) })
	return all
}

// change makes a planted connection of any one.
func (c *connections) change(m *made, kind plantKind) {
	m.inbound, m.udp, m.owner, m.failure = false, false, byConnect, 0
	m.duration = int64(plantedDuration)
	m.command = max(m.command, 0) // it may have had no owner
	if m.destination >= addresses {
		m.destination = 0 // it came in
	}
	switch kind {
	case plantPID, plantDaemon:
		m.command = plantedCommandOnly
	case plantVisit:
		m.destination = plantedAddress
	case plantFailure:
		m.command, m.failure = plantedCommand, refused
	}
	p := &c.host.commands[m.command]
	m.source, m.destinationPort = p.source, c.host.ports[m.destination]
	m.pid = c.pid(m.command, p)
	switch kind {
	case plantPID:
		m.pid = plantedPID
	case plantDaemon:
		m.pid = plantedDaemon
	}
}
