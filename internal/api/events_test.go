package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

var start = time.Date(2024, 11, 21, 3, 12, 0, 0, time.UTC)

func TestEvents(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	const window = "since=2024-11-21T03:12:00Z&until=2024-11-21T03:13:00Z"
	scenarios(t, base, []scenario{
		{name: "all", url: "/api/events", status: 200, contains: []string{
			`{"events":[{"time":"2024-11-21T03:12:13Z","type":"packet_drop","drop_reason":"CPU_BACKLOG","protocol":"tcp","length":60},`,
			`"pid":100,`, `"connection_id":"3f2a-9"`, `"destination_ip":"2001:db8::1"`, `"count":14`, `"coverage":{"complete":false,`, `"gaps":[`, `"filtered":{}`,
		}, lacks: []string{"next_cursor", `"gaps":null`}},
		{name: "oldest first", url: "/api/events?order=asc&limit=1", status: 200, contains: []string{`"pid":100,`, `"count":1`, `"next_cursor":"`}},
		{name: "one type", url: "/api/events?type=packet_drop", status: 200, contains: []string{`"count":4`}},
		{name: "both types", url: "/api/events?type=packet_drop&type=connection&type=connection", status: 200, contains: []string{`"count":14`}},
		{name: "window", url: "/api/events?since=2024-11-21T03:12:05Z&until=2024-11-21T05:12:10%2B02:00", status: 200, contains: []string{`"count":5`}},
		{name: "Unix seconds", url: fmt.Sprintf("/api/events?since=%d&until=%d.5", start.Unix()+12, start.Unix()+12), status: 200, contains: []string{`"count":1`, "NETFILTER_DROP"}},
		{name: "empty window", url: "/api/events?since=2024-11-21T03:12:05Z&until=2024-11-21T03:12:05Z", status: 200, contains: []string{`"events":[]`, `"count":0`}},
		{name: "relative window", url: "/api/events?since=-5m", status: 200, contains: []string{`"count":`}},
		{name: "filter", url: "/api/events?command=curl", status: 200, contains: []string{`"count":5`}},
		{name: "filters with AND", url: "/api/events?command=curl&state=established", status: 200, contains: []string{`"count":1`, `"pid":104`}},
		{name: "filter with OR", url: "/api/events?pid=101&pid=102", status: 200, contains: []string{`"count":2`}},
		{name: "network", url: "/api/events?destination_ip=10.0.0.0/30", status: 200, contains: []string{`"count":4`}},
		{name: "mapped address", url: "/api/events?destination_ip=::ffff:10.0.0.5", status: 200, contains: []string{`"count":1`}},
		{name: "IPv6 network", url: "/api/events?destination_ip=2001:db8::/32", status: 200, contains: []string{`"count":1`}},
		{name: "id", url: "/api/events?connection_id=3f2a-5", status: 200, contains: []string{`"count":1`}},
		{name: "filter that only one type has", url: "/api/events?drop_reason=NO_SOCKET", status: 200, contains: []string{`"count":2`}},
		{name: "nothing matches", url: "/api/events?command=nobody&" + window, status: 200, contains: []string{`"events":[]`, `"coverage":`}},
		{name: "HEAD", method: "HEAD", url: "/api/events", status: 200},
		{name: "json in spite of Accept", url: "/api/events?format=json", headers: map[string]string{"Accept": "application/x-ndjson"}, status: 200, contains: []string{`"count":14`}},
		{name: "curl's Accept", url: "/api/events", headers: map[string]string{"Accept": "*/*"}, status: 200, contains: []string{`"count":14`}},
		{name: "nothing that there is", url: "/api/events", headers: map[string]string{"Accept": "text/html, application/xml, text/csv;q=0"}, status: 406, contains: []string{"application/x-ndjson, text/csv"}},
		{name: "format in spite of Accept", url: "/api/events?format=json", headers: map[string]string{"Accept": "text/csv"}, status: 200, contains: []string{`"count":14`}},

		{name: "not", url: "/api/events?state!=closed&type=connection", status: 200, contains: []string{`"count":2`}},
		{name: "not, also where there is none", url: "/api/events?state!=closed", status: 200, contains: []string{`"count":6`}},
		{name: "range", url: "/api/events?bytes_sent>=20&bytes_sent<0.04kB", status: 200, contains: []string{`"count":2`}},
		{name: "range, escaped", url: "/api/events?bytes_sent%3E%3D20&bytes_sent%3C40=", status: 200, contains: []string{`"count":2`}},
		{name: "beginning", url: "/api/events?command=c*", status: 200, contains: []string{`"count":5`}},
		{name: "strict, of a pair", url: "/api/events?" + url.Values{"pid>108": {""}}.Encode(), status: 200, contains: []string{`"count":1,`, `"pid":109`}},
		{name: "not strict, of a pair", url: "/api/events?" + url.Values{"pid>": {"108"}}.Encode(), status: 200, contains: []string{`"count":2,`}},
		{name: "absent", url: "/api/events?absent=state,command", status: 200, contains: []string{`"count":4`}},
		{name: "present", url: "/api/events?present=state&present=pid", status: 200, contains: []string{`"count":10`}},
		{name: "fields", url: "/api/events?fields=pid,command&fields=type&limit=1&type=connection", status: 200, contains: []string{`"events":[{"pid":109,"command":"sshd","type":"connection"}],`}},
		{name: "fields of one type", url: "/api/events?fields=drop_reason&command!=curl", status: 200, contains: []string{`{"drop_reason":"NO_SOCKET"},{},{},`}},
		{name: "total", url: "/api/events?limit=3&total=true&present=pid", status: 200, contains: []string{`"count":3,"total":10,`}},
		{name: "count as the total", url: "/api/events?limit=3&count=true&present=pid", status: 200, contains: []string{`"count":3,"total":10,`}},
		{name: "no total", url: "/api/events?limit=3&total=false", status: 200, lacks: []string{"total"}},

		{name: "csv", url: "/api/events?format=csv&type=connection&fields=time,pid,state&limit=2&order=asc", status: 200, contentType: "text/csv",
			header:   map[string]string{"Content-Disposition": `attachment; filename="events.csv"`},
			contains: []string{"time,pid,state\n2024-11-21T03:12:00Z,100,closed\n2024-11-21T03:12:01Z,101,closed\n"}},
		{name: "csv by Accept", url: "/api/events?limit=0", headers: map[string]string{"Accept": "text/*"}, status: 200, contentType: "text/csv", contains: []string{"time,type,pid,command"}},
		{name: "csv with a problem", url: "/api/events?format=csv&pid=x", status: 400, contains: []string{`"field":"pid"`}},
		{name: "parquet by Accept", url: "/api/events", headers: map[string]string{"Accept": "application/json;q=0.5, application/vnd.apache.parquet"}, status: 200, contentType: "application/vnd.apache.parquet", contains: []string{"PAR1"}},
		{name: "json first", url: "/api/events", headers: map[string]string{"Accept": "application/json, text/csv"}, status: 200},

		{name: "ndjson", url: "/api/events?format=ndjson&limit=0&order=asc&type=connection", status: 200, contentType: "application/x-ndjson",
			contains: []string{`{"time":"2024-11-21T03:12:00Z","type":"connection","pid":100,`, "}\n{"}, lacks: []string{"coverage", "count"}},
		{name: "ndjson by Accept", url: "/api/events", headers: map[string]string{"Accept": "text/html;q=0.9, Application/X-NDJSON"}, status: 200, contentType: "application/x-ndjson"},
		{name: "ndjson of nothing", url: "/api/events?format=ndjson&command=nobody", status: 200, contentType: "application/x-ndjson", lacks: []string{"{"}},
		{name: "ndjson with a high limit", url: "/api/events?format=ndjson&limit=1000000", status: 200, contentType: "application/x-ndjson"},
		{name: "ndjson with a problem", url: "/api/events?format=ndjson&pid=x", status: 400, contains: []string{`"field":"pid"`}},
	})
}

func TestEventsRefusals(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	bad := func(name, params, field string, contains ...string) scenario {
		return scenario{name: name, url: "/api/events?" + params, status: 400, contains: append(contains, `"field":"`+field+`"`, `"instance":"/api/events"`)}
	}
	long := strings.Repeat("9", 20_000)
	all := []scenario{
		bad("unknown", "colour=red", "colour", "known are type, since", "destination_ip"),
		bad("near", "sinc=-5m", "sinc", "did you mean since?"),
		bad("near a column", "destination_i=10.0.0.1", "destination_i", "did you mean destination_ip?"),
		bad("time", "time=2024-11-21T03:12:00Z", "time", "since and until"),
		bad("column of another type", "type=packet_drop&state=failed", "state", "not a column of packet_drop"),
		bad("type", "type=connectio", "type", "did you mean connection?"),
		bad("type twice, one wrong", "type=connection&type=x", "type"),
		bad("empty type", "type=", "type"),
		bad("limit 0", "limit=0", "limit", "from 1 to 10000"),
		bad("limit negative", "limit=-1", "limit"),
		bad("limit huge", "limit=10001", "limit"),
		bad("limit beyond 64 bits", "limit="+long, "limit", "99..."),
		bad("limit fraction", "limit=1.5", "limit"),
		bad("limit text", "limit=many", "limit", `limit \"many\" must be a number`),
		bad("limit twice", "limit=1&limit=2", "limit", "only once"),
		bad("limit empty", "limit=", "limit", "is empty"),
		bad("ndjson limit", "format=ndjson&limit=-1", "limit"),
		bad("order", "order=up", "order", "one of desc, asc"),
		bad("format", "format=xml", "format", "one of json, ndjson, csv, parquet"),
		bad("format twice", "format=csv&format=csv", "format", "only once"),
		bad("fields", "fields=command,colour", "fields", "not a column of connection or packet_drop"),
		bad("fields of another type", "type=packet_drop&fields=state", "fields", "not a column of packet_drop"),
		bad("fields twice", "fields=pid&fields=pid", "fields", "twice"),
		bad("fields empty", "fields=", "fields"),
		bad("total", "total=maybe", "total", "neither true nor false"),
		bad("total of a stream", "total=true&format=csv", "total", "JSON"),
		bad("absent", "absent=colour", "absent"),
		bad("present twice, one wrong", "present=pid&present=", "present", "names no column"),
		bad("range of text", "state>=closed", "state", "only numbers"),
		bad("range, escaped", "bytes_sent%3E%3Dmuch", "bytes_sent", "1MiB"),
		bad("not, empty", "command!=", "command", "is empty"),
		bad("operator on a parameter", "limit>=5", "limit", "not a column"),
		bad("operator on nothing", ">=5", `\u003e`),
		bad("no operator", "pid!5", "pid", "operator"),
		bad("since", "since=yesterday", "since"),
		bad("since and until", "since=-5m&until=-10m", "until", `until \"-10m\" is before since`),
		bad("since too far", "since=9999-12-31T23:59:59Z", "since"),
		bad("unescaped plus", "since=2024-11-21T03:12:00+01:00", "since"),
		bad("cursor", "cursor=abc", "cursor"),
		bad("cursor with other bytes", "cursor=%00%ff%F0%9F%92%A9", "cursor"),
		bad("long cursor", "cursor="+long, "cursor"),
		bad("pid text", "pid=curl", "pid"),
		bad("pid beyond 64 bits", "pid=9223372036854775808", "pid"),
		bad("address", "destination_ip=10.0.0.256", "destination_ip"),
		bad("network", "destination_ip=10.0.0.0/33", "destination_ip"),
		bad("zone", "destination_ip=fe80::1%25eth0", "destination_ip"),
		bad("id", "connection_id=abc", "connection_id"),
		bad("closed set", "state=open", "state", "established, failed, closed"),
		bad("bidi name", "%E2%80%AEdip=1", "\u202edip"),
		bad("long name", "x"+long+"=1", "x"+strings.Repeat("9", 99)+"..."),
	}
	all = append(all,
		scenario{name: "no name", url: "/api/events?=1", status: 400},
		scenario{name: "broken escape", url: "/api/events?command=%zz", status: 400, contains: []string{"query string"}},
		scenario{name: "semicolon", url: "/api/events?limit=1;order=asc", status: 400, contains: []string{"query string"}},
		scenario{name: "odd characters are just not there", url: "/api/events?command=%F0%9F%92%A9%E2%80%AE", status: 200, contains: []string{`"count":0`}},
		scenario{name: "NUL", url: "/api/events?command=a%00", status: 400, contains: []string{`"field":"command"`, "NUL"}},
		scenario{name: "not UTF-8", url: "/api/events?command!=%ff*", status: 400, contains: []string{`"field":"command"`, "UTF-8"}},
		scenario{name: "long value", url: "/api/events?command=" + long, status: 200, contains: []string{`"count":0`}},
		scenario{name: "many values", url: "/api/events?pid=0" + strings.Repeat("&pid=104", 3000), status: 200, contains: []string{`"count":1`}},
	)
	scenarios(t, base, all)

	t.Run("long query", func(t *testing.T) {
		answer, err := http.Get(base + "/api/events?command=" + strings.Repeat(long, 8))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", answer.StatusCode)
		}
	})
}

type page struct {
	Events []struct {
		PID  int64     `json:"pid"`
		Time time.Time `json:"time"`
	}
	Count      int
	NextCursor string `json:"next_cursor"`
	PrevCursor string `json:"prev_cursor"`
}

func getPage(t *testing.T, url string) (p page) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v", url, answer.StatusCode, err)
	}
	if p.Count != len(p.Events) {
		t.Errorf("count is %d with %d events", p.Count, len(p.Events))
	}
	return p
}

// Every event comes exactly once over all pages, while later ones come in and
// are flushed. Many share a time, so that pages end between them.
func TestEventPages(t *testing.T) {
	for _, order := range []string{"desc", "asc"} {
		t.Run(order, func(t *testing.T) {
			st := openStore(t)
			base := serve(t, func(o *Options) { o.Store = st })
			var next int64
			add := func(n int) {
				b := event.NewBatch(connectionType, n)
				for range n {
					b.Append(start.Add(time.Duration(next/5) * time.Millisecond).UnixNano())
					b.SetInt(event.PID, next)
					next++
				}
				st.Append(b)
			}
			add(100)
			seen := map[int64]bool{}
			for cursor, first := "", true; first || cursor != ""; first = false {
				p := getPage(t, base+"/api/events?limit=7&order="+order+strings.Repeat("&cursor="+url.QueryEscape(cursor), min(1, len(cursor))))
				for _, e := range p.Events {
					if seen[e.PID] {
						t.Errorf("event %d comes twice", e.PID)
					}
					seen[e.PID] = true
				}
				cursor = p.NextCursor
				if next < 150 {
					add(5)
					if err := st.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for pid := range int64(100) {
				if !seen[pid] {
					t.Errorf("event %d is missing", pid)
				}
			}
		})
	}
}

func TestCursorOfAnotherQuestion(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	cursor := getPage(t, base+"/api/events?limit=2").NextCursor
	for _, other := range []string{"order=asc", "type=connection", "command=curl"} {
		scenario{url: "/api/events?" + other + "&cursor=" + cursor, status: 400, contains: []string{`"field":"cursor"`}}.run(t, base)
	}
	if p := getPage(t, base+"/api/events?since=-1000w&limit=3&cursor="+cursor); p.Count != 3 {
		t.Errorf("another window and limit: %d events", p.Count)
	}
}

// failing is a store that breaks off after some events.
type failing struct {
	*store.Store
	after int
}

func (f failing) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error) {
	left := f.after
	return f.Store.Events(ctx, q, func(r event.Row) error {
		if left--; left < 0 {
			return errors.New("read chunk 7: checksum does not match")
		}
		return yield(r)
	})
}

func TestEventsErrorUnderway(t *testing.T) {
	st := openStore(t)
	b := event.NewBatch(connectionType, 5000)
	for n := range int64(5000) {
		b.Append(start.UnixNano() + n)
		b.SetString(event.Command, "curl")
	}
	st.Append(b)
	base := serve(t, func(o *Options) { o.Store = failing{st, 4000} })
	for _, params := range []string{"limit=10000", "format=ndjson&limit=0"} {
		answer, err := http.Get(base + "/api/events?" + params)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusOK && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Errorf("%s: an answer that failed looks complete: %v", params, err)
		case answer.StatusCode != http.StatusOK && !bytes.Contains(content, []byte("checksum does not match")):
			t.Errorf("%s: status %d: %s", params, answer.StatusCode, content)
		}
	}
	early := serve(t, func(o *Options) { o.Store = failing{st, 3} })
	scenario{url: "/api/events?format=ndjson&limit=0", status: 500, contains: []string{"checksum does not match"}}.run(t, early)
}
