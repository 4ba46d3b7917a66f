package programs_test

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

func TestMissingHook(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	for _, hook := range []string{"inet_sock_set_state", "sys_exit_connect"} {
		m := bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) {
			spec.Programs[hook].SectionName = strings.Replace(spec.Programs[hook].SectionName, hook, "no_such_hook", 1)
			spec.Programs[hook].AttachTo = strings.Replace(spec.Programs[hook].AttachTo, hook, "no_such_hook", 1)
		})
		_, err := bpf.Start(m, host, bpf.Options{}, bpftest.NewRecorder(), slog.New(slog.DiscardHandler))
		if err == nil {
			t.Fatalf("%s: started without its hook", hook)
		}
		for _, part := range []string{"connection", hook, "no_such_hook"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not name %s", hook, err, part)
			}
		}
	}
}

// Without an optional hook the monitor runs, says what is missing, and leaves
// out what it does not know.
func TestMissingOptionalHook(t *testing.T) {
	m := bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) {
		hook := spec.Programs["sock_recv_length"]
		hook.SectionName, hook.AttachTo = "tp_btf/no_such_hook", "no_such_hook"
	})
	r := bpftest.Start(t, m)
	if r.Status().Features["udp_bytes"] || !r.Status().Features["udp_close"] {
		t.Errorf("features %v", r.Status().Features)
	}
	ns := bpftest.NewNetNS(t, "optional")
	ns.Do(t, func() {
		c, err := net.Dial("udp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	})
	closed := r.WaitFor(t, ns, 1, bpftest.Event{"state": "closed"})[0]
	if bytes, ok := closed["bytes_sent"]; ok {
		t.Errorf("bytes_sent %s is made up", bytes)
	}
}

// What does not fit in the ring buffer is counted: nothing is lost silently.
func TestLossIsCounted(t *testing.T) {
	r := bpftest.Start(t, bpftest.Changed(packetdrop.Monitor, func(spec *ebpf.CollectionSpec) {
		spec.Maps["events"].MaxEntries = 4096
		// Nor is there room to add up drops that are not told one by one.
		for _, name := range []string{"window_a", "window_b"} {
			spec.Maps[name].MaxEntries = 1
		}
		spec.Maps["window"].InnerMap.MaxEntries = 1
	}))
	ns := bpftest.NewNetNS(t, "loss")
	const n = 5000
	ns.Do(t, func() {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for i := range n {
			if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7001 + i}); err != nil {
				t.Error(err)
			}
		}
	})
	got := len(r.Events(t, ns))
	lost := r.LostEvents()[bpf.LostRingBufferFull]
	// Drops of other traffic on this machine may be among the lost.
	if got == 0 || lost == 0 || int64(got)+lost < n {
		t.Errorf("%d events and %d lost, of %d", got, lost, n)
	}
	if status := r.Status(); status.Lost[bpf.LostRingBufferFull] != lost {
		t.Errorf("status says %v, the sink was told %d", status.Lost, lost)
	}
}

// Sockets that no map has room for are counted, and followed again when there is
// room: nothing is lost silently.
func TestFullMapIsCounted(t *testing.T) {
	m := bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) {
		spec.Maps["connections"].MaxEntries = 16
		spec.Maps["more_connections"].MaxEntries = 16
	})
	m.Iterators = nil // sockets of others, from before, would take the room
	r := bpftest.Start(t, m)
	ns := bpftest.NewNetNS(t, "full")
	connect := func(n int) {
		ns.Do(t, func() {
			l, err := net.Listen("tcp4", "127.0.0.1:7001")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for range n {
				c, err := net.Dial("tcp4", "127.0.0.1:7001")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				served, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer served.Close()
			}
		})
	}
	const n, all = 100, 4*100 + 2 // 4 events of each connection, 2 of the listener
	connect(n)
	got := len(r.Events(t, ns))
	lost := r.LostEvents()[bpf.LostMapFull]
	// What a socket would have told later is not counted, but its beginning is, at
	// the change of its state and at its accept.
	if got == 0 || got == all || int64(got)+lost < all {
		t.Errorf("%d events and %d lost, of %d", got, lost, all)
	}
	if status := r.Status(); status.Lost[bpf.LostMapFull] != lost {
		t.Errorf("status says %v, the sink was told %d", status.Lost, lost)
	}
	connect(1)
	r.WaitFor(t, ns, got+4+2, nil)
}

func TestStopHandsOverTheRest(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	r := bpftest.NewRecorder()
	program, err := bpf.Start(packetdrop.Monitor, host, bpf.Options{}, r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ns := bpftest.NewNetNS(t, "stop")
	const n = 100 // some are told one by one, the others added up
	ns.Do(t, func() {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range n {
			if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7001}); err != nil {
				t.Error(err)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := program.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, e := range r.Recorded(ns) {
		packets, _ := strconv.Atoi(e["count"])
		got += packets
	}
	if got != n {
		t.Errorf("%d drops after the stop, want %d", got, n)
	}
}
