package connection_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// pair returns both sides of a new connection to the listener.
func pair(t *testing.T, l net.Listener) (client, served net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if served, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); served.Close() })
	return client, served
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func send(t *testing.T, from, to net.Conn, bytes int) {
	t.Helper()
	if _, err := from.Write(make([]byte, bytes)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, bytes)); err != nil {
		t.Fatal(err)
	}
}

// hold starts a process that holds a copy of the socket until the test ends.
func hold(t *testing.T, c interface{ File() (*os.File, error) }) (pid string) {
	t.Helper()
	file, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	holder := exec.Command("sleep", "60")
	holder.ExtraFiles = []*os.File{file}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	return strconv.Itoa(holder.Process.Pid)
}

// tuple is what an event of a connection says of its ends.
func tuple(c net.Conn, direction string) bpftest.Event {
	source, destination := c.LocalAddr(), c.RemoteAddr()
	if direction == "inbound" {
		source, destination = destination, source
	}
	from, _, _ := net.SplitHostPort(source.String())
	to, _, _ := net.SplitHostPort(destination.String())
	return bpftest.Event{
		"direction": direction, "source_ip": from, "source_port": port(source),
		"destination_ip": to, "destination_port": port(destination),
	}
}

func merge(a, b bpftest.Event) bpftest.Event {
	for name, value := range b {
		a = with(a, name, value)
	}
	return a
}

// Connections that were open before the monitor, over their whole life.
func TestExisting(t *testing.T) {
	for _, test := range []struct {
		name, address string
		listens       bool // when the monitor starts
		before        int  // bytes to the server before the monitor starts
	}{
		{"IPv4", "127.0.0.1:0", true, 1000},
		{"IPv6", "[::1]:0", true, 1000},
		{"no data yet", "127.0.0.1:0", true, 0},
		{"nobody listens any more", "127.0.0.1:0", false, 1000},
		{"nobody listens any more, no data yet", "[::1]:0", false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := bpftest.NewNetNS(t, "existing")
			var client, served net.Conn
			ns.Do(t, func() {
				l := listen(t, test.address)
				client, served = pair(t, l)
				if !test.listens {
					l.Close()
				}
			})
			send(t, client, served, test.before)
			send(t, served, client, 2*test.before)
			r := bpftest.Start(t, connection.Monitor)
			send(t, client, served, 11)
			send(t, served, client, 22)
			client.Close()
			served.Close()

			up, down := strconv.Itoa(test.before+11), strconv.Itoa(2*test.before+22)
			for _, side := range []struct {
				conn                      net.Conn
				direction, sent, received string
			}{{client, "outbound", up, down}, {served, "inbound", down, up}} {
				want := self(t, merge(tuple(side.conn, side.direction), bpftest.Event{"attribution": "existing", "return_code": "0"}))
				established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
				closed := r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_sent": side.sent, "bytes_received": side.received}))[0]
				if established["connection_id"] != closed["connection_id"] {
					t.Errorf("ids of one connection differ: %s, %s", established["connection_id"], closed["connection_id"])
				}
				if d, ok := closed["duration_ns"]; ok {
					t.Errorf("duration %s is told, although nobody saw it begin", d)
				}
			}
			if all := ofConnections(r.Events(t, ns)); len(all) != 4 {
				t.Errorf("%d events, want 4: %v", len(all), all)
			}
			if lost := r.LostEvents(); len(lost) != 0 {
				t.Errorf("lost %v", lost)
			}
		})
	}
}

// Who owns a socket that several processes hold.
func TestExistingOwner(t *testing.T) {
	ns := bpftest.NewNetNS(t, "holders")
	var clients, served [4]*net.TCPConn
	ns.Do(t, func() {
		l := listen(t, "127.0.0.1:7001")
		for i := range clients {
			client, accepted := pair(t, l)
			clients[i], served[i] = client.(*net.TCPConn), accepted.(*net.TCPConn)
		}
	})
	self := strconv.Itoa(os.Getpid())
	hold(t, served[1])
	child := hold(t, served[2])
	served[2].Close()
	hold(t, served[3])
	hold(t, served[3])
	served[3].Close()
	truth := ss(t, ns)
	r := bpftest.Start(t, connection.Monitor)
	for i, want := range []struct{ what, pid string }{
		{"one process", self}, {"a process and its child", self}, {"a child alone", child}, {"two children", ""},
	} {
		e := r.WaitFor(t, ns, 1, bpftest.Event{
			"state": "established", "attribution": "existing", "direction": "inbound", "source_port": port(clients[i].LocalAddr()),
		})[0]
		if e["pid"] != want.pid {
			t.Errorf("%s: pid %q, want %q", want.what, e["pid"], want.pid)
		}
		local := net.JoinHostPort(e["destination_ip"], e["destination_port"])
		if pids := truth[local+" "+clients[i].LocalAddr().String()]; want.pid != "" && !strings.Contains(pids, "pid="+want.pid+",") {
			t.Errorf("%s: pid %s, but ss says %s", want.what, want.pid, pids)
		}
	}
	if all := ofConnections(r.Events(t, ns)); len(all) != len(truth) {
		t.Errorf("%d events, but ss has %d connections", len(all), len(truth))
	}
}

var ssLine = regexp.MustCompile(`(?m)^\S+\s+\d+\s+\d+\s+(\S+)\s+(\S+)\s*(.*)$`)

// ss returns the connections that ss lists: their processes by both addresses.
func ss(t *testing.T, ns *bpftest.NetNS) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, line := range ssLine.FindAllStringSubmatch(ns.Run(t, "ss", "-Htnp", "state", "connected", "exclude", "syn-recv"), -1) {
		found[line[1]+" "+line[2]] = line[3]
	}
	return found
}

// What was established but not accepted when the monitor started belongs to the
// process that accepts it, or else to the one that listened.
func TestExistingUnaccepted(t *testing.T) {
	ns := bpftest.NewNetNS(t, "backlog")
	var l net.Listener
	var client net.Conn
	ns.Do(t, func() {
		l = listen(t, "127.0.0.1:7001")
		var err error
		if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	})
	r := bpftest.Start(t, connection.Monitor)
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	send(t, client, served, 10)
	client.Close()
	served.Close()
	want := self(t, merge(tuple(served, "inbound"), bpftest.Event{"attribution": "accept"}))
	established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
	closed := r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_sent": "0", "bytes_received": "10"}))[0]
	if established["connection_id"] != closed["connection_id"] || closed["duration_ns"] != "" {
		t.Errorf("established %v, closed %v", established, closed)
	}

	// A listener that was there is known when nobody accepts.
	ns.Do(t, func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		l.Close()
		c.Close()
	})
	r.WaitFor(t, ns, 1, self(t, bpftest.Event{"direction": "inbound", "state": "closed", "attribution": "listener"}))
}

// A connect that was under way when the monitor started has a whole life.
func TestExistingConnect(t *testing.T) {
	ns := bpftest.NewNetNS(t, "synsent")
	ns.Run(t, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in tcp dport 7001 drop")
	ns.Do(t, func() { listen(t, "127.0.0.1:7001") })
	connected := make(chan net.Conn, 1)
	go ns.Do(t, func() {
		c, err := net.Dial("tcp", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
		}
		connected <- c
	})
	for ns.Run(t, "ss", "-Htn", "state", "syn-sent") == "" {
		time.Sleep(10 * time.Millisecond)
	}
	r := bpftest.Start(t, connection.Monitor)
	ns.Run(t, "nft", "flush chain ip t in")
	c := <-connected
	if c == nil {
		return
	}
	want := self(t, merge(tuple(c, "outbound"), bpftest.Event{"attribution": "existing"}))
	c.Close()
	established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
	r.WaitFor(t, ns, 1, with(with(want, "state", "closed"), "connection_id", established["connection_id"]))
	checkDuration(t, established, r.WaitFor(t, ns, 1, with(want, "state", "closed"))[0])
}

func TestExistingUDP(t *testing.T) {
	ns := bpftest.NewNetNS(t, "existingudp")
	var c net.Conn
	ns.Do(t, func() {
		var err error
		if c, err = net.Dial("udp", "127.0.0.1:7001"); err != nil {
			t.Fatal(err)
		}
	})
	r := bpftest.Start(t, connection.Monitor)
	if r.Lacks(t, "existing_udp") {
		return
	}
	want := self(t, merge(tuple(c, "outbound"), bpftest.Event{"attribution": "existing", "protocol": "udp"}))
	c.Close()
	established := r.WaitFor(t, ns, 1, with(want, "state", "established"))[0]
	closed := r.WaitFor(t, ns, 1, with(want, "state", "closed"))[0]
	if established["connection_id"] != closed["connection_id"] {
		t.Errorf("ids of one connection differ: %s, %s", established["connection_id"], closed["connection_id"])
	}
	for _, column := range []string{"duration_ns", "bytes_sent", "bytes_received"} {
		if value, ok := closed[column]; ok {
			t.Errorf("%s %s is told, although nobody saw all of it", column, value)
		}
	}
}
