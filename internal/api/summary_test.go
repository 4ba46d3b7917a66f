package api

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestSummary(t *testing.T) {
	st := openStore(t)
	fill(st, time.Now().Add(-30*time.Second))
	fill(st, start)
	st.Filtered("connection", "excluded", time.Now(), 4000)
	base := serve(t, func(o *Options) { o.Store = st })
	const fixed = `"since":"2024-11-21T03:12:00Z","until":"2024-11-21T03:13:00Z"`
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	post := func(name, body string, contains ...string) scenario {
		return scenario{name: name, method: "POST", url: "/api/connections/summary", body: body, status: 200, contains: contains}
	}
	all := []scenario{
		{name: "the first request that anyone tries", method: "POST", url: "/api/connections/summary", headers: form, body: `{"duration":60}`, status: 200,
			contains: []string{`"type":"connection"`, `"count":10`, `"counts":{"closed":8,"established":1,"failed":1}`, `"sums":{"bytes_sent":450}`, `"distinct":{`, `"top":{"command":[{"command":"curl","count":5`, `"coverage":{`, `"lost":{},"filtered":{"connection":{"excluded":4000}}`}},
		post("empty body", "", `"count":10`),
		post("white space", " \n", `"count":10`),
		post("empty object", "{}", `"count":10`),
		post("null", "null", `"count":10`),
		post("null duration", `{"duration":null}`, `"count":10`),
		post("text duration", `{"duration":"1m30s"}`, `"count":10`),
		post("numeric text", `{"duration":"60"}`, `"count":10`),
		post("fraction", `{"duration":0.5}`, `"count":0`),
		post("window", `{`+fixed+`}`, `"count":10`, `"since":"2024-11-21T03:12:00Z"`, `"until":"2024-11-21T03:13:00Z"`),
		post("Unix window", `{"since":1732158720,"until":1732158725.5}`, `"count":6`),
		post("duration before until", `{"until":"2024-11-21T03:12:05Z","duration":2}`, `"count":2`),
		post("filter inside", `{`+fixed+`,"filters":{"command":"curl","state":["closed","failed"]}}`, `"count":4`),
		post("filter beside", `{`+fixed+`,"pid":[101,102,"103"]}`, `"count":3`),
		post("filter both", `{`+fixed+`,"destination_ip":"10.0.0.0/8","filters":{"destination_port":443}}`, `"count":9`),
		post("group by text", `{`+fixed+`,"group_by":"command","top":1}`, `"groups":[{"command":"curl","count":5`, `"groups_total":2`),
		post("group by list", `{`+fixed+`,"group_by":["destination_port","command"]}`, `"destination_port":22`, `"groups_total":3`),
		post("group by commas", `{`+fixed+`,"group_by":"destination_port, command,state"}`, `"groups_total":`),
		post("networks", `{`+fixed+`,"group_by":"destination_ip/29"}`, `"destination_ip":"10.0.0.0/29","count":8`, `"destination_ip":"2001:db8::/64","count":1`, `"groups_total":3`),
		post("networks of both", `{`+fixed+`,"group_by":"destination_ip/8/16"}`, `"destination_ip":"2001::/16"`),
		post("groups by time", `{`+fixed+`,"group_by":["time","command"],"interval":5,"top":1}`,
			`"groups":[{"time":"2024-11-21T03:12:00Z","command":"curl","count":3`, `{"time":"2024-11-21T03:12:05Z","command":"sshd","count":3`, `"groups_total":4`),
		post("order", `{`+fixed+`,"group_by":"command","order_by":"bytes_sent"}`, `"groups":[{"command":"sshd"`, `"sums":{"bytes_sent":250}`),
		post("order by percentile", `{`+fixed+`,"group_by":"command","order_by":"p95(bytes_sent)","order":"asc"}`, `"groups":[{"command":"curl"`, `"stats":{"bytes_sent":{"count":5,"min":0,"max":80,"avg":40,"p50":40,"p95":80,"p99":80}}`, `"stats_error":0.0078125`),
		post("order of lists", `{`+fixed+`,"order_by":"bytes_sent"}`, `"top":{"command":[{"command":"sshd"`),
		post("stats", `{`+fixed+`,"stats":"bytes_sent","state":"failed"}`, `"stats":{"bytes_sent":{"count":1,"min":30,"max":30,"avg":30,`),
		post("some sums", `{`+fixed+`,"group_by":"command","sums":["bytes_sent"]}`, `"groups":[{"command":"curl","count":5,`, `"sums":{"bytes_sent":200}`),
		post("no sums", `{`+fixed+`,"group_by":"command","sums":"none"}`, `"groups":[{"command":"curl","count":5,"counts":{"closed":4,"established":1,"failed":0},"sums":{}}`),
		post("no sums but that of the order", `{`+fixed+`,"group_by":"command","sums":"none","order_by":"bytes_sent"}`, `"groups":[{"command":"sshd"`, `"sums":{"bytes_sent":250}`),
		post("distinct in groups", `{`+fixed+`,"group_by":"state","distinct":"command"}`, `"distinct":{"command":2}`, `"distinct":{"command":1}`),
		post("compare", `{"since":"2024-11-21T03:12:05Z","until":"2024-11-21T03:12:10Z","compare":"-5s","group_by":"destination_port"}`,
			`"destination_port":443,"count":4`, `"change":"changed","before":{"count":5,`, `{"destination_port":22,"count":1,`, `"change":"new"`,
			`"changes":{"changed":1,"gone":0,"new":1,"same":0}`, `"before":{"since":"2024-11-21T03:12:00Z","until":"2024-11-21T03:12:05Z","count":5`),
		post("first seen", `{"since":"2024-11-21T03:12:05Z","until":"2024-11-21T03:13:00Z","first_seen":["destination_port"]}`, `"count":5`,
			`"groups":[{"destination_port":22,"first_seen":"2024-11-21T03:12:09Z","top_command":"sshd","count":1`, `"groups_total":1`, `"history":{"complete":false,"from":"2024-11-21T03:12:00Z","until":"2024-11-21T03:12:05Z"`),
		{name: "first seen with commas", url: "/api/connections/summary?since=2024-11-21T03:12:05Z&first_seen=command,state", status: 200, contains: []string{`"groups":[],`, `"history":{`}},
		post("series", `{`+fixed+`,"interval":"30s"}`, `"series":[{"time":"2024-11-21T03:12:00Z","count":10`, `{"time":"2024-11-21T03:12:30Z","count":0`),
		{name: "query with POST", method: "POST", url: "/api/connections/summary?duration=60", body: `{"command":"sshd"}`, status: 200, contains: []string{`"count":5`}},
		{name: "GET", url: "/api/connections/summary", status: 200, contains: []string{`"count":10`}},
		{name: "GET with parameters", url: "/api/connections/summary?since=2024-11-21T03:12:00Z&until=2024-11-21T03:13:00Z&pid=101&pid=102&group_by=state&group_by=command&interval=20", status: 200,
			contains: []string{`"count":2`, `"groups_total":2`, `"series":[`}},
		{name: "drops", url: "/api/packet_drops/summary?duration=5m", status: 200,
			contains: []string{`"counts":{"CPU_BACKLOG":1,"NETFILTER_DROP":1,"NO_SOCKET":2}`, `"sums":{"length":240}`}},
		{name: "HEAD", method: "HEAD", url: "/api/connections/summary", status: 200},
	}
	scenarios(t, base, all)
}

func TestSummaryRefusals(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	bad := func(name, body string, contains ...string) scenario {
		return scenario{name: name, method: "POST", url: "/api/connections/summary", body: body, status: 400, contains: contains}
	}
	scenarios(t, base, []scenario{
		bad("unknown", `{"durations":60}`, `"field":"durations"`, "did you mean duration?"),
		bad("unknown filter", `{"filters":{"colour":"red"}}`, `"field":"colour"`, "known are duration"),
		bad("of another type", `{"drop_reason":"NO_SOCKET"}`, `"field":"drop_reason"`),
		bad("parameter among filters", `{"filters":{"since":"-5m"}}`, `"field":"since"`, "is not a column"),
		bad("filters as a list", `{"filters":["pid"]}`, `"field":"filters"`),
		bad("empty list", `{"pid":[]}`, `"field":"pid"`, "empty list"),
		bad("nested list", `{"pid":[[1]]}`, `"field":"pid"`),
		bad("object", `{"pid":{"min":1}}`, `"field":"pid"`),
		bad("bool", `{"pid":true}`, `"field":"pid"`),
		bad("twice", `{"pid":1,"filters":{"pid":2}}`, `"field":"pid"`, "two places"),
		bad("no name", `{"":1}`, "is not known here"),
		bad("duration and since", `{"duration":60,"since":"-5m"}`, `"field":"duration"`, "since"),
		bad("duration 0", `{"duration":0}`, `"field":"duration"`, "more than 0"),
		bad("duration negative", `{"duration":-60}`, `"field":"duration"`),
		bad("duration huge", `{"duration":1e18}`, `"field":"duration"`),
		bad("duration beyond floats", `{"duration":1e999}`, `"field":"duration"`),
		bad("duration not a number", `{"duration":"NaN"}`, `"field":"duration"`),
		bad("duration without end", `{"duration":"Inf"}`, `"field":"duration"`),
		bad("duration text", `{"duration":"soon"}`, `"field":"duration"`, "number of seconds"),
		bad("duration twice", `{"duration":[60,61]}`, `"field":"duration"`, "only once"),
		bad("since after until", `{"since":"2024-11-21T03:13:00Z","until":"2024-11-21T03:12:00Z"}`, "before since"),
		bad("since in the future", `{"since":"now+1h"}`, `"field":"since"`, "future"),
		bad("too many groups", `{"group_by":["pid","command","state","uid"]}`, `"field":"group_by"`),
		bad("group by unknown", `{"group_by":"colour"}`, `"field":"group_by"`),
		bad("group by time", `{"group_by":"time"}`, `"field":"group_by"`, "interval"),
		bad("networks of no address", `{"group_by":"command/24"}`, `"field":"group_by"`, "no addresses"),
		bad("network too long", `{"group_by":"destination_ip/48"}`, `"field":"group_by"`, "destination_ip/24/48"),
		bad("order by no figure", `{"group_by":"pid","order_by":"command"}`, `"field":"order_by"`, "bytes_sent"),
		bad("order without groups", `{"interval":60,"order_by":"bytes_sent"}`, `"field":"order_by"`, "group_by"),
		bad("no order", `{"group_by":"pid","order":"down"}`, `"field":"order"`),
		bad("sum of text", `{"sums":"command"}`, `"field":"sums"`, "known are bytes_sent"),
		bad("mistyped sum", `{"sums":["byte_sent"]}`, `"field":"sums"`, "did you mean bytes_sent?"),
		bad("sum of another type", `{"sums":"length"}`, `"field":"sums"`, "bytes_sent"),
		bad("sums and none", `{"sums":["none","bytes_sent"]}`, `"field":"sums"`, "columns"),
		bad("sum twice", `{"sums":"bytes_sent,bytes_sent"}`, `"field":"sums"`, "twice"),
		bad("stats of text", `{"stats":"command"}`, `"field":"stats"`, "numbers"),
		bad("compare forward", `{"compare":"1d"}`, `"field":"compare"`, "-1d"),
		bad("compare nothing", `{"compare":"-soon"}`, `"field":"compare"`),
		bad("compare out of step", `{"compare":"-1h","interval":"7m"}`, `"field":"compare"`, "multiple of interval"),
		bad("first seen and groups", `{"first_seen":"pid","group_by":"command"}`, `"field":"first_seen"`, "group_by"),
		bad("first seen time", `{"first_seen":"time"}`, `"field":"first_seen"`),
		bad("first seen of nothing", `{"first_seen":"colour"}`, `"field":"first_seen"`),
		bad("first seen and compare", `{"first_seen":"pid","compare":"-1d"}`, `"field":"compare"`),
		bad("group twice", `{"group_by":["pid","pid"]}`, `"field":"group_by"`),
		bad("top 0", `{"top":0}`, `"field":"top"`, "from 1 to 1000"),
		bad("top huge", `{"top":1001}`, `"field":"top"`),
		bad("interval too fine", `{"duration":"30d","interval":1}`, `"field":"interval"`),
		bad("interval negative", `{"interval":-1}`, `"field":"interval"`),
		bad("wrong value", `{"filters":{"destination_ip":"host"}}`, `"field":"destination_ip"`),

		bad("form", `duration=60`, "line 1, column 1"),
		bad("broken JSON", "{\"duration\": 60,\n  \"pid\": 1x}", "line 2, column 11"),
		bad("unfinished", "{\"duration\": 60", "line 1, column 16"),
		bad("more text", "{} {}", "line 1, column"),
		bad("list", `[60]`, "must be a JSON object", "array"),
		bad("number", `60`, "must be a JSON object"),
		bad("not UTF-8", "{\"\xff\": 1}", "is not known here"),
		bad("deep", strings.Repeat("[", 200_000), "not one JSON object"),
		{name: "too large", method: "POST", url: "/api/connections/summary", body: `{"command":"` + strings.Repeat("x", maxBody) + `"}`, status: 413},
		{name: "long value", method: "POST", url: "/api/connections/summary", body: `{"pid":"` + strings.Repeat("x", maxBody-100) + `"}`, status: 400, contains: []string{`"field":"pid"`, "xx..."}},
		{name: "long name", method: "POST", url: "/api/connections/summary", body: `{"` + strings.Repeat("x", maxBody-100) + `":1}`, status: 400, contains: []string{"xx..."}},
		{name: "GET twice", url: "/api/connections/summary?top=1&top=2", status: 400, contains: []string{`"field":"top"`}},
		{name: "GET with filters", url: "/api/connections/summary?filters=pid", status: 400, contains: []string{`"field":"filters"`}},
		{name: "unknown collection", url: "/api/sockets/summary", status: 404, contains: []string{"/api/sockets/summary"}},
		{name: "type instead of collection", method: "POST", url: "/api/connection/summary", status: 404},
	})
}

// The body comes in pieces and without its length.
func TestSummaryOfChunkedBody(t *testing.T) {
	st := openStore(t)
	b := event.NewBatch(connectionType, 1)
	b.Append(start.UnixNano())
	st.Append(b)
	base := serve(t, func(o *Options) { o.Store = st })
	in, out := io.Pipe()
	go func() {
		for _, part := range []string{`{"since":0,`, `"top"`, `:5}`} {
			_, _ = out.Write([]byte(part))
		}
		out.Close()
	}()
	answer, err := http.Post(base+"/api/connections/summary", "text/plain", in)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK || !bytes.Contains(content, []byte(`"count":1`)) {
		t.Errorf("status %d: %s", answer.StatusCode, content)
	}
}
