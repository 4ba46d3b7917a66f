package api

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// late is a store that begins when the question's time is over.
type late struct{ *store.Store }

func (l late) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error) {
	<-ctx.Done()
	return l.Store.Events(ctx, q, yield)
}

func (l late) Summary(ctx context.Context, q query.Summary) (*query.SummaryResult, error) {
	<-ctx.Done()
	return l.Store.Summary(ctx, q)
}

func TestQueryTimeout(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store, o.QueryTimeout = late{st}, 50*time.Millisecond })
	const window = "since=2024-11-20T00:00:00Z&until=2024-11-22T00:00:00Z"
	for url, came := range map[string]string{
		"/api/events":                                     "2024-11-21T03:12:13Z", // the newest
		"/api/events?order=asc":                           "2024-11-21T03:12:00Z",
		"/api/events?order=asc&format=csv":                "2024-11-21T03:12:00Z",
		"/api/events?format=parquet&type=connection":      "2024-11-21T03:12:09Z",
		"/api/connections/summary?" + window:              "2024-11-21T00:00:00Z", // by the day
		"/api/packet_drops/summary?interval=1h&" + window: "2024-11-21T00:00:00Z",
	} {
		scenario{url: url, status: 504, lacks: []string{"PAR1"}, contains: []string{"server.query_timeout", "had come as far as " + came}}.run(t, base)
	}
	scenario{method: "POST", url: "/api/connections/summary", body: `{"since":0}`, status: 504, contains: []string{"after 50ms"}}.run(t, base)
	// Others have no limit, and mistakes are told as ever.
	scenario{url: "/api/storage", status: 200}.run(t, base)
	scenario{url: "/api/events?pid=x", status: 400}.run(t, base)
}

// halting is a store that halts before some events, and counts who is being answered.
type halting struct {
	*store.Store
	every   int
	halt    time.Duration
	running *atomic.Int32
}

func (h halting) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error) {
	h.running.Add(1)
	defer h.running.Add(-1)
	n := 0
	return h.Store.Events(ctx, q, func(r event.Row) error {
		if n++; h.every > 0 && n%h.every == 0 {
			select {
			case <-time.After(h.halt):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return yield(r)
	})
}

func (h halting) Pieces(ctx context.Context, q query.Events, yield func(query.Piece) error) error {
	h.running.Add(1)
	defer h.running.Add(-1)
	return h.Store.Pieces(ctx, q, yield)
}

// fillMany appends connections a millisecond apart, some 150 bytes each as NDJSON.
func fillMany(st *store.Store, n int) {
	for done := 0; done < n; {
		b := event.NewBatch(connectionType, 10_000)
		for range min(10_000, n-done) {
			b.Append(start.Add(time.Duration(done) * time.Millisecond).UnixNano())
			b.SetInt(event.PID, int64(done))
			b.SetString(event.Command, "curl")
			b.SetString(connectionType.MustColumn("state"), "closed")
			b.SetID(connectionType.MustColumn("connection_id"), "3f2a", int64(done))
			b.SetInt(connectionType.MustColumn("bytes_sent"), int64(done)*3)
			done++
		}
		st.Append(b)
	}
}

// open asks for a stream, which is closed at the end of the test, or before.
func open(t *testing.T, url string) io.ReadCloser {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d", url, answer.StatusCode)
	}
	return answer.Body
}

// A stream may take longer than a question: as long as it sends something.
func TestStreamsAreNotQuestions(t *testing.T) {
	st := openStore(t)
	const events = 120_000 // more than the sockets on the way hold
	fillMany(st, events)
	var running atomic.Int32
	const timeout = time.Second

	t.Run("that goes on", func(t *testing.T) {
		base := serve(t, func(o *Options) {
			o.Store, o.QueryTimeout = halting{st, events / 10, timeout / 5, &running}, timeout
		})
		began := time.Now()
		lines := countLines(t, open(t, base+"/api/events?format=ndjson&limit=0"))
		if lines != events || time.Since(began) < timeout {
			t.Errorf("%d lines in %v", lines, time.Since(began))
		}
	})
	t.Run("to a slow client", func(t *testing.T) {
		base := serve(t, func(o *Options) { o.Store, o.QueryTimeout = halting{st, 0, 0, &running}, timeout })
		body := bufio.NewReader(open(t, base+"/api/events?format=csv&limit=0"))
		if _, err := body.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * timeout)
		if running.Load() == 0 {
			t.Error("all was sent without anybody who reads it")
		}
		if lines := countLines(t, body); lines != events {
			t.Errorf("%d lines", lines)
		}
	})
	t.Run("that stalls", func(t *testing.T) {
		base := serve(t, func(o *Options) {
			o.Store, o.QueryTimeout = halting{st, events / 2, time.Minute, &running}, timeout
		})
		_, err := io.Copy(io.Discard, open(t, base+"/api/events?format=ndjson&limit=0"))
		if err == nil {
			t.Error("an answer that stalled looks complete")
		}
	})
}

func countLines(t *testing.T, r io.Reader) (n int) {
	t.Helper()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(content), "\n") - strings.Count(string(content), "time,type")
}

// A client that leaves, or that stops reading, ends its question, and what was
// gathered for it goes.
func TestClientsThatLeave(t *testing.T) {
	st := openStore(t)
	fillMany(st, 300_000)
	if err := st.Seal(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	var running atomic.Int32
	base := serve(t, func(o *Options) {
		o.Store, o.writeTimeout = halting{st, 0, 0, &running}, 500*time.Millisecond
	})
	countLines(t, open(t, base+"/api/events?format=ndjson&limit=0")) // what is kept between questions
	before := heap()
	for _, format := range []string{"ndjson", "csv", "parquet"} {
		for name, leave := range map[string]func(io.Closer){
			"leaves":        func(body io.Closer) { body.Close() },
			"stops reading": func(io.Closer) {},
		} {
			body := open(t, base+"/api/events?limit=0&format="+format)
			if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			leave(body)
			if !within(10*time.Second, func() bool { return running.Load() == 0 }) {
				t.Fatalf("%s: who %s is still being answered", format, name)
			}
			body.Close()
			if !within(10*time.Second, func() bool { return heap()-before < 4<<20 }) {
				t.Errorf("%s: who %s leaves %d MiB behind", format, name, (heap()-before)>>20)
			}
		}
	}
}

func within(d time.Duration, is func() bool) bool {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if is() {
			return true
		}
	}
	return false
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
