package packetdrop_test

import (
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// The monitor follows no smaller steps of the wall clock (stepNs in internal/bpf/clock.go).
const clockStep = time.Millisecond

// An event of many drops has the time of the first of them, and with duration_ns that
// of the last, by the wall clock. They are dropped as they leave, within the call that
// sends them, so that the test's own clock tells when.
func TestTimesOfFlood(t *testing.T) {
	const n = 400
	r := bpftest.Start(t, packetdrop.Monitor)
	ns := bpftest.NewNetNS(t, "floodtime")
	ns.Run(t, "nft", "add table ip t; add chain ip t out { type filter hook output priority 0; }; add rule ip t out udp dport 7001 drop")
	type call struct{ before, after time.Time }
	var calls []call
	ns.Do(t, func() {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7001}
		for range n {
			before := time.Now()
			if _, err := c.WriteTo([]byte("x"), to); err == nil {
				t.Error("the filter let a packet pass")
			}
			calls = append(calls, call{before, time.Now()})
			time.Sleep(5 * clockStep) // so that packets can be told apart, and there are several windows
		}
	})
	var events []bpftest.Event
	for _, e := range r.Events(t, ns) {
		if e["destination_port"] == "7001" {
			events = append(events, e)
		}
	}
	begin := func(e bpftest.Event) time.Time {
		at, err := time.Parse(time.RFC3339Nano, e["time"])
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	slices.SortFunc(events, func(a, b bpftest.Event) int { return begin(a).Compare(begin(b)) })

	// One socket has sent all of them, one after the other, so each event is of the
	// packets that follow those of the event before.
	within := func(what string, at time.Time, packet int) {
		t.Helper()
		if c := calls[packet]; at.Before(c.before.Add(-clockStep)) || at.After(c.after.Add(clockStep)) {
			t.Errorf("%s is %v, and packet %d was sent from %v to %v", what, at, packet, c.before, c.after)
		}
	}
	packet, many := 0, 0
	for _, e := range events {
		count, err := strconv.Atoi(e["count"])
		if err != nil || count < 1 || packet+count > n {
			t.Fatalf("%s packets after %d of %d: %v", e["count"], packet, n, e)
		}
		within("time", begin(e), packet)
		packet += count
		duration, told := e["duration_ns"]
		if told != (count > 1) {
			t.Errorf("%d packets have the duration %q", count, duration)
		}
		if !told {
			continue
		}
		many++
		took, err := time.ParseDuration(duration + "ns")
		if err != nil || took < 0 {
			t.Fatalf("the duration is %q: %v", duration, err)
		}
		within("time and duration_ns", begin(e).Add(took), packet-1)
	}
	if packet != n || many == 0 {
		t.Errorf("%d packets, %d events of several; sent were %d", packet, many, n)
	}
	t.Logf("%d packets in %d events, %d of several", packet, len(events), many)
	if lost := r.LostEvents(); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}
