package main_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// clientsAsked says for how long BenchmarkClients asks.
var clientsAsked = takeVariable("EBPF_SERVER_TEST_CLIENTS")

const (
	askingClients    = 180
	followingClients = 20
	// Two days of events that were there before, out of which the answers come as well.
	eventsBefore = 500_000
	// So many connections a second are recorded meanwhile, if the machine can make them.
	connectionsARound = 1000
	pagesOfAWalk      = 5
	mostTold          = 5 // errors
)

// BenchmarkClients asks all kinds of questions with 200 clients at once, each the
// next as soon as it has an answer, while connections are recorded. Every answer
// must be one, and nothing may be lost.
func BenchmarkClients(b *testing.B) {
	bpftest.RequireRoot(b)
	span, err := time.ParseDuration(cmp.Or(clientsAsked, "60s"))
	if err != nil || span <= 0 || span > 30*time.Minute { // the books are those of the last hour
		b.Fatalf("EBPF_SERVER_TEST_CLIENTS: %q is no time span up to 30m", clientsAsked)
	}
	for b.Loop() {
		c := newClients(b, span)
		made, took := c.whileRecording()
		c.recordedAll(made)
		c.report(made, took)
		c.s.stop()
	}
}

// clients are those of one server.
type clients struct {
	b         *testing.B
	s         *server
	ns        *bpftest.NetNS
	http      *http.Client
	until     time.Time // they ask
	span      time.Duration
	asking    []*asker
	following []*follower
	failures  failures
}

// failures keeps the first few of many.
type failures struct {
	mu    sync.Mutex
	n     int
	first []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; f.n <= mostTold {
		f.first = append(f.first, err)
	}
}

func newClients(b *testing.B, span time.Duration) *clients {
	b.Helper()
	dir := b.TempDir()
	db, before := filepath.Join(dir, "events.db"), filepath.Join(dir, "before.ndjson")
	text := connections(time.Now().Add(-3*24*time.Hour), 0, eventsBefore)
	if err := os.WriteFile(before, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	verb(b, "import", "--db", db, before)
	c := &clients{b: b, span: span, s: start(b, filepath.Join(built, "ebpf-server"), db), ns: bpftest.NewNetNS(b, "clients")}
	// The kernel resets connections that find no room to wait in at their end.
	c.ns.Run(b, "sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=10000000")
	c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: askingClients}}
	b.Cleanup(c.http.CloseIdleConnections)
	for i := range askingClients {
		c.asking = append(c.asking, &asker{clients: c, next: i, took: make([][]time.Duration, len(kinds))})
	}
	for range followingClients {
		stream := c.s.follow("", query("netns", c.ns.Inode, "type", "connection", "state", "closed", "direction", "outbound"))
		c.following = append(c.following, &follower{followed: stream})
	}
	return c
}

// whileRecording lets all of them ask while connections are made, and returns how
// many these were, and how long it took to the last answer.
func (c *clients) whileRecording() (made int64, took time.Duration) {
	c.b.Helper()
	for _, f := range c.following {
		go f.follow() // until the stream is closed
	}
	c.traffic() // so that there is something to find
	made = connectionsARound
	var asking sync.WaitGroup
	began := time.Now()
	c.until = began.Add(c.span)
	for _, a := range c.asking {
		asking.Go(a.askAll)
	}
	for round := began; time.Now().Before(c.until); made += connectionsARound {
		c.traffic()
		round = round.Add(time.Second)
		time.Sleep(time.Until(round))
	}
	asking.Wait()
	return made, time.Since(began)
}

func (c *clients) traffic() { traffic(c.b, c.ns, connectionsARound) }

// recordedAll wants every event of the connections, in the file and in the streams.
func (c *clients) recordedAll(made int64) {
	c.b.Helper()
	for _, err := range c.failures.first {
		c.b.Errorf("one of %d answers that are none: %v", c.failures.n, err)
	}
	eventually(c.b, func() error {
		got := c.s.summary("connections", in(c.ns))
		if got.Count != made/connectionsARound*eventsOf(connectionsARound) || got.Counts["established"] != 2*made || got.Counts["closed"] != 2*made ||
			got.Sums["bytes_sent"] != 150*made || got.Sums["bytes_received"] != 150*made || !got.Coverage.Complete {
			return fmt.Errorf("of %d connections: %v, %v, coverage %+v", made, got.Counts, got.Sums, got.Coverage)
		}
		for i, f := range c.following {
			if n, missed := f.events.Load(), f.missed.Load(); n > made || n < made && missed == 0 {
				return fmt.Errorf("stream %d has %d of %d, and tells of %d missed", i, n, made, missed)
			}
		}
		return nil
	})
	c.s.balances()
	if lost := c.s.programs().lost(); lost != 0 {
		c.b.Errorf("%d events were lost: %v", lost, c.s.lostByPlace())
	}
}

func (c *clients) report(made int64, took time.Duration) {
	c.b.Helper()
	answers := 0
	for k, kind := range kinds {
		var all []time.Duration
		for _, a := range c.asking {
			all = append(all, a.took[k]...)
		}
		answers += len(all)
		c.reportTimes(kind.name, all)
	}
	var delays []time.Duration
	told := int64(0)
	for _, f := range c.following {
		f.body.Close() // which ends the reading
		f.mu.Lock()
		delays = append(delays, f.delays...)
		f.mu.Unlock()
		told += f.missed.Load()
	}
	c.reportTimes("stream-delay", delays)
	c.b.ReportMetric(float64(answers)/took.Seconds(), "answers/s")
	c.b.ReportMetric(cpuSeconds(c.b, c.s.command.Process.Pid)*1000/float64(answers), "CPU-ms/answer")
	c.b.ReportMetric(float64(c.failures.n), "errors")
	c.b.ReportMetric(float64(told), "missed-by-streams")
	c.b.ReportMetric(float64(4*made)/took.Seconds(), "events/s")
	status := c.s.fields(fmt.Sprintf("/proc/%d/status", c.s.command.Process.Pid))
	c.b.ReportMetric(float64(status["VmHWM"])*1024/1e6, "peak-RSS-MB")
	c.b.ReportMetric(float64(c.s.memory().Anonymous)/1e6, "last-anonymous-MB")
}

func (c *clients) reportTimes(name string, took []time.Duration) {
	c.b.Helper()
	if len(took) == 0 {
		c.b.Errorf("%s: no answer", name)
		return
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		c.b.ReportMetric(took[(len(took)-1)*p/100].Seconds()*1000, fmt.Sprintf("p%d-ms/%s", p, name))
	}
}

// asker asks one question after the other.
type asker struct {
	*clients
	next   int // kind
	took   [][]time.Duration
	id     string // of a connection that it came across
	cursor string
	pages  int
	seen   map[string]bool // on the pages of this walk
}

// kinds are what is asked, in turn. The time is that of one answer.
var kinds = []struct {
	name string
	ask  func(*asker) error
}{
	{"events", (*asker).events},
	{"page", (*asker).page},
	{"summary", func(a *asker) error {
		return a.complete("/api/connections/summary", in(a.ns, "group_by", "command", "stats", "duration_ns", "interval", "10s"), nil)
	}},
	{"summary-week", func(a *asker) error {
		_, err := a.get("/api/connections/summary", query("since", "-7d", "group_by", "destination_ip", "order_by", "bytes_sent"))
		return err
	}},
	{"at", func(a *asker) error { return a.complete("/api/connections/at", query("netns", a.ns.Inode), nil) }},
	{"story", (*asker).story},
	{"csv", (*asker).csv},
}

func (a *asker) askAll() {
	for ; time.Now().Before(a.until); a.next++ {
		k := a.next % len(kinds)
		began := time.Now()
		if err := kinds[k].ask(a); err != nil {
			a.failures.add(fmt.Errorf("%s: %w", kinds[k].name, err))
			continue
		}
		a.took[k] = append(a.took[k], time.Since(began))
	}
}

// get returns an answer that is not an error.
func (a *asker) get(path string, q url.Values) ([]byte, error) {
	answer, err := a.http.Get(a.s.url + path + "?" + q.Encode())
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return body, err
}

// complete also wants that nothing is missing in the window of the answer.
func (a *asker) complete(path string, q url.Values, to any) error {
	body, err := a.get(path, q)
	if err != nil {
		return err
	}
	var told struct{ Coverage coverage }
	if err := json.Unmarshal(body, &told); err != nil {
		return err
	}
	if !told.Coverage.Complete {
		return fmt.Errorf("%s: coverage %+v", path, told.Coverage)
	}
	if to == nil {
		return nil
	}
	return json.Unmarshal(body, to)
}

func (a *asker) events() error {
	var found events
	err := a.complete("/api/events", in(a.ns, "type", "connection", "state", "closed", "command", "tc*", "bytes_sent>", "99", "present", "rtt_us"), &found)
	if err != nil {
		return err
	}
	if found.Count != 100 {
		return fmt.Errorf("%d events, want 100", found.Count)
	}
	a.id = found.Events[0]["connection_id"].(string)
	return nil
}

// page asks for the next page; after some it begins anew.
func (a *asker) page() error {
	q := in(a.ns, "limit", "200")
	if a.cursor == "" || a.pages == pagesOfAWalk {
		a.cursor, a.pages, a.seen = "", 0, map[string]bool{}
	} else {
		q.Set("cursor", a.cursor)
	}
	var found events
	if err := a.complete("/api/events", q, &found); err != nil {
		return err
	}
	for _, e := range found.Events {
		one := fmt.Sprint(e["connection_id"], e["state"], e["direction"])
		if a.seen[one] {
			return fmt.Errorf("came twice: %v", e)
		}
		a.seen[one] = true
	}
	a.cursor = found.NextCursor
	a.pages++
	return nil
}

// story asks for a connection whose end has come, or for none.
func (a *asker) story() error {
	if a.id == "" {
		return a.events()
	}
	var told story
	if err := a.complete("/api/connections/"+a.id, query("since", a.ns.Made.Format(time.RFC3339Nano)), &told); err != nil {
		return err
	}
	if told.Count < 2 || told.Events[0].State != "established" {
		return fmt.Errorf("of %s: %+v", a.id, told)
	}
	return nil
}

func (a *asker) csv() error {
	text, err := a.get("/api/events", in(a.ns, "type", "connection", "state", "closed", "format", "csv", "limit", "1000", "fields", "time,command,destination_ip,bytes_sent"))
	if err != nil {
		return err
	}
	if lines := strings.Count(string(text), "\n"); lines != 1001 {
		return fmt.Errorf("CSV has %d lines, want 1001", lines)
	}
	return nil
}

// follower reads a stream.
type follower struct {
	*followed
	events, missed atomic.Int64

	mu     sync.Mutex
	delays []time.Duration // from what happened to here
}

func (f *follower) follow() {
	for {
		m, ok := f.next()
		switch {
		case !ok:
			return
		case m.name == "missed":
			f.missed.Add(1)
		case m.data != "":
			f.events.Add(1)
			var e struct{ Time time.Time }
			if json.Unmarshal([]byte(m.data), &e) == nil {
				f.mu.Lock()
				f.delays = append(f.delays, time.Since(e.Time))
				f.mu.Unlock()
			}
		}
	}
}
