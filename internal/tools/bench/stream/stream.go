// Package stream makes the events of a busy host that never was: connections
// and dropped packets over some days, the same ones for the same options.
//
// It is made so that it is neither easier nor harder to store than the real
// thing: few names are frequent and many are rare, days are busier than nights,
// drops come in bursts, a connection's end carries the id of its beginning, times
// have all their nanoseconds, and amounts are spread as they are on hosts.
package stream

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
	"github.com/srodi/ebpf-server/internal/event"
)

// MinEvents is the least that a stream can have: what is planted needs room.
const MinEvents = 10_000

// dropShare of all events are dropped packets, the others connections.
const dropShare = 0.15

// Options say what to make. Equal options make equal streams.
type Options struct {
	Events int64
	End    time.Time // just after the last event
	Span   time.Duration
	Seed   uint64
	// NoWeekends makes all days alike; otherwise there are two quieter ones a week.
	NoWeekends bool
}

// Begin is the time before which there are no events.
func (o Options) Begin() time.Time { return o.End.Add(-o.Span) }

// Types are those of the events, by name.
func Types() []*event.Type { return []*event.Type{connection.Type, packetdrop.Type} }

// Stream makes events, one batch after the other. Its own memory is small,
// however many there are.
type Stream struct {
	connections *connections
	drops       *drops
}

// New returns a stream at its beginning. Options.Events must be MinEvents or more.
func New(o Options) *Stream {
	dropped := int64(float64(o.Events) * dropShare)
	h := newHost(rand.New(rand.NewPCG(o.Seed, 1)))
	return &Stream{
		connections: newConnections(o, h, o.Events-dropped),
		drops:       newDrops(o, h, dropped),
	}
}

// Next returns the following events, at most so many of all types, as one
// batch for each type that has some; nil at the end. The caller owns them.
//
// They are about in the order of time, as monitors deliver them: the end of a
// connection may come a little late.
func (s *Stream) Next(limit int) []*event.Batch {
	c, d := s.connections, s.drops
	c.begin(limit)
	d.begin(limit)
	for range limit {
		switch {
		case c.left > 0 && (d.left == 0 || c.next <= d.next):
			c.emit()
		case d.left > 0:
			d.emit()
		}
	}
	var batches []*event.Batch
	for _, sh := range []*sheet{&c.sheet, &d.sheet} {
		if sh.rows > 0 {
			batches = append(batches, sh.batch())
		}
	}
	return batches
}

// Planted is what every stream holds so that there is something rare to look for.
type Planted struct {
	PID         int64 // a process with exactly PIDEvents events in 20 minutes
	Daemon      int64 // one with as many, in all of the time
	PIDEvents   int
	IP          netip.Addr // a destination with exactly IPEvents events, six of them drops
	IPEvents    int
	Command     string    // an ordinary command, of which more connections than usual fail
	FailSince   time.Time // from here
	FailUntil   time.Time // to here, 26.5 hours later
	MinFailures int
}

// Planted tells what was planted.
func (o Options) Planted() Planted {
	since := o.Begin().Add(o.Span / 5 * 2)
	return Planted{
		PID: plantedPID, Daemon: plantedDaemon, PIDEvents: 2 * plantedPairs,
		IP: plantedIP, IPEvents: 2*plantedVisits + plantedDrops,
		Command: commandName(plantedCommand), FailSince: since, FailUntil: since.Add(failWindow), MinFailures: plantedFailures,
	}
}
