package connection_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// onThread calls f on a thread of its own, which is not the one that the process has
// its number from and has another name. The thread ends with it.
func onThread(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			onThread(t, f) // while this one waits, so it is another
			runtime.UnlockOSThread()
			return
		}
		if err := os.WriteFile("/proc/thread-self/comm", []byte("not-the-leader"), 0); err != nil {
			t.Error(err)
		}
		f()
	}()
	<-done
}

// One thread listens, another connects and a third accepts, neither of them the one that
// the process has its number from: all is the process's.
func TestThreads(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	for _, name := range []string{"accept first", "connect first"} {
		t.Run(name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "threads")
			var listens, connects, accepts int
			ns.Do(t, func() {
				server, client := socketOf(t, 0), socketOf(t, 0)
				defer unix.Close(client)
				listenOn(t, server)
				listens = unix.Gettid()
				connect := func() {
					onThread(t, func() {
						connects = unix.Gettid()
						if err := unix.Connect(client, v4(127, 0, 0, 1, 7001)); err != nil {
							t.Error(err)
						}
					})
				}
				if name == "connect first" {
					connect()
				}
				ready, accepted := make(chan struct{}), make(chan error, 1)
				go onThread(t, func() {
					accepts = unix.Gettid()
					close(ready)
					fd, _, err := unix.Accept(server)
					accepted <- errors.Join(err, unix.Close(fd))
				})
				<-ready
				if name == "accept first" {
					connect()
				}
				if err := <-accepted; err != nil {
					t.Error(err)
				}
			})
			if pid := os.Getpid(); accepts == listens || accepts == pid || connects == pid || connects == listens {
				t.Errorf("of process %d, thread %d listens, %d connects and %d accepts", pid, listens, connects, accepts)
			}
			for _, side := range []bpftest.Event{{"direction": "inbound", "attribution": "accept"}, {"direction": "outbound", "attribution": "connect"}} {
				for _, state := range []string{"established", "closed"} {
					r.WaitFor(t, ns, 1, self(t, with(side, "state", state)))
				}
			}
		})
	}
}

// acceptAll listens where another process does, tells descriptor 3 that it is ready and
// then the client's port of each connection when that is over, until it is killed.
func acceptAll() error {
	l, err := reusePort.Listen(context.Background(), "tcp4", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	says := os.NewFile(3, "says")
	fmt.Fprintln(says, "ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, c)
		fmt.Fprintln(says, port(c.RemoteAddr()))
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
}

// Two processes listen on one port, each with a socket of its own: each connection
// belongs to the one that says that it has accepted it.
func TestAcceptOnSharedPort(t *testing.T) {
	const n = 64 // the kernel chooses: that one process gets all of them does not happen
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "sharedaccept")
	accepted := make(chan [2]string) // the client's port and the process
	for range 2 {
		said, says := pipe(t)
		pid := strconv.Itoa(play(t, ns, "accept all", says).Process.Pid)
		says.Close()
		lines := bufio.NewScanner(said)
		if !lines.Scan() || lines.Text() != "ready" {
			t.Fatalf("process %s says %q, %v", pid, lines.Text(), lines.Err())
		}
		go func() {
			for lines.Scan() {
				accepted <- [2]string{lines.Text(), pid}
			}
		}()
	}
	owner := map[string]string{} // by the client's port, as the processes say
	of := map[string]int{}
	ns.Do(t, func() {
		for range n {
			c, err := net.Dial("tcp4", "127.0.0.1:7001")
			if err != nil {
				t.Fatal(err)
			}
			write(t, c)
			c.Close()
			a := <-accepted
			if a[0] != port(c.LocalAddr()) {
				t.Fatalf("%s was accepted, want %s", a[0], port(c.LocalAddr()))
			}
			owner[a[0]] = a[1]
			of[a[1]]++
		}
	})
	if len(owner) != n || len(of) != 2 {
		t.Errorf("%d connections, by process: %v", len(owner), of)
	}
	for _, state := range []string{"established", "closed"} {
		for _, e := range r.WaitFor(t, ns, n, bpftest.Event{"state": state, "direction": "inbound"}) {
			if want := owner[e["source_port"]]; e["pid"] != want || e["attribution"] != "accept" {
				t.Errorf("%s of port %s belongs to %s (%s), and %s accepted it", state, e["source_port"], e["pid"], e["attribution"], want)
			}
		}
	}
	t.Logf("connections by process: %v", of)
}

// connectAndPass connects, passes the socket on by the socket 3 and ends.
func connectAndPass() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, v4(127, 0, 0, 1, 7001)); err != nil {
		return err
	}
	return unix.Sendmsg(3, []byte{1}, unix.UnixRights(fd), nil, 0)
}

// connectAndHandDown connects, leaves the socket to a child and ends. The child tells its
// number to descriptor 3, and writes 10 bytes when there is a line on 4.
func connectAndHandDown() error {
	c, err := net.Dial("tcp4", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	child := exec.Command("bash", "-c", "echo $$ >&4; read -r <&5; printf 0123456789 >&3")
	child.ExtraFiles = []*os.File{file, os.NewFile(3, "says"), os.NewFile(4, "until")}
	return child.Start()
}

// checkConnected checks that a connection belongs to the process that connected, all
// its life; who starts when that has ended finds the one that holds it.
func checkConnected(t *testing.T, ns *bpftest.NetNS, first, second *bpftest.Recorder, connected, holder string) {
	t.Helper()
	for r, want := range map[*bpftest.Recorder]bpftest.Event{
		first: {"pid": connected, "attribution": "connect"}, second: {"pid": holder, "attribution": "existing"},
	} {
		want["direction"] = "outbound"
		established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
		closed := r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_sent": "10"}))[0]
		if established["connection_id"] != closed["connection_id"] {
			t.Errorf("ids of one connection differ: %s, %s", established["connection_id"], closed["connection_id"])
		}
		r.WaitFor(t, ns, 2, bpftest.Event{"direction": "outbound"})
	}
}

// A socket that was connected and passed to another process (SCM_RIGHTS) belongs to the
// one that connected, which has ended.
func TestConnectedAndPassedOn(t *testing.T) {
	first := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "outpassed")
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sockets[0])
	theirs := os.NewFile(uintptr(sockets[1]), "socket")
	ns.Do(t, func() {
		l := listen(t, "127.0.0.1:7001")
		process := play(t, ns, "connect", theirs)
		theirs.Close()
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		fd := receiveSocket(t, sockets[0])
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
		second := bpftest.Start(t, connection.Monitor)
		if _, err := unix.Write(fd, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
		if n, err := io.Copy(io.Discard, served); n != 10 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		served.Close()
		checkConnected(t, ns, first, second, strconv.Itoa(process.Process.Pid), strconv.Itoa(os.Getpid()))
	})
}

// receiveSocket returns the descriptor that somebody passes by another socket.
func receiveSocket(t *testing.T, socket int) int {
	t.Helper()
	rights := make([]byte, unix.CmsgSpace(4))
	if _, _, _, _, err := unix.Recvmsg(socket, make([]byte, 1), rights, 0); err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	return fds[0]
}

// A process that has connected ends, and its child goes on with the socket.
func TestConnectedAndHandedDown(t *testing.T) {
	first := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "handeddown")
	ns.Do(t, func() {
		l := listen(t, "127.0.0.1:7001")
		said, says := pipe(t)
		until, write := pipe(t)
		process := play(t, ns, "hand down", says, until)
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
		var child int
		if _, err := fmt.Fscan(said, &child); err != nil {
			t.Fatal(err)
		}
		second := bpftest.Start(t, connection.Monitor)
		if _, err := fmt.Fprintln(write); err != nil {
			t.Error(err)
		}
		if n, err := io.Copy(io.Discard, served); n != 10 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		served.Close()
		checkConnected(t, ns, first, second, strconv.Itoa(process.Process.Pid), strconv.Itoa(child))
	})
}
