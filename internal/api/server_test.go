package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store"
)

var connectionType = event.MustType(event.Type{
	Name: "connection", Collection: "connections", Summary: "Connections of this host.", Breakdown: "state", Top: []string{"command", "destination_ip"},
	Life: &event.Life{ID: "connection_id", Begins: event.Mark{Column: "state", Values: []string{"established"}}, Ends: event.Mark{Column: "state", Values: []string{"closed"}}},
	Columns: []event.Column{
		{Name: "connection_id", Kind: event.KindID, Description: "Which connection.", Example: "3f2a-1c"},
		{Name: "state", Kind: event.KindString, Description: "What became of it.", Values: []string{"established", "failed", "closed"}, Example: "closed"},
		{Name: "protocol", Kind: event.KindString, Description: "How it talks.", Values: []string{"tcp", "udp"}},
		{Name: "destination_ip", Kind: event.KindIP, Description: "Where it goes.", Distinct: true, Example: "192.0.2.1"},
		{Name: "destination_port", Kind: event.KindInt, Description: "To which port.", Example: "443"},
		{Name: "bytes_sent", Kind: event.KindInt, Unit: "bytes", Description: "Sent.", Sum: true, Example: "517"},
	},
})

var dropType = event.MustType(event.Type{
	Name: "packet_drop", Collection: "packet_drops", Summary: "Packets that the kernel dropped.", Breakdown: "drop_reason", Top: []string{"drop_reason"},
	Columns: []event.Column{
		{Name: "drop_reason", Kind: event.KindString, Description: "Why, in the kernel's words.", Example: "NO_SOCKET"},
		{Name: "protocol", Kind: event.KindString, Description: "As in the packet.", Values: []string{"tcp", "icmp"}},
		{Name: "length", Kind: event.KindInt, Unit: "bytes", Description: "Its size.", Sum: true, Example: "60"},
	},
})

var testTypes = []*event.Type{connectionType, dropType}

// monitors is a Programs with whatever states a test wants.
type monitors []Program

func (m monitors) Programs() []Program { return m }

func running() monitors {
	flow, drop := NewProgram(connectionType), NewProgram(dropType)
	flow.State, drop.State = StateRunning, StateRunning
	flow.Lost["ring_buffer_full"], flow.Lost["map_full"] = 3, 4
	flow.Hooks = append(flow.Hooks, Hook{Name: "handle_set_state", Kind: "tp_btf", Target: "inet_sock_set_state", Attached: true, Runs: 12, NSPerRun: 310, RunTime: 3720})
	flow.Counts["closed"], flow.Sums["bytes_sent"] = 5, 1700
	flow.Features["ring_buffer"] = true
	return monitors{flow, drop}
}

// openStore opens an empty store that is recording both types.
func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Path: filepath.Join(t.TempDir(), "events.db"), FlushInterval: time.Hour, Types: testTypes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Check(nil); err != nil {
			t.Errorf("check the store: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	if err := s.Start(store.Run{BootID: "boot", Kernel: "6.18", Host: "test", Version: "1.2.3", Types: []string{"connection", "packet_drop"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// fill appends ten connections, one a second from start on, and then four drops.
// Connection n: pid 100+n; curl (even) or sshd (odd); n*10 bytes; closed, but 3
// failed and 4 is established; to 10.0.0.n port 443, but 9 to 2001:db8::1 port 22.
func fill(s *store.Store, start time.Time) {
	column := connectionType.MustColumn
	b := event.NewBatch(connectionType, 10)
	for n := range int64(10) {
		state, ip, port := "closed", netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), int64(443)
		switch n {
		case 3:
			state = "failed"
		case 4:
			state = "established"
		case 9:
			ip, port = netip.MustParseAddr("2001:db8::1"), 22
		}
		b.Append(start.Add(time.Duration(n) * time.Second).UnixNano())
		b.SetInt(event.PID, 100+n)
		b.SetString(event.Command, []string{"curl", "sshd"}[n%2])
		b.SetID(column("connection_id"), "3f2a", n)
		b.SetString(column("state"), state)
		b.SetString(column("protocol"), "tcp")
		b.SetIP(column("destination_ip"), ip)
		b.SetInt(column("destination_port"), port)
		b.SetInt(column("bytes_sent"), n*10)
	}
	s.Append(b)
	d := event.NewBatch(dropType, 4)
	for n, reason := range []string{"NO_SOCKET", "NO_SOCKET", "NETFILTER_DROP", "CPU_BACKLOG"} {
		d.Append(start.Add(time.Duration(10+n) * time.Second).UnixNano())
		d.SetString(dropType.MustColumn("drop_reason"), reason)
		d.SetString(dropType.MustColumn("protocol"), "tcp")
		d.SetInt(dropType.MustColumn("length"), 60)
	}
	s.Append(d)
}

// serve starts a server on a port of its own and returns its URL.
func serve(t *testing.T, change func(*Options)) string {
	t.Helper()
	o := Options{
		Types: testTypes, Programs: running(), Version: "1.2.3", Started: time.Now().Add(-time.Minute),
		Logger: discard(),
	}
	change(&o)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	scheme := "http://"
	if o.CertFile != "" {
		scheme = "https://"
	}
	return scheme + l.Addr().String()
}

// scenario is one request and what must come back.
type scenario struct {
	name    string
	method  string // default GET
	url     string // path and query
	headers map[string]string
	body    string

	status      int
	contentType string // default: JSON, a problem, or for a redirect none
	header      map[string]string
	contains    []string
	lacks       []string
}

func (sc scenario) run(t *testing.T, base string) {
	t.Helper()
	method := sc.method
	if method == "" {
		method = http.MethodGet
	}
	var body io.Reader
	if sc.body != "" {
		body = strings.NewReader(sc.body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, base+sc.url, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range sc.headers {
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	sc.check(t, answer, string(content))
}

func (sc scenario) check(t *testing.T, answer *http.Response, content string) {
	t.Helper()
	if answer.StatusCode != sc.status {
		t.Errorf("status %d, want %d: %s", answer.StatusCode, sc.status, content)
	}
	kind := sc.contentType
	switch {
	case kind != "":
	case sc.status >= 400:
		kind = "application/problem+json"
	case sc.status < 300:
		kind = "application/json"
	}
	if got := answer.Header.Get("Content-Type"); got != kind {
		t.Errorf("content type %q, want %q", got, kind)
	}
	if kind == "application/problem+json" && sc.method != http.MethodHead {
		sc.contains = append(sc.contains, fmt.Sprintf(`"status":%d,`, sc.status), `"type":"about:blank"`)
	}
	for name, value := range sc.header {
		if got := answer.Header.Get(name); got != value {
			t.Errorf("header %s is %q, want %q", name, got, value)
		}
	}
	for _, want := range sc.contains {
		if !strings.Contains(content, want) {
			t.Errorf("no %s in the answer %s", want, content)
		}
	}
	for _, not := range sc.lacks {
		if strings.Contains(content, not) {
			t.Errorf("%s is in the answer %s", not, content)
		}
	}
}

// scenarios runs them all against one server.
func scenarios(t *testing.T, base string, all []scenario) {
	t.Helper()
	for _, sc := range all {
		t.Run(sc.name, func(t *testing.T) { sc.run(t, base) })
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
