package main_test

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

const (
	python         = "/usr/bin/python3"
	pythonSessions = 50
)

// Both sides log what they exchanged. While all connections are open ss shows
// them; then every second one is reset, after which its socket measures nothing.
func asyncio(h *hosts) {
	script := []string{"testdata/exchange.py", "serve", serviceIP, "9000", strconv.Itoa(pythonSessions)}
	serving := h.serve(9000, python, script...)
	script[1] = "connect"
	connecting := h.launch(h.client, python, script...)
	service, client := h.owner(serving, python, "root"), h.owner(connecting, python, "root")
	open := openSessions(h, connecting, client, service)
	if _, err := io.WriteString(connecting.input, "end\n"); err != nil {
		h.Fatal(err)
	}
	h.wait(connecting)
	h.wait(serving)

	for ns, want := range map[*bpftest.NetNS][]end{h.client: h.told(connecting, client), h.service: h.told(serving, service)} {
		over := h.closed(ns, pythonSessions)
		h.compare(ns, over, want)
		compareReset(h, ns, over, open[ns])
	}
}

// openSessions returns what ss shows of all connections, once it agrees with the
// client's log: all is acknowledged. ss counts the SYN of a connect as a byte.
func openSessions(h *hosts, connecting *process, client, service owner) map[*bpftest.NetNS]map[int]socket {
	h.Helper()
	open := map[*bpftest.NetNS]map[int]socket{}
	eventually(h, func() error {
		open[h.client], open[h.service] = h.sockets(h.client, "-t", client), h.sockets(h.service, "-t", service)
		told := h.told(connecting, client)
		if len(told) != pythonSessions {
			return fmt.Errorf("%d connections have their answer, want %d", len(told), pythonSessions)
		}
		for _, e := range told {
			near, far := open[h.client][e.port], open[h.service][e.port]
			if near.acknowledged != e.sent+1 || near.received != e.received || far.acknowledged != e.received || far.received != e.sent {
				return fmt.Errorf("%+v; ss shows %+v and %+v", e, near, far)
			}
		}
		return nil
	})
	for ns, whose := range map[*bpftest.NetNS]owner{h.client: client, h.service: service} {
		established := h.events(ns, "state", "established")
		for _, e := range established {
			if _, shown := open[ns][e.SourcePort]; !shown || e.owner != whose {
				h.Errorf("recorded is %+v; ss shows it of process %d: %v", e, whose.PID, shown)
			}
		}
		if all := h.events(ns, ofConnections...); len(established) != pythonSessions || len(all) != pythonSessions {
			h.Errorf("%s: ss shows %d open connections; %d are recorded as established, in %d events", ns.Name, pythonSessions, len(established), len(all))
		}
	}
	return open
}

// compareReset compares connections that were reset with what ss showed before.
func compareReset(h *hosts, ns *bpftest.NetNS, over []connectionEvent, open map[int]socket) {
	h.Helper()
	by, code := "local", 0
	if ns == h.service {
		by, code = "remote", -104 // ECONNRESET
	}
	reset := 0
	for _, e := range over {
		if e.ResetBy == "" {
			continue
		}
		reset++
		if was := open[e.SourcePort]; e.ResetBy != by || e.ReturnCode != code || e.RTT != was.rtt || e.Retransmits != was.retransmits {
			h.Errorf("%s: ss showed %+v, recorded is %+v", ns.Name, was, e)
		}
	}
	if reset != pythonSessions/2 {
		h.Errorf("%s: %d connections were reset, want %d", ns.Name, reset, pythonSessions/2)
	}
}

// told returns what exchange.py has printed of its ends.
func (h *hosts) told(p *process, whose owner) []end {
	h.Helper()
	var ends []end
	for line := range strings.Lines(p.output.String()) {
		e := end{owner: whose}
		h.scan(line, &e.port, &e.sent, &e.received)
		ends = append(ends, e)
	}
	return ends
}
