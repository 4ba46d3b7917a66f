package programs_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// The SYN that meets a full accept queue is told with the process that listens, as often
// as the kernel counts it, and no other SYN is.
func TestSYNOfFullQueue(t *testing.T) {
	bpftest.RequireRoot(t)
	host := bpftest.NewHost(t)
	bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	drops := bpftest.StartOn(t, packetdrop.Monitor, host, bpf.Options{})
	if drops.Lacks(t, "full_listen_queue") {
		return
	}
	const backlog, clients = 2, 8
	for _, test := range []struct {
		name         string
		bound        unix.Sockaddr
		to           unix.Sockaddr
		near, remote string
	}{
		{"IPv4", &unix.SockaddrInet4{Port: 7001, Addr: [4]byte{10, 9, 0, 2}}, &unix.SockaddrInet4{Port: 7001, Addr: [4]byte{10, 9, 0, 2}}, "10.9.0.1", "10.9.0.2"},
		{"any IPv4", &unix.SockaddrInet4{Port: 7001}, &unix.SockaddrInet4{Port: 7001, Addr: [4]byte{10, 9, 0, 2}}, "10.9.0.1", "10.9.0.2"},
		{"any IPv6, by IPv4", &unix.SockaddrInet6{Port: 7001}, &unix.SockaddrInet4{Port: 7001, Addr: [4]byte{10, 9, 0, 2}}, "10.9.0.1", "10.9.0.2"},
		{"any IPv6", &unix.SockaddrInet6{Port: 7001}, &unix.SockaddrInet6{Port: 7001, Addr: [16]byte{0xfd, 0x09, 15: 2}}, "fd09::1", "fd09::2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := bpftest.Pair(t)
			listen := func(address unix.Sockaddr, backlog int) {
				b.Do(t, func() {
					l := stream(t, address)
					if err := errors.Join(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(l, address), unix.Listen(l, backlog)); err != nil {
						t.Error(err)
					}
				})
			}
			if test.name == "IPv4" { // until now another socket took what was sent there
				listen(&unix.SockaddrInet4{Port: 7001}, clients)
				a.Do(t, func() {
					for range clients {
						if err := unix.Connect(stream(t, test.to), test.to); !errors.Is(err, unix.EINPROGRESS) {
							t.Error(err)
						}
					}
				})
			}
			listen(test.bound, backlog)
			a.Do(t, func() {
				for range clients {
					if err := unix.Connect(stream(t, test.to), test.to); !errors.Is(err, unix.EINPROGRESS) {
						t.Error(err)
					}
					time.Sleep(20 * time.Millisecond) // or the kernel takes them for a flood
				}
			})
			want := bpftest.Event{
				"drop_reason": "TCP_LISTEN_OVERFLOW", "location": "tcp_rcv_state_process", "protocol": "tcp", "attribution": "receiving_socket",
				"pid": strconv.Itoa(os.Getpid()), "uid": "0", "source_ip": test.near, "destination_ip": test.remote,
				"destination_port": "7001", "interface": "v-b",
			}
			// They are sent again after a second and so on; the kernel's count is read on both sides of ours.
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				before := overflows(t, b)
				told := countOf(drops.Events(t, b), want)
				if before == overflows(t, b) && told == before && told >= clients-backlog-1 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the kernel counts %d, told are %d: %v", before, told, drops.Events(t, b))
				}
			}
			if all := drops.Events(t, b); countOf(all, want) != countOf(all, bpftest.Event{"drop_reason": "TCP_LISTEN_OVERFLOW"}) {
				t.Errorf("others are told too: %v", all)
			}
		})
	}
}

// stream makes a socket that does not wait, of the family of an address.
func stream(t *testing.T, address unix.Sockaddr) int {
	t.Helper()
	family := unix.AF_INET
	if _, six := address.(*unix.SockaddrInet6); six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// overflows is what the kernel counted in a namespace.
func overflows(t *testing.T, ns *bpftest.NetNS) (n int) {
	t.Helper()
	var text []byte
	ns.Do(t, func() {
		var err error
		if text, err = os.ReadFile("/proc/thread-self/net/netstat"); err != nil {
			t.Error(err)
		}
	})
	lines := strings.Split(string(text), "\n")
	for i, name := range strings.Fields(lines[0]) {
		if name == "ListenOverflows" {
			n, _ = strconv.Atoi(strings.Fields(lines[1])[i])
			return n
		}
	}
	t.Fatal("there is no ListenOverflows in netstat")
	return 0
}

// countOf adds up the packets of events that match.
func countOf(events []bpftest.Event, want bpftest.Event) (n int) {
	for _, e := range events {
		same := true
		for name, value := range want {
			same = same && e[name] == value
		}
		if same {
			count, _ := strconv.Atoi(e["count"])
			n += count
		}
	}
	return n
}
