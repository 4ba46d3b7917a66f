package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// followed is an open stream of events.
type followed struct {
	t     testing.TB
	body  io.ReadCloser
	lines *bufio.Scanner
}

// follow opens a stream behind an event; "" is from now on.
func (s *server) follow(after string, q url.Values) *followed {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.url+"/api/events/stream?"+q.Encode(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		s.t.Fatal(answer.Status)
	}
	return &followed{s.t, answer.Body, bufio.NewScanner(answer.Body)}
}

// streamed is a message of a stream.
type streamed struct{ id, name, data string }

// number is what the id counts.
func (m streamed) number(t testing.TB) int64 {
	t.Helper()
	text, _, _ := strings.Cut(m.id, "-")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("id %q: %v", m.id, err)
	}
	return n
}

// next returns the next message, comments included, or false at the end.
func (f *followed) next() (m streamed, ok bool) {
	for f.lines.Scan() {
		switch name, value, _ := strings.Cut(f.lines.Text(), ": "); name {
		case "id":
			m.id = value
		case "event":
			m.name = value
		case "data":
			m.data = value
		case "":
			if value == "" && m.id != "" {
				return m, true
			}
		}
	}
	return m, false
}

// events takes n events, and returns them and the id of the last.
func (f *followed) events(n int) (events []string, last string) {
	f.t.Helper()
	for len(events) < n {
		m, ok := f.next()
		if !ok || m.name != "" {
			f.t.Fatalf("%+v after %d events, want %d: %v", m, len(events), n, f.lines.Err())
		}
		if m.data != "" {
			events, last = append(events, m.data), m.id
		}
	}
	return events, last
}

// lines returns events as the API has them, one a line.
func (s *server) lines(q url.Values) []string {
	s.t.Helper()
	q.Set("format", "ndjson")
	q.Set("limit", "0")
	answer, err := http.Get(s.url + "/api/events?" + q.Encode())
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%s, %v\n%s", answer.Status, err, text)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// The stream has what a question has, each event once, also for a client whose
// connection breaks.
func TestStream(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "stream")
	const n = 300
	all := s.follow("", query("netns", ns.Inode))
	closed := s.follow("", query("netns", ns.Inode, "type", "connection", "state", "closed", "direction", "inbound"))
	broken := s.follow("", query("netns", ns.Inode))
	traffic(t, ns, n)

	everything := int(eventsOf(n))
	got, _ := all.events(everything)
	compareLines(t, "all", got, s.lines(in(ns)))
	got, _ = closed.events(n)
	compareLines(t, "filtered", got, s.lines(in(ns, "type", "connection", "state", "closed", "direction", "inbound")))

	var whole []string
	after := ""
	for _, some := range []int{1, 99, 500, everything - 600} {
		if after != "" {
			broken = s.follow(after, query("netns", ns.Inode))
		}
		got, after = broken.events(some)
		whole = append(whole, got...)
		broken.body.Close() // with whatever was on its way
	}
	compareLines(t, "with breaks", whole, s.lines(in(ns)))

	s.restartTells(after)
}

// restartTells asks a new run of the program to go on behind an event of the last.
func (s *server) restartTells(after string) {
	s.t.Helper()
	s.stop()
	again := start(s.t, filepath.Join(built, "ebpf-server"), filepath.Join(s.t.TempDir(), "events.db"))
	f := again.follow(after, nil)
	for {
		m, ok := f.next()
		if !ok {
			s.t.Fatal("the stream ends")
		}
		if m.name == "missed" {
			var missed struct {
				Count        *int64
				Since, Until time.Time
			}
			if err := json.Unmarshal([]byte(m.data), &missed); err != nil || missed.Count != nil || missed.Since.IsZero() || !missed.Until.After(missed.Since) {
				s.t.Errorf("after a restart: %s, %v", m.data, err)
			}
			return
		}
		if m.data != "" {
			s.t.Fatalf("after a restart an event comes first: %+v", m)
		}
	}
}

func compareLines(t *testing.T, name string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d events in the stream, %d in the answer, or others", name, len(got), len(want))
	}
}

// Twenty clients that never read, and one that does, while there is a flood:
// nothing is lost that is recorded, who reads is told how much was missed, and the
// server ends all the same.
func TestStreamInFlood(t *testing.T) {
	const n, silent = 50_000, 20
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	for range silent {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "GET /api/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	reader := s.follow("", nil)
	counted := make(chan [2]int64, 1)
	end := make(chan int64, 1) // the number of the last event
	go func() {
		var got, missed, from int64
		until := int64(-1)
		for {
			m, ok := reader.next()
			if !ok {
				counted <- [2]int64{got, missed}
				return
			}
			switch {
			case m.name == "missed":
				var told struct{ Count int64 }
				if err := json.Unmarshal([]byte(m.data), &told); err != nil {
					t.Error(err)
				}
				missed += told.Count
			case m.data != "":
				got++
			case from == 0:
				from = m.number(t)
			}
			select {
			case until = <-end:
			default:
			}
			if until >= 0 && m.number(t) >= until {
				counted <- [2]int64{got, missed + from}
				return
			}
		}
	}()
	began := time.Now()
	made := stormOf(t, "storm", n)
	s.hasAllOf(t, n, began, made.pid)
	stored, _ := s.storedEvents()
	end <- stored
	traffic(t, bpftest.NewNetNS(t, "after"), 1) // something for the reader to see
	select {
	case sum := <-counted:
		t.Logf("%.0f connections/s; the reader got %d events and missed %d", made.speed, sum[0], sum[1])
		if now, _ := s.storedEvents(); sum[0]+sum[1] < stored || sum[0]+sum[1] > now {
			t.Errorf("the reader got %d events and missed %d, of %d to %d", sum[0], sum[1], stored, now)
		}
	case <-time.After(30 * time.Second):
		t.Error("the reader does not come to the end")
	}
	began = time.Now()
	s.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the server took %v to end", took)
	}
}
