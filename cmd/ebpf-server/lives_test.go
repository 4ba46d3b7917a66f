package main_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// opened is the answer to what was open at a moment.
type opened struct {
	Time     time.Time
	AsOf     time.Time `json:"as_of"`
	Total    int
	Count    int
	Coverage coverage
	Events   []struct {
		connectionEvent
		Time  time.Time
		AgeNS *int64 `json:"age_ns"`
	}
}

func (s *server) openAt(ns *bpftest.NetNS, moment time.Time, pairs ...string) opened {
	s.t.Helper()
	q := query(append(pairs, "netns", ns.Inode, "protocol", "tcp")...)
	if !q.Has("state") { // or also what listens
		q.Set("state", "established")
	}
	if !q.Has("limit") {
		q.Set("limit", "1000")
	}
	if !moment.IsZero() {
		q.Set("time", moment.Format(time.RFC3339Nano))
	}
	var answer opened
	s.get("/api/connections/at", q, &answer)
	return answer
}

// sockets are the local and the remote end of each open socket, as ss has them.
func (o opened) sockets() []string {
	var all []string
	for _, e := range o.Events {
		source := net.JoinHostPort(e.SourceIP, strconv.Itoa(e.SourcePort))
		destination := net.JoinHostPort(e.DestinationIP, strconv.Itoa(e.DestinationPort))
		if e.Direction == "inbound" {
			source, destination = destination, source
		}
		all = append(all, source+" "+destination)
	}
	slices.Sort(all)
	return all
}

func (o opened) port(port int) (ages []time.Duration, unknown int) {
	for _, e := range o.Events {
		switch {
		case e.SourcePort != port:
		case e.AgeNS == nil:
			unknown++
		default:
			ages = append(ages, time.Duration(*e.AgeNS))
		}
	}
	return ages, unknown
}

// showEstablished returns what ss has.
func showEstablished(t *testing.T, ns *bpftest.NetNS) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(ns.Run(t, "ss", "-tnH", "state", "established")) {
		all = append(all, strings.Join(strings.Fields(line)[2:4], " "))
	}
	slices.Sort(all)
	return all
}

// held are connections of this process in a namespace.
type held struct {
	t        *testing.T
	ns       *bpftest.NetNS
	listener net.Listener
	both     [][2]net.Conn
	made     []time.Time
}

func holdIn(t *testing.T, ns *bpftest.NetNS) *held {
	t.Helper()
	h := &held{t: t, ns: ns}
	ns.Do(t, func() {
		var err error
		if h.listener, err = net.Listen("tcp4", "127.0.0.1:7000"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		h.close(len(h.both))
		h.listener.Close()
	})
	return h
}

func (h *held) open(n int) {
	h.t.Helper()
	h.ns.Do(h.t, func() {
		for range n {
			c, err := net.Dial("tcp4", "127.0.0.1:7000")
			if err != nil {
				h.t.Error(err)
				return
			}
			h.made = append(h.made, time.Now())
			served, err := h.listener.Accept()
			if err != nil {
				h.t.Error(err)
				return
			}
			h.both = append(h.both, [2]net.Conn{c, served})
		}
	})
}

// close closes the first n.
func (h *held) close(n int) {
	for _, both := range h.both[:n] {
		both[0].Close()
		both[1].Close()
	}
	h.both, h.made = h.both[n:], h.made[n:]
}

func (h *held) port(i int) int { return h.both[i][0].LocalAddr().(*net.TCPAddr).Port }

// What is open is what ss shows, before, during and after a restart, with its age.
func TestOpenAt(t *testing.T) {
	db, binary := filepath.Join(t.TempDir(), "events.db"), filepath.Join(built, "ebpf-server")
	ns := bpftest.NewNetNS(t, "open")
	h := holdIn(t, ns)
	h.open(2) // before anybody watches

	first := start(t, binary, db)
	h.open(20)
	full := time.Now()
	sockets := showEstablished(t, ns)
	if got := first.openAt(ns, time.Time{}); !slices.Equal(got.sockets(), sockets) || got.Total != 44 || len(sockets) != 44 {
		t.Errorf("%d are open, ss shows %d:\n%v\n%v", got.Total, len(sockets), got.sockets(), sockets)
	}
	if _, unknown := first.openAt(ns, time.Time{}).port(h.port(0)); unknown != 2 {
		t.Error("the age of what was there before is known")
	}
	h.checkAge(first, full, 21)
	h.close(5) // two of them from before
	if got := first.openAt(ns, full); !slices.Equal(got.sockets(), sockets) || got.Coverage.Complete != (len(got.Coverage.Gaps) == 0) {
		t.Errorf("a while ago: %d are open, want %d", got.Total, len(sockets))
	}
	eventually(t, func() error {
		if got, want := first.openAt(ns, time.Time{}).sockets(), showEstablished(t, ns); !slices.Equal(got, want) {
			return fmt.Errorf("after some were closed: %d are open, ss shows %d", len(got), len(want))
		}
		return nil
	})
	before := showEstablished(t, ns)
	limited := first.openAt(ns, time.Time{}, "limit", "3", "order", "asc", "direction", "outbound")
	if limited.Total != 17 || limited.Count != 3 || limited.Events[0].Time.After(limited.Events[2].Time) {
		t.Errorf("outbound: %d of %d", limited.Count, limited.Total)
	}
	first.stop()

	h.close(4)
	h.open(3)
	during := time.Now()
	time.Sleep(10 * time.Millisecond)
	second := start(t, binary, db)
	if got := second.openAt(ns, full); !slices.Equal(got.sockets(), sockets) || got.AsOf != got.Time {
		t.Errorf("before the restart: %d are open, want %d", got.Total, len(sockets))
	}
	got := second.openAt(ns, during)
	if !slices.Equal(got.sockets(), before) || !got.AsOf.Before(during) || got.Coverage.Complete || len(got.Coverage.Gaps) == 0 {
		t.Errorf("during the restart: %d are open as of %v, want %d; coverage %+v", got.Total, got.AsOf, len(before), got.Coverage)
	}
	got = second.openAt(ns, time.Time{})
	if after := showEstablished(t, ns); !slices.Equal(got.sockets(), after) || got.Total != 2*16 {
		t.Errorf("after the restart: %d are open, ss shows %d", got.Total, len(after))
	}
	h.checkAge(second, time.Now(), 0)
	if _, unknown := got.port(h.port(len(h.both) - 1)); unknown != 2 {
		t.Error("the age of what was opened while nobody watched is known")
	}
}

// checkAge compares the age of one with the time at which it was made.
func (h *held) checkAge(s *server, moment time.Time, i int) {
	h.t.Helper()
	got := s.openAt(h.ns, moment)
	ages, unknown := got.port(h.port(i))
	want := moment.Sub(h.made[i])
	for _, age := range ages {
		if age < want || age > want+time.Second {
			h.t.Errorf("is open for %v, want %v", age, want)
		}
	}
	if len(ages) != 2 || unknown != 0 {
		h.t.Errorf("%d ages are known, %d not", len(ages), unknown)
	}
}

// story is the answer to what became of a connection.
type story struct {
	Count    int
	More     bool
	Coverage coverage
	Events   []struct {
		Type, State, Location string
		Reason                string `json:"drop_reason"`
		Count                 int64
		Time                  time.Time
	}
}

// drops adds up what was dropped.
func (s story) drops() (packets int64) {
	for _, e := range s.Events {
		packets += e.Count
	}
	return packets
}

// The packets that the packet filter drops belong to the connection that they
// are of: as many as it has counted.
func TestStory(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	h := newHosts(t, s)
	var listener net.Listener
	h.service.Do(t, func() {
		var err error
		if listener, err = net.Listen("tcp4", serviceIP+":7000"); err != nil {
			t.Error(err)
		}
	})
	defer listener.Close()
	dial := func() (client, served net.Conn) {
		h.client.Do(t, func() {
			var err error
			if client, err = net.Dial("tcp4", serviceIP+":7000"); err != nil {
				t.Error(err)
			}
		})
		served, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, served
	}
	client, served := dial()
	other, otherServed := dial()
	port := client.LocalAddr().(*net.TCPAddr).Port
	h.service.Run(t, "nft", fmt.Sprintf(`
		add table ip loss
		add chain ip loss in { type filter hook input priority 0; }
		add rule ip loss in tcp sport %d counter drop
		add rule ip loss in tcp dport 7000 counter drop`, port))
	for _, c := range []net.Conn{client, other} {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	counted := func(ns *bpftest.NetNS, chain string) int64 {
		return h.number(regexp.MustCompile(`counter packets (\d+)`).FindStringSubmatch(ns.Run(t, "nft", "list", "chain", "ip", "loss", chain))[1])
	}
	eventually(t, func() error {
		if n := counted(h.service, "in"); n < 3 {
			return fmt.Errorf("%d packets were dropped", n)
		}
		return nil
	})
	h.service.Run(t, "nft", "insert rule ip loss in accept")
	dropped := counted(h.service, "in")
	if _, err := io.ReadFull(served, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, served, other, otherServed} {
		c.Close()
	}
	id := func(ns *bpftest.NetNS, state string, port int) string {
		t.Helper()
		var id string
		eventually(t, func() error {
			list := h.events(ns, "state", state)
			i := slices.IndexFunc(list, func(e connectionEvent) bool { return port == 0 || e.SourcePort == port })
			if i < 0 {
				return fmt.Errorf("no connection is %s", state)
			}
			id = list[i].ID
			return nil
		})
		return id
	}
	var got story
	s.get("/api/connections/"+id(h.service, "closed", port), nil, &got)
	last := len(got.Events) - 1
	if got.drops() != dropped || got.Events[0].State != "established" || got.Events[last].State != "closed" || !got.Coverage.Complete || got.More {
		t.Errorf("%d packets were dropped; told is %+v", dropped, got)
	}
	for _, e := range got.Events[1:last] {
		if e.Type != "packet_drop" || e.Reason != "NETFILTER_DROP" {
			t.Errorf("among the dropped: %+v", e)
		}
	}
	var limited story
	s.get("/api/connections/"+id(h.service, "closed", port), url.Values{"limit": {"2"}}, &limited)
	if limited.Count != 2 || !limited.More {
		t.Errorf("with a limit: %+v", limited)
	}

	// A connect that fails: what was dropped came before.
	h.client.Run(t, "nft", `
		add table ip loss
		add chain ip loss out { type filter hook output priority 0; }
		add rule ip loss out tcp dport 7001 counter drop`)
	h.client.Do(t, func() {
		if _, err := net.DialTimeout("tcp4", serviceIP+":7001", 2500*time.Millisecond); err == nil {
			t.Error("connected in spite of the packet filter")
		}
	})
	var failed story
	s.get("/api/connections/"+id(h.client, "failed", 0), nil, &failed)
	if n := counted(h.client, "out"); n < 2 || failed.drops() != n || failed.Events[len(failed.Events)-1].State != "failed" {
		t.Errorf("%d packets were dropped; told is %+v", n, failed)
	}
	for path, status := range map[string]int{"/api/connections/6f1c2a90-1a2b": http.StatusNotFound, "/api/connections/overview": http.StatusBadRequest} {
		answer, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != status {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
}
