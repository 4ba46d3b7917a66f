package connection_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

func TestUDP(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	for _, test := range []struct{ name, network, listen, ip string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "udp")
			want := self(t, bpftest.Event{"protocol": "udp", "direction": "outbound", "source_ip": test.ip, "destination_ip": test.ip, "attribution": "connect"})
			ns.Do(t, func() {
				server, err := net.ListenPacket(test.network, test.listen)
				if err != nil {
					t.Error(err)
					return
				}
				defer server.Close()
				c, err := net.Dial(test.network, server.LocalAddr().String())
				if err != nil {
					t.Error(err)
					return
				}
				want["destination_port"], want["source_port"] = port(server.LocalAddr()), port(c.LocalAddr())
				for range 3 {
					if _, err := c.Write(make([]byte, 70)); err != nil {
						t.Error(err)
					}
				}
				if _, err := server.WriteTo(make([]byte, 33), c.LocalAddr()); err != nil {
					t.Error(err)
				}
				if _, err := c.Read(make([]byte, 100)); err != nil {
					t.Error(err)
				}
				c.Close()
			})
			established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
			want["bytes_sent"], want["bytes_received"] = "210", "33"
			if r.Lacks(t, "udp_bytes") {
				want["bytes_sent"], want["bytes_received"] = "", ""
			}
			closed := r.WaitFor(t, ns, 1, with(want, "state", "closed"))[0]
			if established["connection_id"] != closed["connection_id"] {
				t.Errorf("ids of one connection differ: %s, %s", established["connection_id"], closed["connection_id"])
			}
			checkDuration(t, established, closed)
			r.WaitFor(t, ns, 2, bpftest.Event{"attribution": "connect"})
		})
	}
}

// Resolvers connect one UDP socket to address after address.
func TestUDPConnectedAgain(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "again")
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_DGRAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		if err := unix.Connect(fd, v4(127, 0, 0, 2, 7002)); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
	})
	ids := map[string]bool{}
	for _, port := range []string{"7001", "7002"} {
		established := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "destination_port": port}))[0]
		r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "closed", "destination_port": port, "connection_id": established["connection_id"]}))
		ids[established["connection_id"]] = true
	}
	if len(ids) != 2 {
		t.Errorf("ids %v, want two", ids)
	}
}

// A connect that fails on a UDP socket that stays connected has its own id.
func TestUDPFailedAgain(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "udpfail")
	ns.Do(t, func() {
		fd, err := dial(t, unix.SOCK_DGRAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		if err := unix.Connect(fd, v4(203, 0, 113, 1, 7002)); err == nil {
			t.Error("connected where there is no route")
		}
		unix.Close(fd)
	})
	first := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "established", "destination_port": "7001"}))[0]
	failed := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "failed", "destination_port": "7002"}))[0]
	closed := r.WaitFor(t, ns, 1, self(t, bpftest.Event{"state": "closed", "destination_port": "7001"}))[0]
	if first["connection_id"] != closed["connection_id"] || first["connection_id"] == failed["connection_id"] {
		t.Errorf("ids: established %s, failed %s, closed %s", first["connection_id"], failed["connection_id"], closed["connection_id"])
	}
}
