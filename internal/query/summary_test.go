package query

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

func window(since, until int64) Window {
	return Window{Since: time.Unix(0, since), Until: time.Unix(0, until)}
}

func all(b *event.Batch) []int32 {
	return Filters(nil).Compile(b.Type).Select(b, Window{}, nil)
}

func summarise(t *testing.T, q Summary, batches ...*event.Batch) *SummaryResult {
	t.Helper()
	a, err := NewAggregator(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := a.Add(b, Filters(nil).Compile(b.Type).Select(b, q.Window, nil)); err != nil {
			t.Fatal(err)
		}
	}
	return a.Result()
}

func TestSummaryJSON(t *testing.T) {
	b := flows(
		flow{time: 1, state: "open", command: "curl", pid: 1, address: "10.0.0.1"},
		flow{time: 2, state: "closed", command: "curl", pid: 1, address: "10.0.0.1", sent: 5, received: 7},
		flow{time: 12, state: "closed", pid: 2, sent: 1},
	)
	q := Summary{Type: flowType, Window: window(0, 20), Top: 5, Distinct: []string{"address", "command", "container_id", "pid", "protocol"}}
	tests := []struct {
		name   string
		change func(q *Summary)
		want   string
	}{
		{"top", func(q *Summary) { q.Lists = []string{"address", "command"} }, `"top":{` +
			`"address":[{"address":"10.0.0.1","count":2,"counts":{"closed":1,"failed":0,"open":1},"sums":{"received":7,"sent":5}}],` +
			`"command":[{"command":"curl","count":2,"counts":{"closed":1,"failed":0,"open":1},"sums":{"received":7,"sent":5}}]},`},
		{"groups", func(q *Summary) { q.GroupBy = []string{"pid", "command"}; q.Top = 1 }, `"groups":[` +
			`{"pid":1,"command":"curl","count":2,"counts":{"closed":1,"failed":0,"open":1},"sums":{"received":7,"sent":5},"distinct":{"address":1,"command":1,"container_id":0,"pid":1,"protocol":0}}],"groups_total":2,`},
		{"absent values", func(q *Summary) { q.GroupBy = []string{"command"} }, `"groups":[` +
			`{"command":"curl","count":2,"counts":{"closed":1,"failed":0,"open":1},"sums":{"received":7,"sent":5},"distinct":{"address":1,"command":1,"container_id":0,"pid":1,"protocol":0}},` +
			`{"count":1,"counts":{"closed":1,"failed":0,"open":0},"sums":{"received":0,"sent":1},"distinct":{"address":0,"command":0,"container_id":0,"pid":1,"protocol":0}}],"groups_total":2,`},
		{"series", func(q *Summary) { q.GroupBy = []string{"flow_id"}; q.Interval = 6 }, `"groups":[` +
			`{"count":3,"counts":{"closed":2,"failed":0,"open":1},"sums":{"received":7,"sent":6},"distinct":{"address":1,"command":1,"container_id":0,"pid":2,"protocol":0}}],"groups_total":1,"series":[` +
			`{"time":"1970-01-01T00:00:00Z","count":2,"counts":{"closed":1,"failed":0,"open":1},"sums":{"received":7,"sent":5}},` +
			`{"time":"1970-01-01T00:00:00.000000006Z","count":0,"counts":{"closed":0,"failed":0,"open":0},"sums":{"received":0,"sent":0}},` +
			`{"time":"1970-01-01T00:00:00.000000012Z","count":1,"counts":{"closed":1,"failed":0,"open":0},"sums":{"received":0,"sent":1}},` +
			`{"time":"1970-01-01T00:00:00.000000018Z","count":0,"counts":{"closed":0,"failed":0,"open":0},"sums":{"received":0,"sent":0}}],`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := q
			test.change(&q)
			got, err := json.Marshal(summarise(t, q, b))
			if err != nil {
				t.Fatal(err)
			}
			want := `{"type":"flow","since":"1970-01-01T00:00:00Z","until":"1970-01-01T00:00:00.00000002Z",` +
				`"count":3,"counts":{"closed":2,"failed":0,"open":1},"sums":{"received":7,"sent":6},` +
				`"distinct":{"address":1,"command":1,"container_id":0,"pid":2,"protocol":0},` + test.want
			if rest, ok := strings.CutPrefix(string(got), want); !ok || !strings.HasPrefix(rest, `"coverage":`) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestSummaryOfNothing(t *testing.T) {
	got, err := json.Marshal(summarise(t, Summary{Type: dropType, Window: window(0, 0), GroupBy: []string{"pid"}, Interval: 1, Distinct: []string{"pid"}}))
	if err != nil {
		t.Fatal(err)
	}
	want := `"count":0,"counts":{},"sums":{},"distinct":{"pid":0},"groups":[],"series":[],"coverage"`
	if !strings.Contains(string(got), want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSummaryRejects(t *testing.T) {
	q := Summary{Type: flowType, Window: window(0, int64(time.Hour))}
	tests := []struct {
		param  string
		change func(q *Summary)
	}{
		{"group_by", func(q *Summary) { q.GroupBy = []string{"reason"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"time"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"pid", "uid", "pid"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"pid", "uid", "port", "command"} }},
		{"top", func(q *Summary) { q.Top = -1 }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"address", "address/24"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"command/24"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"address/33"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"address/24/129"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"address/24/64/1"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"address/"} }},
		{"group_by", func(q *Summary) { q.GroupBy = []string{"address/-1"} }},
		{"first_seen", func(q *Summary) { q.GroupBy = []string{"time"}; q.FirstSeen = true; q.Interval = time.Hour }},
		{"first_seen", func(q *Summary) { q.FirstSeen = true }},
		{"stats", func(q *Summary) { q.Stats = []string{"command"} }},
		{"stats", func(q *Summary) { q.Stats = []string{"sent", "sent"} }},
		{"stats", func(q *Summary) { q.Stats = []string{"sent", "received", "port", "pid", "uid"} }},
		{"distinct", func(q *Summary) { q.Distinct = []string{"time"} }},
		{"order_by", func(q *Summary) { q.GroupBy = []string{"pid"}; q.OrderBy = "command" }},
		{"order_by", func(q *Summary) { q.GroupBy = []string{"pid"}; q.OrderBy = "p90(sent)" }},
		{"order_by", func(q *Summary) { q.GroupBy = []string{"pid"}; q.OrderBy = "sum(port)" }},
		{"order_by", func(q *Summary) { q.GroupBy = []string{"pid"}; q.OrderBy = "max(sent" }},
		{"order_by", func(q *Summary) { q.GroupBy = []string{"pid"}; q.OrderBy = "max(sent)" }},
		{"order_by", func(q *Summary) { q.OrderBy = "sent" }},
		{"order_by", func(q *Summary) {
			q.Lists = []string{"command"}
			q.OrderBy = "distinct(port)"
			q.Distinct = []string{"port"}
		}},
		{"compare", func(q *Summary) { q.Compare = -1 }},
		{"compare", func(q *Summary) { q.Compare = time.Hour; q.Interval = 7 * time.Minute }},
		{"compare", func(q *Summary) { q.Compare = time.Hour; q.FirstSeen = true; q.GroupBy = []string{"pid"} }},
		{"top", func(q *Summary) { q.GroupBy = []string{"time", "pid"}; q.Interval = time.Second; q.Top = 1000 }},
		{"interval", func(q *Summary) { q.Interval = -1 }},
		{"interval", func(q *Summary) { q.Interval = 100 * time.Millisecond }},
		{"interval", func(q *Summary) { q.Interval = 1; q.Window = Window{Since: firstTime, Until: lastTime} }},
		{"until", func(q *Summary) { q.Window = window(2, 1) }},
	}
	for _, test := range tests {
		q := q
		test.change(&q)
		_, err := NewAggregator(q)
		wantParam(t, err, test.param)
	}
}

func TestSeriesBeforeTheEpoch(t *testing.T) {
	got := summarise(t, Summary{Type: flowType, Window: window(-7, 5), Interval: 5}, flows(flow{time: -6}, flow{time: -5}, flow{time: -1}, flow{time: 0}))
	var counts []string
	for _, b := range got.Series {
		counts = append(counts, fmt.Sprint(b.Time.UnixNano(), ":", b.Count))
	}
	if want := []string{"-10:1", "-5:2", "0:1"}; !slices.Equal(counts, want) {
		t.Errorf("buckets are %v, want %v", counts, want)
	}
}

func randomFlows(r *rand.Rand, n int) []flow {
	list := make([]flow, n)
	for i := range list {
		list[i] = flow{
			time: r.Int64N(1000), state: []string{"", "open", "closed"}[r.IntN(3)],
			command: []string{"", "curl", "ssh", "nc"}[r.IntN(4)], pid: r.Int64N(5),
			address: []string{"", "10.0.0.1", "10.0.0.2", "fe80::1"}[r.IntN(4)],
			port:    r.Int64N(4), sent: r.Int64N(100), received: r.Int64N(3) - 1, id: r.Int64N(6),
		}
	}
	return list
}

func numbersOf(m map[string]int64) (list Numbers) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, Number{name, m[name]})
	}
	return list
}

// naive computes figures row by row from what was written down, with the number
// of different values of some columns.
func naive(list []flow, distinct ...string) Figures {
	f := Figures{}
	counts, sums := map[string]int64{"open": 0, "closed": 0, "failed": 0}, map[string]int64{"sent": 0, "received": 0}
	for _, row := range list {
		f.Count++
		if row.state != "" {
			counts[row.state]++
		}
		sums["sent"] += row.sent
		sums["received"] += row.received
	}
	f.Counts, f.Sums = numbersOf(counts), numbersOf(sums)
	for i, name := range distinct {
		if i == 0 {
			f.Distinct = make(map[string]int64)
		}
		values := make(map[string]bool)
		for _, row := range list {
			if v := row.text(name); v != "" {
				values[v] = true
			}
		}
		f.Distinct[name] = int64(len(values))
	}
	return f
}

// text returns the value of a column; "" where it is absent.
func (f flow) text(column string) string {
	n := map[string]int64{"pid": f.pid, "port": f.port, "sent": f.sent}[column]
	switch {
	case n != 0:
		return fmt.Sprint(n)
	case column == "command":
		return f.command
	case column == "address":
		return f.address
	case column == "state":
		return f.state
	}
	return ""
}

func naiveGroups(list []flow, key func(flow) string, distinct ...string) map[string]Figures {
	split := make(map[string][]flow)
	for _, row := range list {
		split[key(row)] = append(split[key(row)], row)
	}
	groups := make(map[string]Figures)
	for k, rows := range split {
		groups[k] = naive(rows, distinct...)
	}
	return groups
}

func checkGroups(t *testing.T, what string, got []Group, want map[string]Figures) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d groups, want %d", what, len(got), len(want))
	}
	for i, g := range got {
		var key []string
		for _, k := range g.Key {
			if k.Value != nil {
				key = append(key, fmt.Sprint(k.Value))
			}
		}
		name := strings.Join(key, " ")
		if fmt.Sprint(g.Figures) != fmt.Sprint(want[name]) {
			t.Errorf("%s %q: got %v, want %v", what, name, g.Figures, want[name])
		}
		if i > 0 && g.Count > got[i-1].Count {
			t.Errorf("%s: groups are not sorted by count", what)
		}
	}
}

// Whatever the batches are and however they are spread over aggregators, the
// answer is that of a computation row by row.
func TestSummaryAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 30 {
		list := randomFlows(r, 1+r.IntN(400))
		q := Summary{Type: flowType, Window: window(100, 900), Interval: 100, Distinct: []string{"command", "address"}}
		if round%2 == 0 {
			q.GroupBy = []string{"address", "pid"}
		} else {
			q.Lists = []string{"command", "address"}
		}
		parts := make([]*Aggregator, 3)
		for i := range parts {
			var err error
			if parts[i], err = NewAggregator(q); err != nil {
				t.Fatal(err)
			}
		}
		for rest := list; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			b := flows(rest[:n]...)
			rest = rest[n:]
			if err := parts[r.IntN(3)].Add(b, Filters(nil).Compile(flowType).Select(b, q.Window, nil)); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range parts[1:] {
			if err := parts[0].Merge(p); err != nil {
				t.Fatal(err)
			}
		}
		got := parts[0].Result()
		list = slices.DeleteFunc(list, func(f flow) bool { return f.time < 100 || f.time >= 900 })
		compareWithNaive(t, got, list)
	}
}

func compareWithNaive(t *testing.T, got *SummaryResult, list []flow) {
	t.Helper()
	distinct := []string{"command", "address"}
	if want := naive(list, distinct...); fmt.Sprint(got.Figures) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got.Figures, want)
	}
	commands := naiveGroups(list, func(f flow) string { return f.command })
	addresses := naiveGroups(list, func(f flow) string { return f.address })
	delete(commands, "")
	delete(addresses, "")
	if got.Distinct["command"] != int64(len(commands)) || got.Distinct["address"] != int64(len(addresses)) {
		t.Errorf("distinct is %v, want %d commands and %d addresses", got.Distinct, len(commands), len(addresses))
	}
	if got.Groups != nil {
		pairs := naiveGroups(list, func(f flow) string {
			if f.pid == 0 {
				return f.address
			}
			return strings.TrimSpace(fmt.Sprint(f.address, " ", f.pid))
		}, distinct...)
		checkGroups(t, "group", got.Groups, pairs)
		if got.GroupsTotal != len(pairs) {
			t.Errorf("%d groups in all, want %d", got.GroupsTotal, len(pairs))
		}
	} else {
		checkGroups(t, "command", got.Top["command"], commands)
		checkGroups(t, "address", got.Top["address"], addresses)
	}
	buckets := naiveGroups(list, func(f flow) string { return fmt.Sprint(f.time / 100 * 100) })
	for _, b := range got.Series {
		want, ok := buckets[fmt.Sprint(b.Time.UnixNano())]
		if !ok {
			want = naive(nil)
		}
		if fmt.Sprint(b.Figures) != fmt.Sprint(want) {
			t.Errorf("bucket %v: got %v, want %v", b.Time, b.Figures, want)
		}
	}
	if len(got.Series) != 8 {
		t.Errorf("%d buckets, want 8", len(got.Series))
	}
}

func TestTooManyGroups(t *testing.T) {
	a, err := NewAggregator(Summary{Type: flowType, Window: window(0, 1), GroupBy: []string{"port"}})
	if err != nil {
		t.Fatal(err)
	}
	b := event.NewBatch(flowType, maxValues+1)
	for i := range int64(maxValues + 1) {
		b.Append(0)
		b.SetInt(flowType.MustColumn("port"), i)
	}
	wantParam(t, a.Add(b, all(b)), "since")
}

// What would take too much memory is refused, with what to do.
func TestTooManyPairs(t *testing.T) {
	column := flowType.MustColumn("port")
	batch := func(from, n int64) *event.Batch {
		b := event.NewBatch(flowType, int(n))
		for i := range n {
			b.Append(0)
			b.SetInt(event.PID, i%4)
			b.SetInt(column, from+i/4)
		}
		return b
	}
	for param, q := range map[string]Summary{
		"distinct": {GroupBy: []string{"pid"}, Distinct: []string{"port"}},
		"stats":    {GroupBy: []string{"port"}, Stats: []string{"pid", "uid", "port"}},
	} {
		q.Type, q.Window = flowType, window(0, 1)
		a, err := NewAggregator(q)
		for i := int64(0); err == nil && i < 4*maxPairs; i += 1 << 18 {
			b := batch(i/4, 1<<18)
			err = a.Add(b, all(b))
		}
		wantParam(t, err, param)
	}
}
