package query

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

var weightedType = event.MustType(event.Type{
	Name: "weighted", Collection: "weighted", Summary: "Events that stand for several things.",
	Breakdown: "reason", Top: []string{"command"}, Weight: "count",
	Columns: []event.Column{
		{Name: "reason", Kind: event.KindString, Description: "Reason."},
		{Name: "count", Kind: event.KindInt, Description: "How many there were."},
		{Name: "length", Kind: event.KindInt, Description: "Length.", Sum: true},
	},
})

// Summaries count what events stand for, from events and from rollups, and an
// event that does not say how many as one.
func TestWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	reason, count, length := weightedType.MustColumn("reason"), weightedType.MustColumn("count"), weightedType.MustColumn("length")
	q := Summary{Type: weightedType, Window: window(0, int64(time.Hour)), Interval: time.Hour, Lists: []string{"command"}, Distinct: []string{"command"}}
	if !q.FromRollups() {
		t.Fatal("rollups do not answer it")
	}
	direct, rolled := newAggregator(q), newAggregator(q)
	q.Unweighted = true
	events := newAggregator(q)
	if q.FromRollups() {
		t.Error("rollups do not have the number of events")
	}
	q.Unweighted = false
	var all, sum int64
	reasons := map[string]int64{}
	for range 3 {
		b := event.NewBatch(weightedType, 100)
		for range 100 {
			b.Append(r.Int64N(int64(time.Hour)))
			name, n := fmt.Sprint("reason", r.IntN(3)), int64(1)
			b.SetString(reason, name)
			b.SetString(event.Command, fmt.Sprint("command", r.IntN(5)))
			switch r.IntN(3) {
			case 0:
				n = 1 + r.Int64N(1e6)
				b.SetInt(count, n)
			case 1:
				b.SetInt(count, 1-r.Int64N(3)) // what is imported may say anything
			}
			b.SetInt(length, 5)
			all, sum, reasons[name] = all+n, sum+5, reasons[name]+n
		}
		rows := Filters(nil).Compile(weightedType).Select(b, Window{}, nil)
		rollup := NewRollup(weightedType)
		for _, a := range []*Aggregator{direct, events} {
			if err := a.Add(b, rows); err != nil {
				t.Fatal(err)
			}
		}
		for i := range b.Columns {
			rollup.AddColumn(i, &b.Columns[i], rows)
		}
		if err := rollup.AddRows(rows); err != nil {
			t.Fatal(err)
		}
		if err := rolled.AddRollup(time.Unix(0, 0), rollup.sections().of(q)); err != nil {
			t.Fatal(err)
		}
	}
	got := direct.Result()
	if got.Count != all || fmt.Sprint(got.Counts) != fmt.Sprint(numbersOf(reasons)) || got.Sums[0] != (Number{"length", sum}) || got.Series[0].Count != all {
		t.Errorf("%+v, want %d with %v", got, all, reasons)
	}
	if n := events.Result().Count; n != 300 {
		t.Errorf("%d events, want 300", n)
	}
	for i, g := range got.Top["command"] {
		all -= g.Count
		if i > 0 && g.Count > got.Top["command"][i-1].Count {
			t.Error("the list is not sorted by what is counted")
		}
	}
	if all != 0 {
		t.Errorf("the list lacks %d", all)
	}
	want, _ := json.Marshal(got)
	if of, _ := json.Marshal(rolled.Result()); string(of) != string(want) {
		t.Errorf("from rollups %s\nfrom events  %s", of, want)
	}
	q.GroupBy = []string{"count"}
	wantParam(t, q.Validate(), "group_by")
}

// An event that stands for several counts that often. Of a column that is summed
// each of them has an equal part; other numbers are those of each.
func TestWeightOfStats(t *testing.T) {
	b := event.NewBatch(weightedType, 3)
	for _, row := range []struct{ times, length, pid int64 }{{1, 100, 7}, {98, 98 * 40, 1}, {0, 60, 7}} {
		b.Append(1)
		b.SetString(event.Command, "c")
		b.SetInt(event.PID, row.pid)
		b.SetInt(weightedType.MustColumn("length"), row.length)
		if row.times > 0 {
			b.SetInt(weightedType.MustColumn("count"), row.times)
		}
	}
	got := summarise(t, Summary{Type: weightedType, Window: window(0, 10), Stats: []string{"length", "pid"}, GroupBy: []string{"command"}}, b)
	want := map[string]Stats{
		"length": {Count: 100, Min: 40, Max: 100, Avg: 40.8, P50: 40, P95: 40, P99: 60},
		"pid":    {Count: 100, Min: 1, Max: 7, Avg: 1.12, P50: 1, P95: 1, P99: 7},
	}
	if fmt.Sprint(got.Stats) != fmt.Sprint(want) || fmt.Sprint(got.Groups[0].Stats) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got.Stats, want)
	}
}
