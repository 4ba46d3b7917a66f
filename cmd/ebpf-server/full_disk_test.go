package main_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// health is what GET /health says, whether all is well or not.
type health struct {
	code   int
	Status string
	Store  struct {
		Events, Pending int64
		LastError       string `json:"last_error"`
	}
	Lost map[string]int64
}

func (s *server) health() (h health) {
	s.t.Helper()
	answer, err := http.Get(s.url + "/health")
	if err != nil {
		s.t.Fatalf("the server does not answer: %v\n%s", err, s.log)
	}
	defer answer.Body.Close()
	h.code = answer.StatusCode
	if err := json.NewDecoder(answer.Body).Decode(&h); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// writeFailed returns how many events the store could not keep, of all types.
func (s *server) writeFailed() (n int64) {
	s.t.Helper()
	for _, p := range s.programs().Programs {
		n += p.Lost["write_failed"]
	}
	return n
}

// smallDisk mounts a disk of some MiB until the test ends.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	bpftest.RequireRoot(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// On a full disk the program goes on and says so, keeps events in memory as far
// as it may, counts the others as lost, and stores what it has when there is room.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 64)
	ballast := filepath.Join(disk, "ballast")
	f := startOnFailingDisk(t, filepath.Join(disk, "events.db"))
	if err := os.WriteFile(ballast, make([]byte, 128<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	f.fails("no space left on device")
	f.overflows()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.recovers()
}

// So it does when the kernel refuses to write for another reason.
func TestFileSizeLimit(t *testing.T) {
	f := startOnFailingDisk(t, filepath.Join(t.TempDir(), "events.db"))
	pid := f.command.Process.Pid
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 16 << 10, Max: unix.RLIM_INFINITY}, &old); err != nil {
		t.Fatal(err)
	}
	f.fails("file too large")
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &old, nil); err != nil {
		t.Fatal(err)
	}
	f.recovers()
}

// failingDisk is a server whose file cannot be written for a while.
type failingDisk struct {
	*server
	t           *testing.T
	db          string
	ns          *bpftest.NetNS
	connections int64 // made in ns so far
	events      int64 // of these, and of what listened for them
	datagrams   int64 // sent in ns so far, and dropped
}

func startOnFailingDisk(t *testing.T, db string) *failingDisk {
	t.Helper()
	config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	if err := os.WriteFile(config, []byte("storage: {flush_interval: 500ms}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &failingDisk{t: t, db: db, server: start(t, filepath.Join(built, "ebpf-server"), db, "--config", config), ns: bpftest.NewNetNS(t, "disk")}
	f.connect(50)
	eventually(t, func() error {
		if h := f.health(); h.code != http.StatusOK || h.Status != "ok" || h.Store.Events < 4*50 || h.Store.Pending != 0 {
			return fmt.Errorf("before anything fails: %+v", h)
		}
		return nil
	})
	return f
}

func (f *failingDisk) connect(n int) {
	f.t.Helper()
	traffic(f.t, f.ns, n)
	f.connections += int64(n)
	f.events += eventsOf(int64(n))
}

// all wants every connection in the answers of a server, and if they are to be
// complete, that it says so.
func (f *failingDisk) all(of *server, complete bool) {
	f.t.Helper()
	eventually(f.t, func() error {
		got := of.summary("connections", in(f.ns))
		if got.Count != f.events || complete && !got.Coverage.Complete {
			return fmt.Errorf("%d events of %d, coverage %+v", got.Count, f.events, got.Coverage)
		}
		return nil
	})
}

// fails makes connections while the file cannot be written.
func (f *failingDisk) fails(reason string) {
	f.t.Helper()
	before := f.health().Store.Events
	for range 3 { // several flushes
		f.connect(100)
		time.Sleep(600 * time.Millisecond)
	}
	f.all(f.server, true)
	h := f.health()
	if h.code != http.StatusServiceUnavailable || h.Status != "down" || !strings.Contains(h.Store.LastError, reason) {
		f.t.Errorf("health while writing fails: %+v", h)
	}
	if h.Store.Pending < 4*300 || h.Store.Events < before+4*300 || f.writeFailed() != 0 {
		f.t.Errorf("events are not kept in memory: %+v, %d before", h, before)
	}
	if n := strings.Count(f.log.String(), "cannot write events"); n != 1 {
		f.t.Errorf("the log says %d times that events cannot be written", n)
	}
}

// overflows sends more datagrams, which are all dropped, than events may wait
// in memory.
func (f *failingDisk) overflows() {
	f.t.Helper()
	const limit = 1 << 20 // of docs/format.md
	// Dropped early, so that the kernel has little to do for each.
	dropUDP(f.t, f.ns)
	for f.writeFailed() == 0 {
		if f.datagrams > 2*limit {
			f.t.Fatalf("nothing is lost after %d datagrams: %+v", f.datagrams, f.health())
		}
		f.ns.Do(f.t, func() { f.datagrams += dropDatagrams(f.t) })
		f.summary("packet_drops", in(f.ns)) // so that the next ones are told one by one as well
	}
	if h := f.health(); h.Store.Pending > limit || h.Store.Pending < limit/2 || h.Lost["packet_drop"] == 0 {
		f.t.Errorf("health at the limit: %+v", h)
	}
	f.told(f.server)
	f.balances()
}

// dropUDP lets no datagram of the namespace arrive.
func dropUDP(t *testing.T, ns *bpftest.NetNS) {
	t.Helper()
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook prerouting priority -300; }; add rule ip t in meta l4proto udp drop")
}

// dropDatagrams sends as many datagrams to nobody as become events of their own:
// ALONE and one more of each kind, see bpf/include/packet_drop_flood.h.
func dropDatagrams(t *testing.T) (sent int64) {
	t.Helper()
	const alone, kinds = 15, 3000
	return sendDatagrams(t, net.IPv4(127, 0, 0, 1), alone+1, kinds)
}

// sendDatagrams sends some to each of so many ports, from a raw socket: those of a
// UDP socket would be flows, and events of connections.
func sendDatagrams(t *testing.T, to net.IP, each, ports int) (sent int64) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer unix.Close(fd)
	address := &unix.SockaddrInet4{Addr: [4]byte(to.To4())}
	// The kernel fills in the length and checksum of the IPv4 header.
	packet := []byte{0x45, 8: 64, unix.IPPROTO_UDP, 12: 127, 0, 0, 1}
	packet = append(packet, address.Addr[:]...)
	packet = append(packet, 7000>>8, 7000&0xff, 0, 0, 0, 8, 0, 0) // UDP: ports, length, no checksum
	for range each {
		for port := range ports {
			binary.BigEndian.PutUint16(packet[22:], uint16(7001+port))
			if err := unix.Sendto(fd, packet, 0, address); err != nil {
				t.Error(err)
				return sent
			}
			sent++
		}
	}
	return sent
}

// told wants each datagram to be recorded or told as lost.
func (f *failingDisk) told(of *server) {
	f.t.Helper()
	got := of.summary("packet_drops", in(f.ns))
	if lost := got.Coverage.Lost["packet_drop"]; got.Count+lost < f.datagrams || got.Count > f.datagrams || lost == 0 || got.Coverage.Complete {
		f.t.Errorf("%d recorded and %d lost of %d datagrams", got.Count, lost, f.datagrams)
	}
}

// recovers wants everything in the file that was not lost, when it can be
// written again, and after a restart.
func (f *failingDisk) recovers() {
	f.t.Helper()
	var drops int64
	if f.datagrams > 0 {
		drops = f.summary("packet_drops", in(f.ns)).Count
	}
	eventually(f.t, func() error {
		if h := f.health(); h.code != http.StatusOK || h.Status != "ok" || h.Store.LastError != "" || h.Store.Pending > 0 {
			return fmt.Errorf("health when there is room again: %+v", h)
		}
		return nil
	})
	if !strings.Contains(f.log.String(), "written to the file again") {
		f.t.Errorf("the log does not say that events are written again:\n%s", f.log)
	}
	f.balances()
	lost := f.writeFailed() // not before: until there is room, what else happens on this host is lost too
	f.connect(50)
	f.all(f.server, lost == 0)
	if now := f.writeFailed(); now != lost {
		f.t.Errorf("%d events are lost, %d were when there was room again", now, lost)
	}
	f.stop()

	verb(f.t, "check", "--db", f.db)
	second := start(f.t, filepath.Join(built, "ebpf-server"), f.db)
	f.all(second, false) // between the two runs nothing was recorded
	if f.datagrams > 0 {
		f.told(second)
		if got := second.summary("packet_drops", in(f.ns)).Count; got != drops {
			f.t.Errorf("%d drops are in the file, %d were in memory", got, drops)
		}
	}
	f.t.Logf("%d connections and %d drops stored, %d events lost", f.connections, drops, lost)
}
