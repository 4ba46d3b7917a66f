package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

const (
	madeEvents = 5000
	madeSpan   = 18 * time.Hour
)

// sqlQuestions are asked of the API, and as SQL of a Parquet file. In SQL, EVENTS
// has us, the time in microseconds; SINCE, MIDDLE and UNTIL are such times, and
// in what the API is asked, where the window is theirs if nothing else is said.
var sqlQuestions = []struct {
	name   string
	path   string // "connections/summary"
	params string
	list   string   // of the answer; empty: the answer is the one row
	fields []string // of each row, with dots into objects
	sql    string
}{
	{"equal, of two values", "events", "type=connection&command=curl&command=nginx&state=closed", "events",
		[]string{"time", "connection_id", "command", "pid", "destination_ip", "bytes_sent", "rtt_us", "unit", "community_id"},
		`SELECT us, connection_id, command, pid, destination_ip, bytes_sent, rtt_us, unit, community_id FROM EVENTS
		 WHERE type = 'connection' AND command IN ('curl', 'nginx') AND state = 'closed'`},
	{"not equal, which absent values are", "events", "command!=curl&command!=nginx&drop_reason!=NO_SOCKET", "events",
		[]string{"time", "type", "command"},
		`SELECT us, type, command FROM EVENTS WHERE command IS DISTINCT FROM 'curl' AND command IS DISTINCT FROM 'nginx' AND drop_reason IS DISTINCT FROM 'NO_SOCKET'`},
	{"ranges", "events", "bytes_sent>=100kB&bytes_sent<200MB&duration_ns>500ms&destination_port<=1000", "events",
		[]string{"time", "connection_id", "bytes_sent", "duration_ns", "destination_port"},
		`SELECT us, connection_id, bytes_sent, duration_ns, destination_port FROM EVENTS
		 WHERE bytes_sent >= 100000 AND bytes_sent < 200000000 AND duration_ns > 500000000 AND destination_port <= 1000`},
	{"beginning of a text", "events", "type=packet_drop&location=tcp_*", "events",
		[]string{"time", "location", "count"},
		`SELECT us, location, count FROM EVENTS WHERE type = 'packet_drop' AND starts_with(location, 'tcp_')`},
	{"not with a beginning", "connections/summary", "user!=www*", "",
		[]string{"count"},
		`SELECT count(*) FROM EVENTS WHERE type = 'connection' AND ("user" IS NULL OR NOT starts_with("user", 'www'))`},
	{"network of IPv4", "events", "type=connection&destination_ip=10.1.0.0/16&state=failed", "events",
		[]string{"time", "connection_id", "destination_ip", "error", "return_code"},
		`SELECT us, connection_id, destination_ip, error, return_code FROM EVENTS
		 WHERE type = 'connection' AND destination_ip LIKE '10.1.%' AND state = 'failed'`},
	{"network of IPv6", "connections/summary", "destination_ip=2001:db8:0:3::/64", "",
		[]string{"count", "sums.bytes_sent", "sums.retransmits"},
		`SELECT count(*), sum(bytes_sent), sum(retransmits) FROM EVENTS WHERE type = 'connection' AND destination_ip LIKE '2001:db8:0:3::%'`},
	{"absent and present", "events", "type=connection&absent=pid,rtt_us&present=container_id,destination_ip", "events",
		[]string{"time", "connection_id", "container_id", "destination_ip"},
		`SELECT us, connection_id, container_id, destination_ip FROM EVENTS
		 WHERE type = 'connection' AND pid IS NULL AND rtt_us IS NULL AND container_id IS NOT NULL AND destination_ip IS NOT NULL`},
	{"part of the window", "events", "since=MIDDLE&until=UNTIL&type=packet_drop&protocol=udp", "events",
		[]string{"time", "source_ip", "length"},
		`SELECT us, source_ip, length FROM EVENTS WHERE us >= MIDDLE AND us < UNTIL AND type = 'packet_drop' AND protocol = 'udp'`},
	{"all, counts and sums", "connections/summary", "", "",
		[]string{"count", "counts.closed", "counts.failed", "counts.established", "sums.bytes_sent", "sums.bytes_received", "sums.messages_sent"},
		`SELECT count(*), count(*) FILTER (state = 'closed'), count(*) FILTER (state = 'failed'), count(*) FILTER (state = 'established'),
		 sum(bytes_sent), sum(bytes_received), sum(messages_sent) FROM EVENTS WHERE type = 'connection'`},
	{"groups, one of them without a value", "connections/summary", "group_by=command&top=1000", "groups",
		[]string{"command", "count", "counts.closed", "sums.bytes_sent"},
		`SELECT command, count(*), count(*) FILTER (state = 'closed'), coalesce(sum(bytes_sent), 0) FROM EVENTS WHERE type = 'connection' GROUP BY command`},
	{"groups of two, with a filter", "connections/summary", "group_by=unit,error&top=1000&state!=closed&present=user", "groups",
		[]string{"unit", "error", "count"},
		`SELECT unit, error, count(*) FROM EVENTS WHERE type = 'connection' AND state IS DISTINCT FROM 'closed' AND "user" IS NOT NULL GROUP BY unit, error`},
	{"networks", "connections/summary", "group_by=destination_ip/24&top=1000&present=destination_ip", "groups",
		[]string{"destination_ip", "count", "sums.bytes_received"},
		`SELECT CASE WHEN contains(destination_ip, ':') THEN regexp_replace(destination_ip, '::[0-9a-f]+$', '::/64') ELSE regexp_replace(destination_ip, '\.[0-9]+$', '.0/24') END AS net,
		 count(*), coalesce(sum(bytes_received), 0) FROM EVENTS WHERE type = 'connection' AND destination_ip IS NOT NULL GROUP BY net`},
	{"packets, of which an event may have many", "packet_drops/summary", "group_by=drop_reason,interface&top=1000", "groups",
		[]string{"drop_reason", "interface", "count", "sums.length"},
		`SELECT drop_reason, interface, sum(coalesce(count, 1)), coalesce(sum(length), 0) FROM EVENTS WHERE type = 'packet_drop' GROUP BY drop_reason, interface`},
	{"least, most and average", "connections/summary", "group_by=protocol&stats=duration_ns,rtt_us&top=1000", "groups",
		[]string{"protocol", "stats.duration_ns.count", "stats.duration_ns.min", "stats.duration_ns.max", "stats.duration_ns.avg", "stats.rtt_us.max", "stats.rtt_us.avg"},
		`SELECT protocol, count(duration_ns), min(duration_ns), max(duration_ns), avg(duration_ns), max(rtt_us), avg(rtt_us) FROM EVENTS WHERE type = 'connection' GROUP BY protocol`},
	{"different values", "connections/summary", "group_by=direction&distinct=destination_ip,pid&destination_port>443", "groups",
		[]string{"direction", "distinct.destination_ip", "distinct.pid"},
		`SELECT direction, count(DISTINCT destination_ip), count(DISTINCT pid) FROM EVENTS WHERE type = 'connection' AND destination_port > 443 GROUP BY direction`},
	{"by the hour", "packet_drops/summary", "interval=1h&protocol=tcp", "series",
		[]string{"time", "count", "sums.length"},
		`SELECT us // 3600000000 * 3600000000 AS hour, sum(coalesce(count, 1)), coalesce(sum(length), 0) FROM EVENTS WHERE type = 'packet_drop' AND protocol = 'tcp' GROUP BY hour`},
	{"never seen before", "connections/summary", "since=MIDDLE&until=UNTIL&first_seen=destination_ip&direction=outbound&top=1000", "groups",
		[]string{"destination_ip", "first_seen", "count"},
		`SELECT destination_ip, min(us), count(*) FILTER (us >= MIDDLE) FROM EVENTS WHERE type = 'connection' AND direction = 'outbound' AND destination_ip IS NOT NULL
		 GROUP BY destination_ip HAVING min(us) >= MIDDLE`},
	{"beside an earlier window", "connections/summary", "since=MIDDLE&until=UNTIL&compare=-9h&group_by=destination_ip,state&top=1000&command=nginx", "groups",
		[]string{"destination_ip", "state", "count", "before.count", "sums.bytes_sent", "before.sums.bytes_sent"},
		`SELECT destination_ip, state, count(*) FILTER (us >= MIDDLE), count(*) FILTER (us < MIDDLE),
		 coalesce(sum(bytes_sent) FILTER (us >= MIDDLE), 0), coalesce(sum(bytes_sent) FILTER (us < MIDDLE), 0)
		 FROM EVENTS WHERE type = 'connection' AND command = 'nginx' GROUP BY destination_ip, state`},
	{"what changed", "connections/summary", "since=MIDDLE&until=UNTIL&compare=-9h&group_by=destination_ip", "",
		[]string{"changes.new", "changes.gone"},
		`SELECT count(*) FILTER (n = 0), count(*) FILTER (later = 0) FROM
		 (SELECT count(*) FILTER (us < MIDDLE) AS n, count(*) FILTER (us >= MIDDLE) AS later FROM EVENTS WHERE type = 'connection' GROUP BY destination_ip)`},
}

// The API answers what SQL does on the Parquet file that is exported.
func TestAnswersEqualSQL(t *testing.T) {
	bpftest.RequireRoot(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	since := time.Now().Add(-20 * time.Hour).UTC().Truncate(time.Hour)
	first := start(t, filepath.Join(built, "ebpf-server"), path("events.db"))
	made := makeEvents(first.declared(), since)
	first.stop()
	if err := os.WriteFile(path("made.ndjson"), made, 0o600); err != nil {
		t.Fatal(err)
	}
	duckdb := buildDuckDB(t)
	verb(t, "import", "--db", path("events.db"), path("made.ndjson"))
	// Without what that run has seen of this machine.
	verb(t, "export", "--db", path("events.db"), path("events.parquet"), "--since", since.Format(time.RFC3339), "--until", since.Add(madeSpan).Format(time.RFC3339))
	s := start(t, filepath.Join(built, "ebpf-server"), path("events.db"))

	times := map[string]time.Time{"SINCE": since, "MIDDLE": since.Add(madeSpan / 2), "UNTIL": since.Add(madeSpan)}
	// Without what else the host did while the first server ran.
	events := fmt.Sprintf("(SELECT *, epoch_us(time) AS us FROM '%s' WHERE epoch_us(time) >= SINCE AND epoch_us(time) < UNTIL)", path("events.parquet"))
	for _, q := range sqlQuestions {
		t.Run(q.name, func(t *testing.T) {
			params, sql := q.params, strings.ReplaceAll(q.sql, "EVENTS", events)
			if !strings.Contains(params, "since") {
				params += "&since=SINCE&until=UNTIL"
			}
			for name, at := range times {
				params = strings.ReplaceAll(params, name, url.QueryEscape(at.Format(time.RFC3339)))
				sql = strings.ReplaceAll(sql, name, strconv.FormatInt(at.UnixMicro(), 10))
			}
			if q.path == "events" {
				params += "&limit=10000"
			}
			out, err := exec.Command(duckdb, "-c", sql).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, sql, out)
			}
			want := sortedLines(string(out[bytes.IndexByte(out, '\n')+1:]))
			got := s.rows(q.path+"?"+params, q.list, q.fields)
			if len(want) == 0 || want[0] == "" {
				t.Fatal("SQL has no answer, which tests little")
			}
			sameRows(t, got, want)
		})
	}
}

// buildDuckDB returns the real DuckDB with a shell of our own around it.
func buildDuckDB(t *testing.T) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "duckdb")
	command := exec.Command("go", "build", "-o", to, "./duckdb")
	command.Dir = filepath.Join("..", "..", "internal", "tools", "bench")
	command.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build DuckDB: %v (make test installs what it needs)\n%s", err, out)
	}
	return to
}

// declared are the types of events, with their columns.
type declared []struct {
	Name    string
	Columns []declaredColumn
}

type declaredColumn struct {
	Name, Type string
	Values     []string
	Derived    bool
}

func (s *server) declared() declared {
	s.t.Helper()
	var list struct{ Programs declared }
	s.get("/api/programs", nil, &list)
	return list.Programs
}

// makeEvents returns events of all types that use all columns, each of them in
// some events only, and addresses that come up with time.
func makeEvents(types declared, since time.Time) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var lines bytes.Buffer
	for i := range madeEvents {
		e := map[string]any{}
		made := types[min(max(0, r.IntN(4)-2), len(types)-1)]
		for _, c := range made.Columns {
			if r.IntN(4) > 0 && !c.Derived {
				e[c.Name] = makeValue(r, c, i)
			}
		}
		if e["connection_id"] != nil { // so that answers can be told apart
			e["connection_id"] = fmt.Sprintf("boot-%x", i)
		}
		e["type"] = made.Name
		e["time"] = since.Add(madeSpan * time.Duration(i) / madeEvents).Truncate(time.Microsecond).Format(time.RFC3339Nano)
		line, _ := json.Marshal(e) // there is nothing in it that cannot be
		lines.Write(append(line, '\n'))
	}
	return lines.Bytes()
}

// madeTexts are the values of columns that other columns' names would not do for.
var madeTexts = map[string][]string{
	"command":     {"curl", "nginx", "sshd", "worker-1"},
	"user":        {"root", "www-data", "www"},
	"error":       {"ECONNREFUSED", "ETIMEDOUT", "ECONNRESET"},
	"drop_reason": {"NO_SOCKET", "NETFILTER_DROP", "17"},
	"location":    {"tcp_v4_rcv", "tcp_v6_rcv", "nf_hook_slow", "tcpfake"},
	"protocol":    {"tcp", "udp"},
}

func makeValue(r *rand.Rand, c declaredColumn, i int) any {
	known := 30 + i/50
	switch {
	case c.Type == "time":
		return nil
	case c.Type == "ip" && r.IntN(2) == 0:
		n := r.IntN(known)
		return fmt.Sprintf("2001:db8:0:%x::%x", 1+n%7, 1+n)
	case c.Type == "ip":
		n := r.IntN(known)
		return fmt.Sprintf("10.%d.%d.%d", n%3, n%5, n)
	case c.Type == "int" && c.Name == "count":
		return 1 + r.IntN(1000)
	case c.Type == "int" && c.Name == "return_code":
		return -r.IntN(120)
	case c.Type == "int" && strings.HasSuffix(c.Name, "_port"):
		return []int{22, 53, 443, 8080, 50000}[r.IntN(5)]
	case c.Type == "int":
		return int64(math.Exp(r.Float64() * 22)) // of all sizes, up to 3.6e9
	case c.Type == "id":
		return fmt.Sprintf("boot-%x", r.Uint64())
	case len(c.Values) > 0:
		return c.Values[r.IntN(len(c.Values))]
	case madeTexts[c.Name] != nil:
		return madeTexts[c.Name][r.IntN(len(madeTexts[c.Name]))]
	}
	return c.Name + []string{" ä", "-2", ""}[r.IntN(3)]
}

// rows returns fields of an answer as text, with tabs between them, sorted.
func (s *server) rows(question, list string, fields []string) (rows []string) {
	s.t.Helper()
	answer, err := http.Get(s.url + "/api/" + question)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v\n%s", question, answer.Status, err, body)
	}
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		s.t.Fatal(err)
	}
	of := []any{all}
	if list != "" {
		of = all[list].([]any)
	}
	for _, row := range of {
		var texts []string
		for _, field := range fields {
			texts = append(texts, fieldText(row, field))
		}
		rows = append(rows, strings.Join(texts, "\t"))
	}
	slices.Sort(rows)
	return rows
}

func fieldText(of any, field string) string {
	for name := range strings.SplitSeq(field, ".") {
		object, _ := of.(map[string]any)
		of = object[name]
	}
	text, isText := of.(string)
	if at, err := time.Parse(time.RFC3339Nano, text); isText && err == nil {
		return strconv.FormatInt(at.UnixMicro(), 10)
	}
	return fmt.Sprint(of) // where there is none, as SQL's null is printed
}

// sameRows compares averages as numbers.
func sameRows(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d rows, SQL has %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		a, b := strings.Split(got[i], "\t"), strings.Split(want[i], "\t")
		if !slices.EqualFunc(a, b, sameValue) {
			t.Errorf("row %d is\n%q, and in SQL\n%q", i, a, b)
			return
		}
	}
}

func sameValue(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && strings.ContainsAny(a+b, ".e") && math.Abs(x-y) <= 1e-9*math.Abs(y)
}
