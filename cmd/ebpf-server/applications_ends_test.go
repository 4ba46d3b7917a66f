package main_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// end is one end of a connection that is over: what others tell of it, or what
// was recorded.
type end struct {
	port           int // the client's
	sent, received int64
	owner          owner
}

// untold stands for bytes that nobody else tells of.
const untold = -1

func (e end) matches(want end) bool {
	if want.sent == untold {
		e.sent = untold
	}
	if want.received == untold {
		e.received = untold
	}
	return e == want
}

// far returns the other ends of connections on which all that was sent arrived.
func far(ends []end, whose owner) []end {
	other := make([]end, len(ends))
	for i, e := range ends {
		other[i] = end{e.port, e.received, e.sent, whose}
	}
	return other
}

// connectionEvent is an event as the API tells it.
type connectionEvent struct {
	ID              string `json:"connection_id"`
	State           string
	Direction       string
	Protocol        string
	SourceIP        string `json:"source_ip"`
	SourcePort      int    `json:"source_port"`
	DestinationIP   string `json:"destination_ip"`
	DestinationPort int    `json:"destination_port"`
	Sent            int64  `json:"bytes_sent"`
	Received        int64  `json:"bytes_received"`
	Retransmits     int64
	RTT             int64  `json:"rtt_us"`
	ReturnCode      int    `json:"return_code"`
	ResetBy         string `json:"reset_by"`
	Attribution     string
	owner
}

func (e connectionEvent) end() end {
	port := e.SourcePort
	if e.SourceIP == serviceIP { // a service that connects its UDP socket to a client
		port = e.DestinationPort
	}
	return end{port, e.Sent, e.Received, e.owner}
}

// events returns the connections of a namespace that match, oldest first.
func (h *hosts) events(ns *bpftest.NetNS, pairs ...string) []connectionEvent {
	h.Helper()
	q := in(ns, append(pairs, "type", "connection", "format", "ndjson", "limit", "0", "order", "asc")...)
	response, err := http.Get(h.recorder.url + "/api/events?" + q.Encode())
	if err != nil {
		h.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		h.Fatal(response.Status)
	}
	var all []connectionEvent
	for lines := json.NewDecoder(response.Body); ; {
		var e connectionEvent
		err := lines.Decode(&e)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			h.Fatal(err)
		}
		all = append(all, e)
	}
}

// ofConnections leaves out what is told of sockets that listen.
var ofConnections = []string{"present", "direction"}

// closed returns the ends of all connections in a namespace, once there are n and
// they are over. Each was told of twice, and no other was.
func (h *hosts) closed(ns *bpftest.NetNS, n int) []connectionEvent {
	h.Helper()
	var over []connectionEvent
	eventually(h, func() error {
		over = nil
		opened := map[string]connectionEvent{}
		all := h.events(ns, ofConnections...)
		for _, e := range all {
			switch e.State {
			case "established":
				opened[e.ID] = e
			case "closed":
				over = append(over, e)
			}
		}
		if len(opened) != n || len(over) != n || len(all) != 2*n {
			return fmt.Errorf("%s: %d connections opened and %d closed in %d events, want %d", ns.Name, len(opened), len(over), len(all), n)
		}
		for _, e := range over {
			was := opened[e.ID]
			if was.owner != e.owner || was.end().port != e.end().port || !h.fits(ns, e) || !h.fits(ns, was) {
				return fmt.Errorf("%s: opened as %+v, closed as %+v", ns.Name, was, e)
			}
		}
		return nil
	})
	if coverage := h.recorder.summary("connections", in(ns)).Coverage; !coverage.Complete || len(coverage.Lost) != 0 {
		h.Errorf("coverage: %+v", coverage)
	}
	_, _, retransmits := sums(over)
	if counted := h.counter(ns, "TcpRetransSegs"); retransmits != counted {
		h.Errorf("%s: %d segments were sent again, the kernel counted %d", ns.Name, retransmits, counted)
	}
	return over
}

// fits tells whether direction, addresses and attribution are those of an end in
// that namespace.
func (h *hosts) fits(ns *bpftest.NetNS, e connectionEvent) bool {
	own := map[*bpftest.NetNS]string{h.client: clientIP, h.service: serviceIP}[ns]
	if ns == h.service && e.Protocol == "tcp" {
		return e.Direction == "inbound" && e.DestinationIP == own && e.Attribution == "accept"
	}
	if e.Attribution == "datagram" { // a service may listen on all its addresses
		return ns == h.service && e.Direction == "inbound" && (e.DestinationIP == own || e.DestinationIP == "")
	}
	return e.Direction == "outbound" && e.SourceIP == own && e.Attribution == "connect"
}

// compare looks for each end that is wanted among those that were recorded in a
// namespace, and for no others. Both have the connections of a port in the order
// of time.
func (h *hosts) compare(ns *bpftest.NetNS, recorded []connectionEvent, want []end) {
	h.Helper()
	got := make([]end, len(recorded))
	for i, e := range recorded {
		got[i] = e.end()
	}
	byPort := func(a, b end) int { return cmp.Compare(a.port, b.port) }
	slices.SortStableFunc(got, byPort)
	want = slices.SortedStableFunc(slices.Values(want), byPort)
	wrong := 0
	for i := range min(len(got), len(want)) {
		if !got[i].matches(want[i]) {
			if wrong++; wrong <= 5 {
				h.Errorf("%s: recorded %+v, want %+v", ns.Name, got[i], want[i])
			}
		}
	}
	if wrong != 0 || len(got) != len(want) {
		h.Errorf("%s: %d of %d connections differ, want %d", ns.Name, wrong, len(got), len(want))
	}
	sent, received, retransmits := sums(recorded)
	h.Logf("%s: %d connections, %d bytes sent, %d received, %d retransmits", ns.Name, len(got), sent, received, retransmits)
}

func sums(ends []connectionEvent) (sent, received, retransmits int64) {
	for _, e := range ends {
		sent += e.Sent
		received += e.Received
		retransmits += e.Retransmits
	}
	return sent, received, retransmits
}

// of returns the ends that a process owns.
func of(ends []connectionEvent, whose owner) []connectionEvent {
	return slices.DeleteFunc(slices.Clone(ends), func(e connectionEvent) bool { return e.owner != whose })
}
