package connection_test

import (
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// startFlows runs the monitor so that flows are closed soon; nil if this kernel
// cannot tell of them.
func startFlows(t *testing.T) *bpftest.Recorder {
	t.Helper()
	r := bpftest.StartWith(t, connection.Monitor, bpf.Options{UDPIdle: time.Second})
	if r.Lacks(t, "udp_flows") {
		return nil
	}
	return r
}

func listenUDP(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func sendTo(t *testing.T, from, to *net.UDPConn, bytes int) {
	t.Helper()
	if _, err := from.WriteTo(make([]byte, bytes), to.LocalAddr()); err != nil {
		t.Error(err)
	}
}

func receive(t *testing.T, on *net.UDPConn) {
	t.Helper()
	if err := on.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Error(err)
	}
	if _, _, err := on.ReadFrom(make([]byte, 2000)); err != nil {
		t.Error(err)
	}
}

// A server with two clients, none of them connected: each pair is a flow at both
// ends, with what was sent over it.
func TestFlows(t *testing.T) {
	r := startFlows(t)
	if r == nil {
		return
	}
	for _, test := range []struct{ network, ip string }{{"udp4", "127.0.0.1"}, {"udp6", "::1"}} {
		t.Run(test.network, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "flows")
			any := net.JoinHostPort(test.ip, "0")
			var server string
			var clients [2]string
			began := time.Now()
			ns.Do(t, func() {
				s := listenUDP(t, test.network, any)
				server = port(s.LocalAddr())
				for i := range clients {
					c := listenUDP(t, test.network, any)
					clients[i] = port(c.LocalAddr())
					for n := range 2 + i {
						sendTo(t, c, s, 100*(i+1)+n)
						receive(t, s)
					}
					time.Sleep(200 * time.Millisecond)
					sendTo(t, s, c, 33)
					receive(t, c)
					sendTo(t, c, s, 0)
					receive(t, s)
				}
			})
			took := time.Since(began)
			for i, bytes := range []string{"201", "603"} {
				for _, end := range []bpftest.Event{
					{"direction": "outbound", "bytes_sent": bytes, "bytes_received": "33", "messages_sent": strconv.Itoa(3 + i), "messages_received": "1"},
					{"direction": "inbound", "bytes_sent": "33", "bytes_received": bytes, "messages_sent": "1", "messages_received": strconv.Itoa(3 + i)},
				} {
					flow := self(t, bpftest.Event{
						"direction": end["direction"], "protocol": "udp", "attribution": "datagram", "source_ip": test.ip, "source_port": clients[i],
						"destination_ip": test.ip, "destination_port": server,
					})
					established := r.WaitFor(t, ns, 1, with(flow, "state", "established"))[0]
					closed := r.WaitFor(t, ns, 1, with(merge(flow, end), "state", "closed"))[0]
					if established["connection_id"] != closed["connection_id"] {
						t.Errorf("ids of one flow differ: %s, %s", established["connection_id"], closed["connection_id"])
					}
					checkDuration(t, established, closed)
					lasted, err := strconv.ParseInt(closed["duration_ns"], 10, 64)
					if err != nil || time.Duration(lasted) < 200*time.Millisecond || time.Duration(lasted) > took {
						t.Errorf("lasted %s ns of %v (%v)", closed["duration_ns"], took, err)
					}
				}
			}
			r.WaitFor(t, ns, 8, bpftest.Event{})
		})
	}
}

// What a socket that is connected exchanges with its peer belongs to the
// connection, what it sends to somebody else does not.
func TestFlowOfConnected(t *testing.T) {
	r := startFlows(t)
	if r == nil {
		return
	}
	ns := bpftest.NewNetNS(t, "flows")
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_DGRAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		for _, to := range []unix.Sockaddr{nil, v4(127, 0, 0, 1, 7001), v4(127, 0, 0, 2, 7002)} {
			if err := unix.Sendto(fd, make([]byte, 10), 0, to); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
				t.Error(err)
			}
		}
		unix.Close(fd)
	})
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "closed", "attribution": "connect", "destination_port": "7001"})
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "closed", "attribution": "datagram", "destination_ip": "127.0.0.2", "destination_port": "7002", "messages_sent": "1", "bytes_sent": "10"})
	r.WaitFor(t, ns, 4, bpftest.Event{})
}

// A peer that cannot be sent to is told of once; when it can be, a flow begins.
func TestFlowThatFails(t *testing.T) {
	r := startFlows(t)
	if r == nil {
		return
	}
	ns := bpftest.NewNetNS(t, "flows")
	ns.Do(t, func() {
		c := listenUDP(t, "udp4", "0.0.0.0:0")
		to := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 53}
		for range 3 {
			if _, err := c.WriteTo([]byte("?"), to); !errors.Is(err, unix.ENETUNREACH) {
				t.Error(err)
			}
		}
		ns.Run(t, "ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo")
		if _, err := c.WriteTo([]byte("?"), to); err != nil {
			t.Error(err)
		}
	})
	want := self(t, bpftest.Event{"destination_ip": "192.0.2.7", "destination_port": "53", "direction": "outbound", "source_ip": ""})
	failed := r.WaitFor(t, ns, 1, with(want, "state", "failed"))[0]
	if failed["error"] != "ENETUNREACH" {
		t.Errorf("failed with %s", failed["error"])
	}
	closed := r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "messages_sent": "1", "bytes_sent": "1"}))[0]
	if closed["connection_id"] == failed["connection_id"] {
		t.Error("the failure and the flow have one id")
	}
	r.WaitFor(t, ns, 3, bpftest.Event{})
}

// A look at a datagram (MSG_PEEK) does not take it.
func TestFlowPeek(t *testing.T) {
	r := startFlows(t)
	if r == nil {
		return
	}
	ns := bpftest.NewNetNS(t, "flows")
	ns.Do(t, func() {
		s, c := listenUDP(t, "udp4", "127.0.0.1:7001"), listenUDP(t, "udp4", "127.0.0.1:7002")
		sendTo(t, c, s, 10)
		control(s, func(fd int) {
			for range 3 {
				if n, _, err := unix.Recvfrom(fd, make([]byte, 100), unix.MSG_PEEK); n != 10 || err != nil {
					t.Error(n, err)
				}
			}
		})
		receive(t, s)
	})
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "closed", "direction": "inbound", "messages_received": "1", "bytes_received": "10"})
	r.WaitFor(t, ns, 4, bpftest.Event{})
}
