package api

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/live"
	"github.com/srodi/ebpf-server/internal/query"
)

// message is one of a stream.
type message struct {
	id, name, data, comment string
}

// followed is an open stream.
type followed struct {
	t     *testing.T
	body  io.ReadCloser
	lines *bufio.Scanner
}

func openStream(t *testing.T, url string, headers map[string]string) *followed {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != mimeStream {
		t.Fatalf("%s: %s, %v", url, answer.Status, answer.Header)
	}
	f := &followed{t, answer.Body, bufio.NewScanner(answer.Body)}
	if m, ok := f.next(); !ok || m.comment == "" || m.id == "" || m.data != "" {
		t.Fatalf("%s begins with %+v", url, m)
	}
	return f
}

// next returns the next message, or false at the end of the stream.
func (f *followed) next() (m message, ok bool) {
	f.t.Helper()
	for f.lines.Scan() {
		line := f.lines.Text()
		if line == "" {
			return m, true
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "":
			m.comment = value
		case "id":
			m.id = value
		case "event":
			m.name = value
		case "data":
			m.data = value
		default:
			f.t.Fatalf("line %q", line)
		}
	}
	return m, false
}

// pids takes so many events, with 0 for what was missed.
func (f *followed) pids(n int) (pids []int64, last message) {
	f.t.Helper()
	for range n {
		m, ok := f.next()
		if !ok {
			f.t.Fatalf("the stream ends after %v: %v", pids, f.lines.Err())
		}
		var e struct{ PID int64 }
		if err := json.Unmarshal([]byte(m.data), &e); err != nil {
			f.t.Fatalf("%+v: %v", m, err)
		}
		pids, last = append(pids, e.PID), m
	}
	return pids, last
}

func connections(pids ...int64) *event.Batch {
	b := event.NewBatch(connectionType, len(pids))
	for _, pid := range pids {
		b.Append(start.UnixNano())
		b.SetInt(event.PID, pid)
		b.SetString(event.Command, []string{"curl", "sshd"}[pid%2])
	}
	return b
}

func TestStream(t *testing.T) {
	feed := live.NewFeed()
	base := serve(t, func(o *Options) { o.Store, o.Feed = openStore(t), feed })
	stream := base + "/api/events/stream"
	feed.Append(connections(1, 2))

	all := openStream(t, stream, nil)
	odd := openStream(t, stream+"?type=connection&command=sshd", nil)
	drops := openStream(t, stream+"?type=packet_drop", nil)
	feed.Append(connections(3, 4, 5))
	drop := event.NewBatch(dropType, 1)
	drop.Append(start.UnixNano())
	drop.SetInt(event.PID, 6)
	feed.Append(drop)

	pids, last := all.pids(3)
	if !slices.Equal(pids, []int64{3, 4, 5}) {
		t.Errorf("all: %v", pids)
	}
	want := `{"time":"2024-11-21T03:12:00Z","type":"connection","pid":5,"command":"sshd"}`
	if last.data != want || last.name != "" {
		t.Errorf("last is %+v, want %s", last, want)
	}
	if pids, _ := odd.pids(2); !slices.Equal(pids, []int64{3, 5}) {
		t.Errorf("sshd: %v", pids)
	}
	if pids, _ := drops.pids(1); !slices.Equal(pids, []int64{6}) {
		t.Errorf("drops: %v", pids)
	}

	// Whoever comes back goes on behind what he had.
	feed.Append(connections(7))
	for name, again := range map[string]*followed{
		"header":           openStream(t, stream, map[string]string{"Last-Event-ID": last.id}),
		"parameter":        openStream(t, stream+"?last_event_id="+last.id, nil),
		"parameter first":  openStream(t, stream+"?last_event_id="+last.id, map[string]string{"Last-Event-ID": "1-1"}),
		"nothing at start": openStream(t, stream+"?last_event_id="+last.id+"&pid=6&pid=7", nil),
	} {
		if pids, _ := again.pids(2); !slices.Equal(pids, []int64{6, 7}) {
			t.Errorf("%s: %v", name, pids)
		}
	}
	before := openStream(t, stream, map[string]string{"Last-Event-ID": "3-17"})
	m, _ := before.next()
	if m.name != "missed" || m.id == "" || !strings.HasPrefix(m.data, `{"since":"1970-01-01T00:00:00.000000017Z","until":"`) {
		t.Errorf("after an earlier run: %+v", m)
	}
	if pids, _ := before.pids(7); !slices.Equal(pids, []int64{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("after an earlier run: %v", pids)
	}

	scenarios(t, base, []scenario{
		{name: "HEAD", method: "HEAD", url: "/api/events/stream", status: 200, contentType: mimeStream, header: map[string]string{"Cache-Control": "no-cache"}},
		{name: "no id", url: "/api/events/stream?last_event_id=x", status: 400, contains: []string{`"field":"last_event_id"`, "not the id of an event"}},
		{name: "no id in the header", url: "/api/events/stream", headers: map[string]string{"Last-Event-ID": "x"}, status: 400, contains: []string{`"field":"last_event_id"`}},
		{name: "window", url: "/api/events/stream?since=-5m", status: 400, contains: []string{`"field":"since"`}},
		{name: "unknown type", url: "/api/events/stream?type=flow", status: 400, contains: []string{`"field":"type"`}},
		{name: "bad filter", url: "/api/events/stream?pid=x", status: 400, contains: []string{`"field":"pid"`}},
		{name: "filter of another type", url: "/api/events/stream?type=connection&drop_reason=x", status: 400, contains: []string{`"field":"drop_reason"`}},
	})
}

func TestStreamLimit(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store, o.Feed = openStore(t), live.NewFeed() })
	var open []*followed
	for range maxStreams {
		open = append(open, openStream(t, base+"/api/events/stream", nil))
	}
	scenario{url: "/api/events/stream", status: 503, contains: []string{"end one"}}.run(t, base)
	open[0].body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := http.Get(base + "/api/events/stream")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a stream that was ended does not become free")
		}
	}
}

// A client that does not read is waited for by nobody, and what it has and what
// it is told that it has missed add up.
func TestSlowFollower(t *testing.T) {
	const batches, rows = 1000, 1000
	feed := live.NewFeed()
	base := serve(t, func(o *Options) { o.Store, o.Feed = openStore(t), feed })
	slow := openStream(t, base+"/api/events/stream", nil)
	pids := make([]int64, rows)
	for i := range batches {
		for k := range pids {
			pids[k] = int64(i*rows + k + 1)
		}
		feed.Append(connections(pids...))
	}
	events, missed, before := int64(0), int64(0), int64(0)
	for before < batches*rows {
		m, ok := slow.next()
		if !ok {
			t.Fatalf("ends after %d events", events)
		}
		var e struct {
			PID int64
			query.Missed
		}
		if err := json.Unmarshal([]byte(m.data), &e); err != nil {
			t.Fatal(err)
		}
		if m.name == "missed" {
			missed += e.Count
			continue
		}
		if e.PID != events+missed+1 {
			t.Fatalf("%d comes after %d events, and %d missed", e.PID, events, missed)
		}
		events, before = events+1, e.PID
	}
	if missed == 0 || events+missed != batches*rows {
		t.Errorf("%d events and %d missed, of %d", events, missed, batches*rows)
	}
}

// Streams end when the server does, also that of a client which takes nothing.
func TestShutdownEndsStreams(t *testing.T) {
	feed := live.NewFeed()
	var begin time.Time
	var idle *followed
	t.Run("server", func(inner *testing.T) {
		base := serve(inner, func(o *Options) { o.Store, o.Feed = openStore(inner), feed })
		idle = openStream(t, base+"/api/events/stream?command=nobody", nil)
		openStream(t, base+"/api/events/stream", nil)
		for range 100 {
			feed.Append(connections(make([]int64, 1000)...)) // more than a socket takes
		}
		time.Sleep(200 * time.Millisecond) // until nothing more fits
		begin = time.Now()
	})
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the server ended after %v", took)
	}
	if _, ok := idle.next(); ok || idle.lines.Err() != nil {
		t.Errorf("an idle stream does not end well: %v", idle.lines.Err())
	}
}
