package connection_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// ofConnections leaves out the events of sockets that listen.
func ofConnections(events []bpftest.Event) []bpftest.Event {
	return slices.DeleteFunc(events, func(e bpftest.Event) bool { return e["direction"] == "" })
}

var listenerPID = regexp.MustCompile(`pid=(\d+),`)

// showListening returns the address and the processes of each socket that ss shows.
func showListening(t *testing.T, ns *bpftest.NetNS) (sockets []string, pids map[string][]string) {
	t.Helper()
	pids = map[string][]string{}
	for line := range strings.Lines(ns.Run(t, "ss", "-Htlnp")) {
		fields := strings.Fields(line)
		socket := strings.Replace(fields[3], "*:", "[::]:", 1) // of both families
		sockets = append(sockets, socket)
		for _, pid := range listenerPID.FindAllStringSubmatch(line, -1) {
			pids[socket] = append(pids[socket], pid[1])
		}
	}
	slices.Sort(sockets)
	return sockets, pids
}

// checkListening compares what listens by the events with what ss shows, and
// returns the events of that.
func checkListening(t *testing.T, r *bpftest.Recorder, ns *bpftest.NetNS) []bpftest.Event {
	t.Helper()
	stopped := map[string]bool{}
	var listen []bpftest.Event
	var sockets []string
	all := r.Events(t, ns)
	for _, e := range all {
		if e["state"] == "stopped" {
			stopped[e["connection_id"]] = true
		}
	}
	truth, pids := showListening(t, ns)
	for _, e := range all {
		if e["state"] != "listening" || stopped[e["connection_id"]] {
			continue
		}
		socket := net.JoinHostPort(e["destination_ip"], e["destination_port"])
		sockets, listen = append(sockets, socket), append(listen, e)
		if e["pid"] != "" && !slices.Contains(pids[socket], e["pid"]) {
			t.Errorf("%s listens on %s, ss has %v", e["pid"], socket, pids[socket])
		}
		for _, column := range []string{"direction", "source_ip", "source_port", "return_code", "bytes_sent", "duration_ns", "rtt_us", "community_id"} {
			if value, ok := e[column]; ok {
				t.Errorf("%s has %s %s", socket, column, value)
			}
		}
	}
	slices.Sort(sockets)
	if !slices.Equal(sockets, truth) {
		t.Errorf("listening are %v, ss has %v", sockets, truth)
	}
	return listen
}

// What listens is what ss shows, before and after some of it ends.
func TestListening(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "listening")
	var listeners []net.Listener
	ns.Do(t, func() {
		for _, l := range []struct{ network, address string }{
			{"tcp4", "127.0.0.1:7001"}, {"tcp4", "0.0.0.0:7002"}, {"tcp6", "[::1]:7003"}, {"tcp6", "[::]:7004"}, {"tcp", ":7005"}, {"tcp4", ":0"},
		} {
			// Go listens by MPTCP unless it is told not to.
			for _, mptcp := range []bool{false, true} {
				var config net.ListenConfig
				config.Control = reusePort.Control
				config.SetMultipathTCP(mptcp)
				listener, err := config.Listen(context.Background(), l.network, l.address)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { listener.Close() })
				listeners = append(listeners, listener)
			}
		}
	})
	began := checkListening(t, r, ns)
	if len(began) != 12 {
		t.Fatalf("%d listen, want 12", len(began))
	}
	for _, e := range began {
		for column, want := range self(t, bpftest.Event{"attribution": "listener", "protocol": "tcp"}) {
			if e[column] != want {
				t.Errorf("%s is %q, want %q", column, e[column], want)
			}
		}
	}
	for _, l := range listeners[:7] {
		l.Close()
	}
	checkListening(t, r, ns)
	for _, e := range r.WaitFor(t, ns, 7, self(t, bpftest.Event{"state": "stopped", "attribution": "listener"})) {
		at := slices.IndexFunc(began, func(b bpftest.Event) bool { return b["connection_id"] == e["connection_id"] })
		if at < 0 || began[at]["destination_ip"] != e["destination_ip"] || began[at]["destination_port"] != e["destination_port"] {
			t.Errorf("stopped, but never listened: %v", e)
			continue
		}
		checkDuration(t, began[at], e)
	}
	if lost := r.LostEvents(); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// What one socket can do about listening.
func TestListenCalls(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "listen")
	ns.Do(t, func() {
		fd := socketOf(t, 0)
		defer unix.Close(fd)
		if err := unix.Listen(fd, 1); err != nil { // the kernel chooses the port
			t.Fatal(err)
		}
		first := checkListening(t, r, ns)
		if err := unix.Listen(fd, 100); err != nil { // another backlog
			t.Error(err)
		}
		if again := checkListening(t, r, ns); len(again) != 1 || again[0]["connection_id"] != first[0]["connection_id"] {
			t.Errorf("a second listen(): %v", again)
		}
		if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
			t.Error(err)
		}
		checkListening(t, r, ns)
		checkDuration(t, first[0], r.WaitFor(t, ns, 1, bpftest.Event{"state": "stopped", "connection_id": first[0]["connection_id"]})[0])
		if err := unix.Listen(fd, 1); err != nil {
			t.Error(err)
		}
		if later := checkListening(t, r, ns); len(later) != 1 || later[0]["connection_id"] == first[0]["connection_id"] {
			t.Errorf("listens again: %v", later)
		}
	})
	r.WaitFor(t, ns, 2, bpftest.Event{"state": "listening"})
	r.WaitFor(t, ns, 2, bpftest.Event{"state": "stopped"})
}

// A listen() that fails is not told of: the socket never listened.
func TestListenFails(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "listen")
	ns.Do(t, func() {
		var both [2]int
		for i := range both {
			both[i] = socketOf(t, 0)
			defer unix.Close(both[i])
			if err := errors.Join(unix.SetsockoptInt(both[i], unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(both[i], v4(127, 0, 0, 1, 7001))); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Listen(both[0], 1); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(both[1], 1); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a second socket listens on the same port: %v", err)
		}
		checkListening(t, r, ns)
	})
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "listening"})
	r.WaitFor(t, ns, 1, bpftest.Event{"state": "stopped"})
}

// Several processes listen on one port, each with a socket of its own; one is killed.
func TestListenersOfProcesses(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "listen")
	var pids []string
	for range 2 {
		ready, theirs := pipe(t)
		until, _ := pipe(t)
		process := play(t, ns, "share port", theirs, until)
		if _, err := ready.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strconv.Itoa(process.Process.Pid))
		if len(pids) == 1 {
			continue
		}
		if listen := checkListening(t, r, ns); len(listen) != 2 || listen[0]["pid"] != pids[0] || listen[1]["pid"] != pids[1] {
			t.Errorf("%v listen: %v", pids, listen)
		}
		if err := errors.Join(process.Process.Kill(), ignore(process.Wait())); err != nil {
			t.Error(err)
		}
		r.WaitFor(t, ns, 1, bpftest.Event{"state": "stopped", "pid": pids[1], "attribution": "listener"})
		checkListening(t, r, ns)
	}
}

func ignore(error) error { return nil }

// pipe returns both ends of a pipe, which are closed after the test.
func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	return read, write
}

// A child of the process that listened goes on alone: who called listen() is told,
// and that it is over when the last holder is gone.
func TestListenerLeftToChild(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "listen")
	parent := ns.Command(os.Args[0])
	parent.Env = append(os.Environ(), child+"=leave")
	out, err := parent.Output()
	if err != nil {
		t.Fatalf("listen and leave: %v", err)
	}
	want := bpftest.Event{"attribution": "listener", "pid": strconv.Itoa(parent.Process.Pid), "destination_port": "7001"}
	began := r.WaitFor(t, ns, 1, with(want, "state", "listening"))[0]
	if _, pids := showListening(t, ns); !slices.Equal(pids["127.0.0.1:7001"], []string{strings.TrimSpace(string(out))}) {
		t.Errorf("not left to the child %s: %v", out, pids)
	}
	// Who starts later finds the child alone.
	second := bpftest.Start(t, connection.Monitor)
	found := checkListening(t, second, ns)
	if len(found) != 1 || found[0]["pid"] != strings.TrimSpace(string(out)) {
		t.Errorf("found: %v, want that of %s", found, out)
	} else if found[0]["connection_id"] != began["connection_id"] && !second.Lacks(t, "existing_udp") { // without cookies
		t.Errorf("found: %v, began: %v", found, began)
	}
	holder, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(holder, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	checkDuration(t, began, r.WaitFor(t, ns, 1, with(want, "state", "stopped"))[0])
}

// Listeners that were there before: who owns them, and that they have the same
// id whenever the monitor starts.
func TestExistingListeners(t *testing.T) {
	ns := bpftest.NewNetNS(t, "listen")
	var listeners [5]net.Listener
	ns.Do(t, func() {
		for i := range listeners {
			var config net.ListenConfig
			config.SetMultipathTCP(i == 4)
			var err error
			if listeners[i], err = config.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", 7000+i)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { listeners[i].Close() })
		}
	})
	holders := map[string]string{}
	for i, n := range []int{0, 1, 1, 2, 0} { // children that hold it
		var pid string
		for range n {
			pid = hold(t, listeners[i].(*net.TCPListener))
		}
		port := strconv.Itoa(7000 + i)
		switch i {
		case 2:
			holders[port] = pid
		case 3: // two strangers
			holders[port] = ""
		default:
			holders[port] = strconv.Itoa(os.Getpid())
			continue
		}
		listeners[i].Close()
	}
	ids := map[string]string{}
	for run := range 2 {
		r := bpftest.Start(t, connection.Monitor)
		for _, e := range checkListening(t, r, ns) {
			port := e["destination_port"]
			if e["attribution"] != "existing" || e["pid"] != holders[port] {
				t.Errorf("port %s belongs to %q (%s), want %q", port, e["pid"], e["attribution"], holders[port])
			}
			if ids[port] != "" && ids[port] != e["connection_id"] && !r.Lacks(t, "existing_udp") { // without cookies
				t.Errorf("port %s has the ids %s and %s", port, ids[port], e["connection_id"])
			}
			ids[port] = e["connection_id"]
		}
		if run == 1 {
			listeners[4].Close()
			if e := r.WaitFor(t, ns, 1, bpftest.Event{"state": "stopped", "connection_id": ids["7004"]})[0]; e["duration_ns"] != "" || e["attribution"] != "existing" {
				t.Errorf("nobody saw it begin: %v", e)
			}
		}
	}
}
