package query

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// wideFlows have numbers of all sizes.
func wideFlows(r *rand.Rand, n int) []flow {
	list := randomFlows(r, n)
	for i := range list {
		list[i].sent = r.Int64() >> r.IntN(63)
		list[i].received = -r.Int64() >> r.IntN(64)
		list[i].address = []string{"", "10.0.0.1", "10.0.0.77", "10.0.1.1", "fe80::1", "fe80::2", "fe80:0:0:1::1"}[r.IntN(7)]
	}
	return list
}

// naiveKey is what a flow is grouped by, as the answer shows it.
func naiveKey(f flow, by []string, interval int64) string {
	var parts []string
	for _, text := range by {
		switch {
		case text == "time":
			parts = append(parts, time.Unix(0, f.time/interval*interval).UTC().Format(time.RFC3339Nano))
		case text == "address/24/48" && f.address != "":
			ip := netip.MustParseAddr(f.address)
			bits := 24
			if ip.Is6() {
				bits = 48
			}
			p, _ := ip.Prefix(bits)
			parts = append(parts, p.String())
		default:
			parts = append(parts, f.text(strings.TrimSuffix(text, "/24/48")))
		}
	}
	return strings.Join(parts, " ")
}

func shownKey(g Group) string {
	var parts []string
	for _, k := range g.Key {
		if k.Value == nil {
			k.Value = ""
		}
		parts = append(parts, fmt.Sprint(k.Value))
	}
	return strings.Join(parts, " ")
}

// naiveStats sorts the numbers.
func naiveStats(list []flow, of func(flow) int64) (s Stats, some bool) {
	var numbers []int64
	sum := new(big.Int)
	for _, f := range list {
		if n := of(f); n != 0 {
			numbers = append(numbers, n)
			sum.Add(sum, big.NewInt(n))
		}
	}
	if len(numbers) == 0 {
		return s, false
	}
	slices.Sort(numbers)
	at := func(p int) int64 { return numbers[(p*len(numbers)+99)/100-1] }
	avg, _ := new(big.Float).SetInt(sum).Float64()
	return Stats{int64(len(numbers)), numbers[0], numbers[len(numbers)-1], avg / float64(len(numbers)), at(50), at(95), at(99)}, true
}

func checkStats(t *testing.T, what string, got map[string]Stats, list []flow) {
	t.Helper()
	for column, of := range map[string]func(flow) int64{
		"sent": func(f flow) int64 { return f.sent }, "received": func(f flow) int64 { return f.received }, "port": func(f flow) int64 { return f.port },
	} {
		g, there := got[column]
		want, some := naiveStats(list, of)
		near := func(a, b, most float64) bool { return math.Abs(a-b) <= most*math.Abs(b) }
		if there != some || g.Count != want.Count || g.Min != want.Min || g.Max != want.Max || !near(g.Avg, want.Avg, 1e-12) {
			t.Errorf("%s: %s is %+v (%v), want %+v (%v)", what, column, g, there, want, some)
		}
		for i, pair := range [][2]int64{{g.P50, want.P50}, {g.P95, want.P95}, {g.P99, want.P99}} {
			exact := pair[1] > -128 && pair[1] < 128
			if exact && pair[0] != pair[1] || !near(float64(pair[0]), float64(pair[1]), StatsError) {
				t.Errorf("%s: percentile %d of %s is %d, want %d", what, i, column, pair[0], pair[1])
			}
		}
	}
}

// spreadOver counts a list with several aggregators, in batches of any size.
func spreadOver(t *testing.T, r *rand.Rand, q Summary, list []flow) *Aggregator {
	t.Helper()
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
		if err := parts[r.IntN(3)].Add(b, q.Filters.Compile(flowType).Select(b, q.Window, nil)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range parts[1:] {
		if err := parts[0].Merge(p); err != nil {
			t.Fatal(err)
		}
	}
	return parts[0]
}

func within(list []flow, since, until int64) (some []flow) {
	for _, f := range list {
		if f.time >= since && f.time < until {
			some = append(some, f)
		}
	}
	return some
}

func split(list []flow, by []string, interval int64) map[string][]flow {
	groups := make(map[string][]flow)
	for _, f := range list {
		key := naiveKey(f, by, interval)
		groups[key] = append(groups[key], f)
	}
	return groups
}

var keysToAsk = [][]string{
	{"command"}, {"address/24/48"}, {"time"}, {"time", "command"}, {"address/24/48", "time"},
	{"pid", "state", "address"}, {"port"}, {"command", "address/24/48", "time"},
}

// All figures of all groups, whatever the groups are, are those of a computation
// row by row.
func TestFiguresAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	distinct := []string{"address", "pid"}
	for round := range 40 {
		list := wideFlows(r, 1+r.IntN(500))
		q := Summary{
			Type: flowType, Window: window(100, 900), Interval: 100, GroupBy: keysToAsk[round%len(keysToAsk)],
			Distinct: distinct, Stats: []string{"sent", "received", "port"}, Sums: []string{"sent"},
		}
		got := spreadOver(t, r, q, list).Result()
		list = within(list, 100, 900)
		checkStats(t, "total", got.Stats, list)
		want := split(list, q.GroupBy, 100)
		if len(got.Groups) != len(want) || got.GroupsTotal != len(want) {
			t.Fatalf("by %v: %d groups of %d, want %d", q.GroupBy, len(got.Groups), got.GroupsTotal, len(want))
		}
		for _, g := range got.Groups {
			rows := want[shownKey(g)]
			figures := naive(rows, distinct...)
			figures.Sums = figures.Sums[1:] // received is not asked for
			checkStats(t, shownKey(g), g.Stats, rows)
			if g.Stats = nil; fmt.Sprint(g.Figures) != fmt.Sprint(figures) {
				t.Errorf("by %v: %q is %+v, want %+v", q.GroupBy, shownKey(g), g.Figures, figures)
			}
		}
		series := split(list, []string{"time"}, 100)
		for _, b := range got.Series {
			checkStats(t, "series", b.Stats, series[b.Time.Format(time.RFC3339Nano)])
		}
	}
}

// The first groups of any order are the first of all groups in that order, and the
// order is that of the figure, groups without it last.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	list := wideFlows(r, 300)
	for i := range list {
		if list[i].pid == 2 {
			list[i].sent = 0
		}
	}
	figure := map[string]func(Figures) (float64, bool){
		"":              func(f Figures) (float64, bool) { return float64(f.Count), true },
		"count":         func(f Figures) (float64, bool) { return float64(f.Count), true },
		"sent":          func(f Figures) (float64, bool) { return float64(f.Sums[1].Value), true },
		"sum(received)": func(f Figures) (float64, bool) { return float64(f.Sums[0].Value), true },
		"distinct(port)": func(f Figures) (float64, bool) {
			return float64(f.Distinct["port"]), true
		},
		"max(sent)":       func(f Figures) (float64, bool) { s, ok := f.Stats["sent"]; return float64(s.Max), ok },
		"min(sent)":       func(f Figures) (float64, bool) { s, ok := f.Stats["sent"]; return float64(s.Min), ok },
		"avg(received)":   func(f Figures) (float64, bool) { s, ok := f.Stats["received"]; return s.Avg, ok },
		"p95(sent)":       func(f Figures) (float64, bool) { s, ok := f.Stats["sent"]; return float64(s.P95), ok },
		"count(received)": func(f Figures) (float64, bool) { s, ok := f.Stats["received"]; return float64(s.Count), ok },
	}
	for by, of := range figure {
		for _, ascending := range []bool{false, true} {
			q := Summary{Type: flowType, Window: window(0, 1000), GroupBy: []string{"pid", "state"}, OrderBy: by, Ascending: ascending}.withOrdered()
			all := spreadOver(t, r, q, list).Result().Groups
			for i := 1; i < len(all); i++ {
				before, was := of(all[i-1].Figures)
				now, is := of(all[i].Figures)
				if is && (!was || ascending && before > now || !ascending && before < now) {
					t.Errorf("by %q, ascending %v: %v comes after %v", by, ascending, now, before)
				}
			}
			q.Top = 4
			some := spreadOver(t, r, q, list).Result()
			if a, b := asJSON(t, &SummaryResult{Groups: some.Groups}), asJSON(t, &SummaryResult{Groups: all[:4]}); a != b || some.GroupsTotal != len(all) {
				t.Errorf("by %q: the first are\n%s of %d, want\n%s of %d", by, a, some.GroupsTotal, b, len(all))
			}
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// With time among the keys the groups are in its order, and there are so many
// of each interval.
func TestTopOfEachInterval(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	list := randomFlows(r, 400)
	q := Summary{Type: flowType, Window: window(0, 1000), Interval: 250, GroupBy: []string{"command", "time"}, Top: 2}
	got := spreadOver(t, r, q, list).Result()
	if len(got.Groups) != 8 || got.GroupsTotal != 16 || got.Series != nil {
		t.Fatalf("%d groups of %d, series %v", len(got.Groups), got.GroupsTotal, got.Series)
	}
	for i, g := range got.Groups {
		begin := int64(i / 2 * 250)
		if g.Key[1].Value != time.Unix(0, begin).UTC().Format(time.RFC3339Nano) {
			t.Errorf("group %d is of %v", i, g.Key[1].Value)
		}
		larger := 0
		for _, rows := range split(within(list, begin, begin+250), []string{"command"}, 1) {
			if int64(len(rows)) > g.Count {
				larger++
			}
		}
		if larger > i%2 {
			t.Errorf("group %d, with %d, is not among the largest", i, g.Count)
		}
	}
}

// A comparison has the figures of both windows, as if each had been asked for.
func TestCompareAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for round := range 32 {
		list := wideFlows(r, 1+r.IntN(60))
		q := Summary{
			Type: flowType, Window: window(500, 900), Compare: 400, Interval: 100, GroupBy: keysToAsk[round%len(keysToAsk)],
			Distinct: []string{"port"}, Sums: []string{"sent"},
		}
		if round%3 == 0 {
			for _, f := range within(list, 500, 900) { // so that some are the same
				f.time -= 400
				list = append(within(list, 500, 900), f)
			}
		}
		got, err := spreadOver(t, r, q, list).Compared(spreadOver(t, r, q.Before(), list))
		if err != nil {
			t.Fatal(err)
		}
		later := slices.Clone(within(list, 100, 500)) // as they would be had they happened in the window
		for i := range later {
			later[i].time += 400
		}
		now, before := split(within(list, 500, 900), q.GroupBy, 100), split(later, q.GroupBy, 100)
		figures := func(list []flow) Figures {
			f := naive(list, "port")
			f.Sums = f.Sums[1:] // received is not asked for
			return f
		}
		if a, b := asJSON(t, got.Before.Figures), asJSON(t, figures(later)); a != b {
			t.Errorf("before is %s, want %s", a, b)
		}
		if a, b := asJSON(t, got.Figures), asJSON(t, figures(within(list, 500, 900))); a != b {
			t.Errorf("now is %s, want %s", a, b)
		}
		changes := map[string]int{}
		for _, g := range got.Groups {
			key := shownKey(g)
			want := ChangeChanged
			a, b := figures(now[key]), figures(before[key])
			switch {
			case b.Count == 0:
				want = ChangeNew
			case a.Count == 0:
				want = ChangeGone
			case fmt.Sprint(a.Counts, a.Sums, a.Count) == fmt.Sprint(b.Counts, b.Sums, b.Count):
				want = ChangeSame
			}
			if x, y := asJSON(t, g.Figures)+asJSON(t, g.Before), asJSON(t, a)+asJSON(t, b); x != y || g.Change != want {
				t.Errorf("by %v: %q is %s (%s), want %s (%s)", q.GroupBy, key, x, g.Change, y, want)
			}
			changes[want]++
			delete(now, key)
			delete(before, key)
		}
		if len(now)+len(before) > 0 {
			t.Errorf("by %v: the answer lacks %v and %v", q.GroupBy, now, before)
		}
		for change, n := range got.Changes {
			if n != changes[change] {
				t.Errorf("%d are %s, want %d", n, change, changes[change])
			}
		}
		for _, b := range got.Series {
			want := figures(within(later, b.Time.UnixNano(), b.Time.UnixNano()+100))
			want.Distinct = nil
			if a, b := asJSON(t, b.Before), asJSON(t, want); a != b {
				t.Errorf("series: before is %s, want %s", a, b)
			}
		}
	}
}

// The largest of either window comes first, so that what is gone is seen.
func TestCompareOrder(t *testing.T) {
	list := []flow{{time: 1, command: "gone"}, {time: 2, command: "gone"}, {time: 3, command: "gone"}, {time: 11, command: "new"}, {time: 12, command: "same"}, {time: 2, command: "same"}}
	q := Summary{Type: flowType, Window: window(10, 20), Compare: 10, GroupBy: []string{"command"}, Top: 2}
	r := rand.New(rand.NewPCG(1, 1))
	got, err := spreadOver(t, r, q, list).Compared(spreadOver(t, r, q.Before(), list))
	if err != nil {
		t.Fatal(err)
	}
	if got.GroupsTotal != 3 || shownKey(got.Groups[0]) != "gone" || shownKey(got.Groups[1]) != "new" || got.Changes[ChangeSame] != 1 {
		t.Errorf("groups are %+v, changes %v", got.Groups, got.Changes)
	}
}

func TestBucketsOfValues(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	numbers := []int64{0, 1, -1, 127, 128, 129, -128, math.MaxInt64, math.MinInt64, math.MinInt64 + 1}
	for range 10000 {
		numbers = append(numbers, r.Int64()>>r.IntN(64), -r.Int64()>>r.IntN(64))
	}
	slices.Sort(numbers)
	last := uint16(0)
	for _, n := range numbers {
		at := bucketOfValue(n)
		if at < last {
			t.Errorf("%d comes before smaller numbers", n)
		}
		last = at
		if off := math.Abs(float64(middle(at)) - float64(n)); off > StatsError*math.Abs(float64(n)) {
			t.Errorf("%d stands for %d, which is off by %v", middle(at), n, off)
		}
	}
}

func TestSumsDoNotOverflow(t *testing.T) {
	b := flows(flow{time: 1, sent: math.MaxInt64}, flow{time: 2, sent: math.MaxInt64}, flow{time: 3, sent: math.MaxInt64}, flow{time: 4, sent: math.MinInt64})
	got := summarise(t, Summary{Type: flowType, Window: window(0, 10), Stats: []string{"sent"}}, b)
	if want := float64(math.MaxInt64) / 2; got.Stats["sent"].Avg != want {
		t.Errorf("average is %v, want %v", got.Stats["sent"].Avg, want)
	}
}
