package packetdrop_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// ordinaryConnections opens connections from one namespace to a server in
// another, four at a time, and ends them in the ways in which connections end:
// closed by the client or the server first, half-closed by either, by both at
// once, with much or little data in both directions.
func ordinaryConnections(t *testing.T, from, to *bpftest.NetNS, network, address string, n int) {
	t.Helper()
	var l net.Listener
	to.Do(t, func() {
		var err error
		if l, err = net.Listen(network, address); err != nil {
			t.Error(err)
		}
	})
	defer l.Close()
	var served sync.WaitGroup
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				head := make([]byte, 2)
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				size := int64(head[1]) << 8
				_, _ = io.CopyN(io.Discard, c, size)
				_, _ = c.Write(make([]byte, size+1))
				switch head[0] % 4 {
				case 0: // the client ends first
					_, _ = io.Copy(io.Discard, c)
				case 1: // the server ends first
				case 2: // the server ends its direction first
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				case 3: // both at once
				}
			})
		}
	}()
	var clients sync.WaitGroup
	for worker := range 4 {
		clients.Go(func() {
			from.Do(t, func() {
				for i := worker; i < n; i += 4 {
					c, err := net.Dial(network, address)
					if err != nil {
						t.Error(err)
						return
					}
					size := i / 4 % 256
					_, _ = c.Write(append([]byte{byte(i), byte(size)}, make([]byte, size<<8)...))
					_, _ = io.ReadFull(c, make([]byte, size<<8+1))
					switch i % 4 {
					case 0:
						_ = c.(*net.TCPConn).CloseWrite()
						_, _ = io.Copy(io.Discard, c)
					case 1, 2:
						_, _ = io.Copy(io.Discard, c)
					}
					c.Close()
				}
			})
		})
	}
	clients.Wait()
	served.Wait()
}

// Connections that go well drop nothing: the segments that the kernel frees in
// the end are counted as filtered, not told as drops.
func TestOrdinaryConnections(t *testing.T) {
	for _, test := range []struct{ name, network, near, far string }{
		{"IPv4", "tcp4", "127.0.0.1:7001", far4 + ":7001"},
		{"IPv6", "tcp6", "[::1]:7001", "[" + far6 + "]:7001"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			r := bpftest.Start(t, packetdrop.Monitor)
			each := 1250
			if bpftest.Emulated() {
				each = 300
			}
			ordinaryConnections(t, a, a, test.network, test.near, each)
			ordinaryConnections(t, a, b, test.network, test.far, each)
			var drops []bpftest.Event
			for _, ns := range []*bpftest.NetNS{a, b, {}} { // and those of which the namespace is not known
				for _, e := range r.Events(t, ns) {
					if e["source_port"] == "7001" || e["destination_port"] == "7001" {
						drops = append(drops, e)
						t.Logf("a drop: %v", e)
					}
				}
			}
			allowed := 0
			if bpftest.Emulated() {
				// The kernel does find no socket for a segment, or one that has moved on,
				// when another CPU stands still while it turns the socket into TIME_WAIT.
				allowed = 2 * each / 100
			}
			if len(drops) > allowed {
				t.Errorf("%d drops in %d connections", len(drops), 2*each)
			}
			if filtered := r.Status().Filtered[bpf.FilteredRule]; filtered < int64(each/2) {
				t.Errorf("%d filtered, want at least %d", filtered, each/2)
			}
		})
	}
}

// What a Unix-domain socket leaves unread is freed with it, by the same function as
// packets are.
func TestUnreadUnixMessageIsNoDrop(t *testing.T) {
	r := bpftest.Start(t, packetdrop.Monitor)
	before := r.Status().Filtered[bpf.FilteredRule]
	const messages = 50
	for range messages {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(pair[0], []byte("unread")); err != nil {
			t.Error(err)
		}
		unix.Close(pair[1])
		unix.Close(pair[0])
	}
	r.Events(t, &bpftest.NetNS{}) // counters are read when all is
	if filtered := r.Status().Filtered[bpf.FilteredRule] - before; filtered < messages {
		t.Errorf("%d filtered, want at least %d", filtered, messages)
	}
}
