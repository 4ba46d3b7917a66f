package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

const iperfPort = 5201

// iperfReport is what iperf3 tells at its end.
type iperfReport struct {
	Start struct {
		Connected []struct {
			LocalPort  int `json:"local_port"`
			RemotePort int `json:"remote_port"`
		}
		Test struct{ Blksize int64 } `json:"test_start"`
	}
	End struct {
		Streams []struct {
			Sender, Receiver struct {
				Bytes, Retransmits int64
				Sender             bool // the process that tells this is the sender
			}
			UDP struct {
				Bytes, Packets int64
				Lost           int64 `json:"lost_packets"`
			}
		}
	}
}

func (h *hosts) report(out string) iperfReport {
	h.Helper()
	var r iperfReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Start.Connected) != len(r.End.Streams) {
		h.Fatalf("%v\n%s", err, out)
	}
	return r
}

// serveIperf starts a server that ends after one run.
func serveIperf(h *hosts) (*process, owner) {
	h.Helper()
	p := h.serve(iperfPort, "iperf3", "-s", "-1", "-J")
	return p, h.owner(p, "iperf3", "root")
}

// streams returns both ends of the streams of a run, and how many segments iperf3
// says were sent again, by the sender and the client's port. Data that was under
// way when the run ended was sent and not received, as iperf3 counts: then it does
// not tell what the sockets sent and received.
func (h *hosts) streams(r iperfReport, client, service owner) (ends map[*bpftest.NetNS][]end, retransmits map[*bpftest.NetNS]map[int]int64) {
	const cookie = 37 // that of the run, which the client sends first on each stream
	ends = map[*bpftest.NetNS][]end{}
	retransmits = map[*bpftest.NetNS]map[int]int64{h.client: {}, h.service: {}}
	for i, connected := range r.Start.Connected {
		stream, port := r.End.Streams[i], connected.LocalPort
		at := end{port: port, sent: cookie, owner: client}
		sender := h.service
		switch {
		case stream.Sender.Bytes != stream.Receiver.Bytes:
			h.Logf("a stream sent %d bytes and received %d", stream.Sender.Bytes, stream.Receiver.Bytes)
			at.sent, at.received = untold, untold
		case stream.Sender.Sender:
			at.sent += stream.Sender.Bytes
		default:
			at.received = stream.Sender.Bytes
		}
		if stream.Sender.Sender {
			sender = h.client
		}
		retransmits[sender][port] = stream.Sender.Retransmits
		ends[h.client] = append(ends[h.client], at)
		ends[h.service] = append(ends[h.service], far([]end{at}, service)...)
	}
	return ends, retransmits
}

// Two streams each way, slow enough that none has data under way at the end.
func iperfTCP(h *hosts) {
	h.countPayload(iperfPort)
	p, service := serveIperf(h)
	out, client := h.run("iperf3", "-c", serviceIP, "-J", "--bidir", "-P", "2", "--bitrate", "50M", "--time", "1")
	h.wait(p)
	ends, _ := h.streams(h.report(out), client, service)
	for _, e := range h.control(ends[h.service], service) {
		ends[h.service] = append(ends[h.service], e)
		ends[h.client] = append(ends[h.client], far([]end{e}, client)...)
	}
	for ns, want := range ends {
		h.compare(ns, h.closed(ns, len(want)), want)
	}
}

// control returns the service's end of the connection on which iperf3 agrees on
// what to do, of which it says nothing: the one that is not among the streams.
func (h *hosts) control(streams []end, service owner) []end {
	h.Helper()
	var others []end
	for port, counted := range h.payload() {
		if !slices.ContainsFunc(streams, func(stream end) bool { return stream.port == port }) {
			others = append(others, end{port, counted.sent, counted.received, service})
		}
	}
	return others
}

// UDP: both sides connect their sockets, the server when it has had a first
// datagram of 4 bytes, which is a flow, and which it answers with another.
func iperfUDP(h *hosts) {
	h.countPayload(iperfPort)
	p, service := serveIperf(h)
	running := h.launch(h.client, "iperf3", "-c", serviceIP, "-J", "-u", "-P", "2", "--bitrate", "20M", "--time", "2")
	client := h.owner(running, "iperf3", "root")
	compareOpenUDP(h, client, service)

	const first = 4
	told := h.report(h.wait(running))
	var atClient, atService []end
	for i, connected := range told.Start.Connected {
		atClient = append(atClient, end{connected.LocalPort, first + told.End.Streams[i].UDP.Bytes, first, client})
	}
	told = h.report(h.wait(p))
	for i, connected := range told.Start.Connected {
		stream := told.End.Streams[i].UDP
		atService = append(atService, end{connected.RemotePort, 0, first, service})
		atService = append(atService, end{connected.RemotePort, first, (stream.Packets - stream.Lost) * told.Start.Test.Blksize, service})
	}
	control := h.control(nil, service)
	h.compare(h.client, h.closed(h.client, 3), append(atClient, far(control, client)...))
	h.compare(h.service, h.closed(h.service, 5), append(atService, control...))
}

// compareOpenUDP compares the open UDP sockets, two in each namespace, with what
// ss tells of them.
func compareOpenUDP(h *hosts, client, service owner) {
	h.Helper()
	eventually(h, func() error {
		for ns, whose := range map[*bpftest.NetNS]owner{h.client: client, h.service: service} {
			sockets, recorded := h.sockets(ns, "-u", whose), map[int]socket{}
			for _, e := range h.events(ns, "protocol", "udp", "state", "established", "attribution", "connect", "pid", strconv.Itoa(whose.PID)) {
				recorded[e.end().port] = socket{} // nothing is told of its bytes yet
			}
			if len(sockets) != 2 || !maps.Equal(sockets, recorded) {
				return fmt.Errorf("%s: ss shows %v, recorded are %v", ns.Name, sockets, recorded)
			}
		}
		return nil
	})
}
