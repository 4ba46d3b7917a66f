package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// answering is a server with traffic in it, and a copy of its file.
type answering struct {
	*server
	copied string
	ns     *bpftest.NetNS
	n      int // connections
	since  string
	until  string
}

func newAnswering(t *testing.T) answering {
	t.Helper()
	dir := t.TempDir()
	a := answering{server: start(t, filepath.Join(built, "ebpf-server"), filepath.Join(dir, "events.db")), copied: filepath.Join(dir, "copy.db"), ns: bpftest.NewNetNS(t, "questions"), n: 50}
	a.since = time.Now().UTC().Format(time.RFC3339Nano)
	traffic(t, a.ns, a.n)
	eventually(t, func() error {
		if got := a.summary("connections", in(a.ns)).Count; got != eventsOf(int64(a.n)) {
			return fmt.Errorf("%d events, want %d", got, eventsOf(int64(a.n)))
		}
		return nil
	})
	a.until = time.Now().UTC().Format(time.RFC3339Nano)
	verb(t, "snapshot", "--server", a.url, a.copied)
	return a
}

// window limits a question to the traffic.
func (a answering) window() []string {
	return []string{"--netns", a.ns.Inode, "--since", a.since, "--until", a.until}
}

// The API, the command line and a copy of the file give one answer.
func TestSameAnswerEverywhere(t *testing.T) {
	a := newAnswering(t)
	for _, test := range []struct {
		path string
		args []string
	}{
		{"/api/events", []string{"events", "--type", "connection", "--limit", "1000"}},
		{"/api/events", []string{"events", "--type", "connection", "--state", "closed", "--order", "asc", "--limit", "7"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--group-by", "command,state"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--interval", "1s", "--command", "tclient"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--group-by", "destination_ip/24", "--stats", "duration_ns"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--group-by", "command", "--compare", "-1h"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--first-seen", "source_port"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--group-by", "command", "--sums", "bytes_sent,retransmits"}},
		{"/api/connections/summary", []string{"summary", "--type", "connection", "--sums", "none"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			values := url.Values{"netns": {a.ns.Inode}, "since": {a.since}, "until": {a.until}}
			for i := 1; i < len(test.args); i += 2 {
				name := strings.ReplaceAll(strings.TrimPrefix(test.args[i], "--"), "-", "_")
				if name != "type" || test.path == "/api/events" {
					values.Set(name, test.args[i+1])
				}
			}
			answer, err := http.Get(a.url + test.path + "?" + values.Encode())
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			want, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Fatalf("%s, %v: %s", answer.Status, err, want)
			}
			args := append(append(test.args, a.window()...), "--output", "json")
			sameAnswer(t, "the command line", verb(t, append(args, "--server", a.url)...), string(want))
			sameAnswer(t, "the copy", verb(t, append(args, "--db", a.copied)...), string(want))
		})
	}
}

// sameAnswer leaves the coverage aside: a file that was copied away is not recorded
// into any more, and the rest of the window is not filtered by the same rules.
func sameAnswer(t *testing.T, who, got, want string) {
	t.Helper()
	var answers [2]map[string]any
	for i, text := range []string{got, want} {
		if err := json.Unmarshal([]byte(text), &answers[i]); err != nil {
			t.Fatalf("%s: %v\n%s", who, err, text)
		}
		if answers[i]["coverage"] == nil {
			t.Errorf("%s: there is no coverage", who)
		}
		delete(answers[i], "coverage")
		delete(answers[i], "history")
		if before, ok := answers[i]["before"].(map[string]any); ok {
			delete(before, "coverage")
		}
	}
	if len(answers[1]) == 0 || !reflect.DeepEqual(answers[0], answers[1]) {
		t.Errorf("%s answers\n%s\nand the API\n%s", who, got, want)
	}
}

// What people see is what there was.
func TestTables(t *testing.T) {
	a := newAnswering(t)
	ask := func(args ...string) string {
		return verb(t, append(append(args, a.window()...), "--server", a.url, "--utc")...)
	}
	events := ask("events", "--type", "connection", "--limit", "1000")
	for state, want := range map[string]int{"established": 2 * a.n, "closed": 2 * a.n} {
		rows := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3} +` + state + ` +t(client|server)\[\d+\] +tcp +127\.0\.0\.\d+:\d+ +127\.0\.0\.\d+:\d+ +(in|out)bound`)
		if got := len(rows.FindAllString(events, -1)); got != want {
			t.Errorf("%d rows of %s, want %d:\n%s", got, state, want, events)
		}
	}
	if all := eventsOf(int64(a.n)); !strings.Contains(events, fmt.Sprintf("\n%d events\n", all)) {
		t.Errorf("it does not say that there are %d events:\n%s", all, events)
	}
	if got := ask("events", "--limit", "3", "--total", "command=tclient", "state!=closed"); strings.Count(got, " established ") != 3 || !strings.Contains(got, fmt.Sprintf("3 of %d events", a.n)) {
		t.Errorf("of the clients' connections, 3 of %d should be shown:\n%s", a.n, got)
	}
	summary := ask("summary", "--group-by", "command", "--type", "connection")
	for name, listening := range map[string]int{"tclient": 0, "tserver": 1} {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^%s +%d +%d +%d +%d +%d `, name, 2*a.n+2*listening, a.n, a.n, listening, listening))
		if !row.MatchString(summary) {
			t.Errorf("summary lacks %v:\n%s", row, summary)
		}
	}
	// An operator without = is all key in a URL.
	if got := ask("summary", "duration_ns>0", "duration_ns<10s"); !regexp.MustCompile(fmt.Sprintf(`(?m)^ *%d +%d +1 `, 2*a.n+1, 2*a.n)).MatchString(got) {
		t.Errorf("%d connections and what listened ended within 10 s:\n%s", 2*a.n, got)
	}
	if !strings.Contains(summary, "complete: all of ") {
		t.Errorf("summary does not say that all was recorded:\n%s", summary)
	}
	programs := verb(t, "programs", "--server", a.url, "--hooks")
	for _, part := range []string{"connection", "packet_drop", "running", "inet_sock_set_state", "kfree_skb"} {
		if !strings.Contains(programs, part) {
			t.Errorf("programs lacks %s:\n%s", part, programs)
		}
	}
}

// What is open, and the story of one.
func TestConnectionsVerb(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "open")
	const port = "7011"
	var l net.Listener
	var c net.Conn
	var err error
	ns.Do(t, func() {
		if l, err = net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			c, err = net.Dial("tcp", l.Addr().String())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) string {
		return verb(t, append([]string{"connections", "--server", s.url, "--netns", ns.Inode}, args...)...)
	}
	eventually(t, func() error {
		open := ask("destination_port=" + port)
		if !regexp.MustCompile(`^open at .*: 3\n`).MatchString(open) || strings.Count(open, c.LocalAddr().String()) != 2 || strings.Count(open, " listening ") != 1 {
			return fmt.Errorf("two ends are open, and a socket listens:\n%s", open)
		}
		return nil
	})
	if before := ask("--at", "-1m"); !strings.Contains(before, ": 0\n") {
		t.Errorf("a minute ago nothing was open:\n%s", before)
	}
	c.Close()
	accepted.Close()
	var page struct {
		Events []struct {
			ID string `json:"connection_id"`
		}
	}
	eventually(t, func() error {
		s.get("/api/events", url.Values{"netns": {ns.Inode}, "state": {"closed"}, "direction": {"inbound"}}, &page)
		if len(page.Events) != 1 {
			return fmt.Errorf("%d ends", len(page.Events))
		}
		return nil
	})
	story := verb(t, "connections", "--server", s.url, page.Events[0].ID)
	if strings.Count(story, " established ") != 1 || strings.Count(story, " closed ") != 1 {
		t.Errorf("the story:\n%s", story)
	}
}

// A moment is said as people say it, in the zone of the machine.
func TestAtAndWindow(t *testing.T) {
	a := newAnswering(t)
	middle := time.Now()
	for _, form := range []string{"2006-01-02 15:04:05", "15:04:05", time.RFC3339} {
		got := verb(t, "summary", "--type", "connection", "--server", a.url, "--netns", a.ns.Inode, "--at", middle.Format(form), "--window", "10m")
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^ *%d +%d `, eventsOf(int64(a.n)), 2*a.n)).MatchString(got) || !strings.Contains(got, "(10m)") {
			t.Errorf("--at %s:\n%s", middle.Format(form), got)
		}
	}
	got := verb(t, "events", "--db", a.copied, "--netns", a.ns.Inode, "--at", middle.Add(-24*time.Hour).Format("2006-01-02 15:04"), "--window", "5m")
	if !strings.HasPrefix(got, "0 events\n") || !strings.Contains(got, "ebpf-server did not run") {
		t.Errorf("yesterday:\n%s", got)
	}
}

// Lines fit the terminal, and colours are for terminals only.
func TestTerminal(t *testing.T) {
	a := newAnswering(t)
	args := strings.Join(append([]string{filepath.Join(built, "ebpf-server"), "events", "--limit", "20", "--server", a.url}, a.window()...), " ")
	run := func(env, columns string) string {
		command := exec.Command("script", "-qec", "stty cols "+columns+"; "+args, "/dev/null")
		command.Env = append(os.Environ(), "TERM=xterm", env)
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	colour := regexp.MustCompile(`\x1b\[\d*m`)
	for _, columns := range []int{60, 80, 200} {
		rows := 0
		for line := range strings.Lines(run("X=", strconv.Itoa(columns))) {
			line = strings.TrimRight(colour.ReplaceAllString(line, ""), "\r\n")
			if !strings.Contains(line, "established") && !strings.Contains(line, "closed") && !strings.Contains(line, "stopped") {
				continue
			}
			if rows++; utf8.RuneCountInString(line) > columns {
				t.Errorf("%d characters on a terminal of %d: %s", utf8.RuneCountInString(line), columns, line)
			}
		}
		if rows != 20 {
			t.Errorf("%d events, want 20", rows)
		}
	}
	// A refused connection is the kind of thing that is coloured.
	a.ns.Do(t, func() {
		if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
			c.Close()
			t.Error("somebody answers on port 1")
		}
	})
	args = strings.Join([]string{filepath.Join(built, "ebpf-server"), "events", "--type", "connection", "--state", "failed", "--netns", a.ns.Inode, "--server", a.url}, " ")
	if got := run("X=", "120"); !strings.Contains(got, "\x1b[31mfailed") {
		t.Errorf("a failure is not red: %q", got)
	}
	if got := run("NO_COLOR=1", "120"); colour.MatchString(got) || !strings.Contains(got, "ECONNREFUSED") {
		t.Errorf("NO_COLOR is not respected: %q", got)
	}
	if got := verb(t, strings.Fields(args)[1:]...); colour.MatchString(got) {
		t.Errorf("colours into a pipe: %q", got)
	}
}

// Events are shown as they come, and an interrupt is a good end.
func TestWatch(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "watch")
	shown := &output{}
	command := exec.Command(filepath.Join(built, "ebpf-server"), "events", "--watch", "--server", s.url, "--netns", ns.Inode, "state=closed", "command=tc*")
	command.Stdout, command.Stderr = shown, shown
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	})
	// It has connected once it shows something: what comes before is not shown.
	rows := 0
	eventually(t, func() error {
		traffic(t, ns, 1)
		if rows = strings.Count(shown.String(), "\n"); rows == 0 {
			return errors.New("nothing is shown")
		}
		return nil
	})
	const n = 20
	traffic(t, ns, n)
	eventually(t, func() error {
		if got := strings.Count(shown.String(), " closed "); got < n+1 {
			return fmt.Errorf("%d events are shown of %d", got, n+1)
		}
		return nil
	})
	if text := shown.String(); strings.Contains(text, "tserver") || strings.Contains(text, "established") {
		t.Errorf("what was not asked for is shown:\n%s", text)
	}
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := command.Wait()
	if ended = true; err != nil {
		t.Errorf("ended with %v:\n%s", err, shown)
	}
}

func TestExitStatus(t *testing.T) {
	a := newAnswering(t)
	for _, test := range []struct {
		want int
		args []string
	}{
		{0, []string{"events", "--server", a.url}},
		{0, []string{"events", "--server", a.url, "command=nobody"}},
		{1, []string{"events", "--server", "http://127.0.0.1:1"}},
		{1, []string{"connections", "--server", a.url, "f6c34681-ffffffff"}},
		{1, []string{"events", "--db", a.copied + ".none"}},
		{2, []string{"events", "--server", a.url, "--colour", "red"}},
		{2, []string{"events", "--server", a.url, "colour=red"}},
		{2, []string{"events", "--server", a.url, "nonsense"}},
		{2, []string{"events", "--server", a.url, "--limit", "many"}},
		{2, []string{"events", "--db", a.copied, "--since", "soon"}},
		{2, []string{"events", "--server", a.url, "--window", "5m"}},
		{2, []string{"events", "--server", a.url, "--at", "03:12", "--since", "-1h"}},
		{2, []string{"events", "--server", a.url, "--output", "pdf"}},
		{2, []string{"summary", "--server", a.url, "--output", "pdf"}},
		{2, []string{"summary", "--server", a.url, "--group-by", "colour"}},
		{2, []string{"summary", "--server", a.url, "--type", "connection", "--type", "colour"}},
		{2, []string{"events", "--server", a.url, "--type", "colour"}},
		{2, []string{"export", "--db", a.copied, "--since", "soon"}},
		{2, []string{"export", "--db", a.copied, filepath.Join(t.TempDir(), "events.xls")}},
		{0, []string{"export", "--db", a.copied, "-"}},
		{0, []string{"connections", "--server", a.url, "command=kube-ad"}}, // looks like an id
		{0, []string{"summary", "--server", a.url, "community_id=1:wCb3OG7yAFWelaUydu0D+125CLM="}},
		{2, []string{"summary", "--server", a.url, "community_id=1:none"}},
		{0, []string{"events", "--server", a.url, "error=ECONN*", "destination_port<70000"}},
		{2, []string{"events", "--server", a.url, "error=econnrefused"}},
		{2, []string{"events", "--db", a.copied, "error=econnrefused"}},
		{2, []string{"events", "--server", a.url, "destination_port=70000"}},
		{2, []string{"events", "--db", a.copied, "destination_port=70000"}},
		{2, []string{"events", "--db", a.copied, "--watch"}},
		{2, []string{"events", "--server", a.url, "--watch", "--since", "-1h"}},
		{2, []string{"events", "--server", a.url, "--watch", "--output", "csv"}},
		{2, []string{"connections", "--server", a.url, "--output", "csv"}},
		{2, []string{"nothing"}},
	} {
		var out, problems bytes.Buffer
		command := exec.Command(filepath.Join(built, "ebpf-server"), test.args...)
		command.Stdout, command.Stderr = &out, &problems
		err := command.Run()
		var exit *exec.ExitError
		got := 0
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		}
		if got != test.want || (got != 0) != strings.HasPrefix(problems.String(), "ebpf-server: ") {
			t.Errorf("%v: exit status %d, want %d: %s", test.args, got, test.want, &problems)
		}
	}
}

// Shells complete verbs, flags and values; the manual has a page for each verb.
func TestCompletionAndManual(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"__complete ev", "events"},
		{"__complete events --ty", "--type"},
		{"__complete events --type pa", "packet_drop"},
		{"__complete summary --group-by dest", "destination_ip"},
		{"__complete summary --sums bytes_r", "bytes_received"},
		{"__complete summary --sums n", "none"},
		{"__complete events --state f", "failed"},
		{"__complete events --output n", "ndjson"},
		{"completion bash", "complete -o default"},
	} {
		if got := verb(t, strings.Fields(test.args)...); !strings.Contains(got, test.want) {
			t.Errorf("%s lacks %s:\n%s", test.args, test.want, got)
		}
	}
	dir := filepath.Join(t.TempDir(), "man")
	verb(t, "man", dir)
	page, err := os.ReadFile(filepath.Join(dir, "ebpf-server-events.8"))
	if err != nil || !strings.Contains(string(page), "destination") || !strings.Contains(string(page), "since") {
		t.Errorf("the manual of events: %v\n%s", err, page)
	}
}
