package connection_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// child, if set, makes this binary a process of a test, by the name of its part.
const child = "CONNECTION_TEST_CHILD"

var children = map[string]func() error{
	"leave":      leaveListener,
	"accept":     acceptAndServe,
	"pass":       acceptAndPass,
	"share port": sharePort,
	"accept all": acceptAll,
	"connect":    connectAndPass,
	"hand down":  connectAndHandDown,
}

func TestMain(m *testing.M) {
	part := os.Getenv(child)
	if part == "" {
		os.Exit(m.Run())
	}
	if err := children[part](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// leaveListener listens, hands the socket to a child and ends.
func leaveListener() error {
	l, err := net.Listen("tcp4", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)
	return nil
}

// Who listened and has ended owns nothing: that the child has the socket is not
// known, so nobody is named.
func TestListenerThatLeft(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "left")
	parent := ns.Command(os.Args[0])
	parent.Env = append(os.Environ(), child+"=leave")
	out, err := parent.Output()
	if err != nil {
		t.Fatalf("listen and leave: %v", err)
	}
	holder, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	ns.Do(t, func() {
		c, err := net.Dial("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if err := syscall.Kill(holder, syscall.SIGKILL); err != nil { // resets what waits to be accepted
			t.Error(err)
		}
		_, _ = c.Read(make([]byte, 1))
	})
	for _, state := range []string{"established", "closed"} {
		e := r.WaitFor(t, ns, 1, bpftest.Event{"direction": "inbound", "state": state})[0]
		if e["pid"] != "" || e["attribution"] != "" {
			t.Errorf("%s belongs to %s (%s), by %s", state, e["command"], e["pid"], e["attribution"])
		}
	}
}

// play starts this binary as a process of the test; files are its descriptors
// from 3 on.
func play(t *testing.T, ns *bpftest.NetNS, part string, files ...*os.File) *exec.Cmd {
	t.Helper()
	process := ns.Command(os.Args[0])
	process.Env = append(os.Environ(), child+"="+part)
	process.ExtraFiles, process.Stderr = files, os.Stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	return process
}

// acceptAndServe accepts one connection on descriptor 3 and reads all of it.
func acceptAndServe() error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	c.Close()
	return err
}

// acceptAndPass accepts one connection on descriptor 3, passes it on by the
// socket 4 and ends.
func acceptAndPass() error {
	fd, _, err := unix.Accept(3)
	if err != nil {
		return err
	}
	return unix.Sendmsg(4, []byte{1}, unix.UnixRights(fd), nil, 0)
}

var reusePort = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
}}

// sharePort listens where another process does, says so, and waits.
func sharePort() error {
	l, err := reusePort.Listen(context.Background(), "tcp4", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(os.NewFile(3, "ready"))
	_, err = io.Copy(io.Discard, os.NewFile(4, "until"))
	return err
}

func file(t *testing.T, l net.Listener) *os.File {
	t.Helper()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// One process listens, another accepts.
func TestPreFork(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "prefork")
	ns.Do(t, func() {
		l := listen(t, "127.0.0.1:7001")
		worker := play(t, ns, "accept", file(t, l))
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		write(t, c)
		c.Close()
		want := bpftest.Event{"direction": "inbound", "attribution": "accept", "pid": strconv.Itoa(worker.Process.Pid)}
		r.WaitFor(t, ns, 1, with(want, "state", "established"))
		r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_received": "10"}))
	})
}

// A connection belongs to the process that accepted it, also when that has
// passed it on (SCM_RIGHTS) and ended.
func TestPassedOn(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "passed")
	pipe, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pipe[1]), "pipe")
	defer unix.Close(pipe[0])
	ns.Do(t, func() {
		l := listen(t, "127.0.0.1:7001")
		process := play(t, ns, "pass", file(t, l), theirs)
		theirs.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fd := receiveSocket(t, pipe[0])
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
		write(t, c)
		c.Close()
		if _, err := unix.Read(fd, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
		want := bpftest.Event{"direction": "inbound", "attribution": "accept", "pid": strconv.Itoa(process.Process.Pid)}
		r.WaitFor(t, ns, 1, with(want, "state", "established"))
		r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_received": "10"}))
	})
}

// What nobody accepts on a port that several processes share is nobody's; found
// or seen.
func TestSharedPort(t *testing.T) {
	ns := bpftest.NewNetNS(t, "shared")
	ready, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stays, until, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer until.Close()
	ns.Do(t, func() {
		share := func() {
			l, err := reusePort.Listen(t.Context(), "tcp4", "127.0.0.1:7001")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}
		share()
		other := play(t, ns, "share port", says, stays)
		if _, err := ready.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		r := bpftest.Start(t, connection.Monitor)
		share()
		for range 64 { // the kernel chooses among the sockets: one in three is the other process's
			c, err := net.Dial("tcp", "127.0.0.1:7001")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
		_ = other.Process.Kill()
		_ = other.Wait()
		inbound := 0
		for _, e := range r.Events(t, ns) {
			if e["direction"] != "inbound" {
				continue
			}
			inbound++
			if e["pid"] != "" || e["attribution"] != "" {
				t.Errorf("%s of a shared port belongs to %s by %s", e["state"], e["pid"], e["attribution"])
			}
		}
		if inbound == 0 {
			t.Error("no connection ended with the other process")
		}
	})
}
