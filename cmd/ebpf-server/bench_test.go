package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// cpuSeconds returns what a process has used so far, in user and kernel mode.
func cpuSeconds(b testing.TB, pid int) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// Behind the command in brackets, utime and stime are the 12th and 13th
	// field, in ticks of 1/100 s (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	if err != nil {
		b.Fatal(err)
	}
	return (user + system) / 100
}

func (l programList) lost() (n int64) {
	for _, p := range l.Programs {
		for _, lost := range p.Lost {
			n += lost
		}
	}
	return n
}

func benchServer(b *testing.B) *server {
	b.Helper()
	config := filepath.Join(b.TempDir(), "ebpf-server.yaml")
	if err := os.WriteFile(config, []byte("storage: {flush_interval: 100ms}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	return start(b, filepath.Join(built, "ebpf-server"), filepath.Join(b.TempDir(), "events.db"), "--config", config)
}

// BenchmarkRingBufferToFile fills the ring buffer while the program is stopped,
// then lets it go on and takes the time until all is in the file.
func BenchmarkRingBufferToFile(b *testing.B) {
	s := benchServer(b)
	ns := bpftest.NewNetNS(b, "bench")
	const n = 80_000 // fits in the ring buffer, see monitor.h, with room for others
	pid := s.command.Process.Pid
	for b.Loop() {
		before, _ := s.storedEvents()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			b.Fatal(err)
		}
		ns.Do(b, func() { udpConnections(b, n/2) })
		used, began := cpuSeconds(b, pid), time.Now()
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			b.Fatal(err)
		}
		for {
			if stored, all := s.storedEvents(); all && stored >= before+n {
				break
			}
			time.Sleep(time.Millisecond)
		}
		b.ReportMetric(n/time.Since(began).Seconds(), "events/s")
		b.ReportMetric((cpuSeconds(b, pid)-used)/n*1e6, "CPU-s/Mevent")
	}
	if lost := s.programs().lost(); lost != 0 {
		b.Errorf("%d events were lost", lost)
	}
}

// udpConnections connects a socket n times, which makes 2 * n events; as fast as
// events can be made.
func udpConnections(b testing.TB, n int) {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		b.Error(err)
		return
	}
	defer unix.Close(c)
	for range n {
		if err := unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7001}); err != nil {
			b.Error(err)
			return
		}
	}
}
