package main_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// listening asks what listened in a namespace at a moment.
func (s *server) listening(ns *bpftest.NetNS, moment time.Time) opened {
	s.t.Helper()
	return s.openAt(ns, moment, "state", "listening")
}

// listeners are the addresses of the sockets that listen, as ss has them.
func (o opened) listeners() []string {
	var all []string
	for _, e := range o.Events {
		all = append(all, net.JoinHostPort(e.DestinationIP, strconv.Itoa(e.DestinationPort)))
	}
	slices.Sort(all)
	return all
}

var listenerPID = regexp.MustCompile(`pid=(\d+),`)

// showListening returns what ss has: the address of each socket that listens, and
// the processes that hold one there.
func showListening(t testing.TB, ns *bpftest.NetNS) (sockets []string, pids map[string][]string) {
	t.Helper()
	pids = map[string][]string{}
	for line := range strings.Lines(ns.Run(t, "ss", "-tlnpH")) {
		socket := strings.Replace(strings.Fields(line)[3], "*:", "[::]:", 1)
		sockets = append(sockets, socket)
		for _, pid := range listenerPID.FindAllStringSubmatch(line, -1) {
			pids[socket] = append(pids[socket], pid[1])
		}
	}
	slices.Sort(sockets)
	return sockets, pids
}

// checkListening compares what listens now with ss, also each owner.
func (s *server) checkListening(ns *bpftest.NetNS) opened {
	s.t.Helper()
	sockets, pids := showListening(s.t, ns)
	got := s.listening(ns, time.Time{})
	if !slices.Equal(got.listeners(), sockets) || got.Total != len(sockets) {
		s.t.Errorf("listening are %v, ss shows %v", got.listeners(), sockets)
	}
	for _, e := range got.Events {
		if socket := net.JoinHostPort(e.DestinationIP, strconv.Itoa(e.DestinationPort)); !slices.Contains(pids[socket], strconv.Itoa(e.PID)) {
			s.t.Errorf("%s is listened on by %d, ss shows %v", socket, e.PID, pids[socket])
		}
	}
	return got
}

// listenIn listens in a namespace, several times on one port if that is asked for.
// With mptcp it does so as Go does by default.
func listenIn(t *testing.T, ns *bpftest.NetNS, network, address string, mptcp bool) net.Listener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	config.SetMultipathTCP(mptcp)
	var l net.Listener
	ns.Do(t, func() {
		var err error
		if l, err = config.Listen(context.Background(), network, address); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// preFork starts a server of two workers that have its socket by fork; what is
// left of them ends with the test.
func preFork(t *testing.T, ns *bpftest.NetNS, port int) *exec.Cmd {
	t.Helper()
	server := ns.Command("python3", "-c", `
import os, signal, socket, sys
s = socket.create_server(("", int(sys.argv[1])))
for _ in range(2):
    if not os.fork():
        signal.pause()
print("listening", flush=True)
signal.pause()`, strconv.Itoa(port))
	server.SysProcAttr, server.Stderr = &syscall.SysProcAttr{Setpgid: true}, os.Stderr
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err == nil {
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-server.Process.Pid, syscall.SIGKILL)
		_ = server.Wait()
	})
	return server
}

func (o opened) listener(t *testing.T, port int) (id string, age *int64) {
	t.Helper()
	for _, e := range o.Events {
		if e.DestinationPort == port {
			return e.ID, e.AgeNS
		}
	}
	t.Errorf("nobody listens on port %d", port)
	return "", nil
}

// What listens is what ss shows, with its owner and age: now, in the past after some
// of it ended, and after a restart.
func TestListeningAt(t *testing.T) {
	db, binary := filepath.Join(t.TempDir(), "events.db"), filepath.Join(built, "ebpf-server")
	ns := bpftest.NewNetNS(t, "listening")
	preFork(t, ns, 7001) // before anybody watches
	ending := listenIn(t, ns, "tcp6", "[::1]:7002", true)

	first := start(t, binary, db)
	kept := listenIn(t, ns, "tcp4", "0.0.0.0:7003", false)
	made := time.Now()
	listenIn(t, ns, "tcp4", "127.0.0.1:7004", false)
	listenIn(t, ns, "tcp4", "127.0.0.1:7004", true)
	listenIn(t, ns, "tcp", ":7005", true)
	killed := preFork(t, ns, 7006)
	full := time.Now()
	sockets, _ := showListening(t, ns)
	got := first.checkListening(ns)
	if len(sockets) != 7 || !got.Coverage.Complete && len(got.Coverage.Gaps) == 0 {
		t.Errorf("%d listen, want 7; %+v", len(sockets), got.Coverage)
	}
	id, age := got.listener(t, 7003)
	if want := got.Time.Sub(made); age == nil || time.Duration(*age) < want || time.Duration(*age) > want+time.Second {
		t.Errorf("listens for %v, want %v", age, want)
	}
	if _, age := got.listener(t, 7001); age != nil {
		t.Error("the age of what was there before is known")
	}

	// A connection and its listener are found by the same port, and told apart by the state.
	ns.Do(t, func() {
		c, err := net.Dial("tcp4", "127.0.0.1:7003")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		served, err := kept.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		var all opened
		first.get("/api/connections/at", query("netns", ns.Inode, "destination_port", "7003"), &all)
		states := map[string]int{}
		for _, e := range all.Events {
			states[e.State+" "+e.Direction]++
		}
		if all.Total != 3 || states["listening "] != 1 || states["established inbound"] != 1 || states["established outbound"] != 1 {
			t.Errorf("on the port: %v", states)
		}
	})

	ending.Close()
	if err := syscall.Kill(killed.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = killed.Wait() // the workers have its socket still
	if !slices.Contains(first.listening(ns, time.Time{}).listeners(), "0.0.0.0:7006") {
		t.Error("port 7006 is closed with its first process")
	}
	if err := syscall.Kill(-killed.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		if sockets, _ := showListening(t, ns); slices.Contains(sockets, "0.0.0.0:7006") {
			return fmt.Errorf("its workers still listen")
		}
		return nil
	})
	before := first.checkListening(ns).listeners()
	if got := first.listening(ns, full); !slices.Equal(got.listeners(), sockets) {
		t.Errorf("a while ago %v listened, want %v", got.listeners(), sockets)
	}
	checkListenerEnds(t, first, ns, killed.Process.Pid)
	first.stop()

	listenIn(t, ns, "tcp6", "[::]:7007", true)
	during := time.Now()
	second := start(t, binary, db)
	got = second.checkListening(ns)
	if again, age := got.listener(t, 7003); again != id || age == nil || time.Duration(*age) < got.Time.Sub(made) {
		t.Errorf("after the restart it is %s of age %v, want %s", again, age, id)
	}
	for _, port := range []int{7001, 7007} {
		if _, age := got.listener(t, port); age != nil {
			t.Errorf("the age of what nobody saw begin is known, on port %d", port)
		}
	}
	if got := second.listening(ns, full); !slices.Equal(got.listeners(), sockets) {
		t.Errorf("before the restart %v listened, want %v", got.listeners(), sockets)
	}
	if got := second.listening(ns, during); !slices.Equal(got.listeners(), before) || got.Coverage.Complete {
		t.Errorf("when it ended %v listened, want %v; coverage %+v", got.listeners(), before, got.Coverage)
	}
	table := bpftest.Run(t, binary, "connections", "--server", second.url, "--time", full.Format(time.RFC3339Nano), "netns="+ns.Inode, "state=listening")
	if !strings.Contains(table, "0.0.0.0:7003") || strings.Count(table, " listening ") != 7 {
		t.Errorf("shown on the terminal:\n%s", table)
	}
}

// checkListenerEnds asks for the ends of listeners: one that nobody saw begin, and
// one whose process was killed.
func checkListenerEnds(t *testing.T, s *server, ns *bpftest.NetNS, killed int) {
	t.Helper()
	got := s.events(in(ns, "state", "stopped", "order", "asc"))
	if got.Count != 2 || got.Events[0]["destination_port"] != 7002.0 || got.Events[0]["duration_ns"] != nil ||
		got.Events[1]["destination_port"] != 7006.0 || got.Events[1]["pid"] != float64(killed) || got.Events[1]["duration_ns"] == nil {
		t.Errorf("ended: %v", got.Events)
		return
	}
	var life story
	s.get("/api/connections/"+got.Events[1]["connection_id"].(string), nil, &life)
	if life.Count != 2 || life.Events[0].State != "listening" || life.Events[1].State != "stopped" || !life.Coverage.Complete {
		t.Errorf("its story: %+v", life)
	}
	// Zeek has connections alone.
	log := bpftest.Run(t, filepath.Join(built, "ebpf-server"), "export", "--server", s.url, "--format", "zeek", "netns="+ns.Inode)
	if lines := strings.Count(log, "\t7003\t"); !strings.Contains(log, "#path\tconn") || lines != 2 || strings.Contains(log, "\t7006\t") {
		t.Errorf("as a conn.log:\n%s", log)
	}
}
