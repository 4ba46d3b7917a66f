package query

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// read returns JSON as it can be compared, with its numbers as they are written.
func read(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// byTags returns an answer as encoding/json writes it by the tags, and the groups
// with their keys.
func byTags(t *testing.T, r *SummaryResult) any {
	t.Helper()
	groups := func(list []Group) (all []any) {
		for _, g := range list {
			one := read(t, []byte(asJSON(t, g))).(map[string]any)
			for _, k := range g.Key {
				if k.Value != nil {
					one[k.Column] = read(t, []byte(asJSON(t, k.Value)))
				}
			}
			all = append(all, one)
		}
		return all
	}
	type plain SummaryResult
	answer := read(t, []byte(asJSON(t, plain(*r)))).(map[string]any)
	if len(r.Groups) > 0 {
		answer["groups"] = groups(r.Groups)
	}
	for column, list := range r.Top {
		if len(list) > 0 {
			answer["top"].(map[string]any)[column] = groups(list)
		}
	}
	return answer
}

func checkJSON(t *testing.T, what any, r *SummaryResult) {
	t.Helper()
	got, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(got) || !reflect.DeepEqual(read(t, got), byTags(t, r)) {
		t.Errorf("%+v is written as\n%s\nthe tags say\n%s", what, got, asJSON(t, byTags(t, r)))
	}
}

// Whatever there is in an answer is written as its tags say.
func TestJSONIsAsTheTagsSay(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	for round := range 40 {
		list := wideFlows(r, r.IntN(300))
		for i := range list {
			list[i].command = []string{"", "curl", "a\"b\\c", "<&>", "\xff\x00", "é💩\u2028"}[r.IntN(6)]
		}
		for _, q := range []Summary{
			{Lists: []string{"command", "address", "pid"}, Distinct: []string{"address"}},
			{Interval: 100, Stats: []string{"sent"}},
			{GroupBy: []string{"command", "port"}, Distinct: []string{"pid"}, Stats: []string{"received", "sent"}},
			{GroupBy: []string{"time", "command"}, Interval: 50, Sums: []string{}},
			{GroupBy: []string{"command"}, Compare: 500, Interval: 100, Distinct: []string{"pid"}},
			{GroupBy: []string{"address"}, FirstSeen: true},
		} {
			q.Type, q.Window, q.Top = flowType, window(500, 1000), []int{0, 3}[round%2]
			result := spreadOver(t, r, q, list).Result()
			if q.Compare > 0 {
				var err error
				if result, err = spreadOver(t, r, q, list).Compared(spreadOver(t, r, q.Before(), list)); err != nil {
					t.Fatal(err)
				}
			}
			result.Coverage = Coverage{Gaps: []Gap{{Type: "flow", Reason: GapCrashed}}, Lost: map[string]int64{"flow": 3}}
			if q.FirstSeen {
				result.History = &Coverage{Complete: true, Oldest: time.Unix(1, 5).UTC()}
			}
			checkJSON(t, q, result)
		}
	}
	checkJSON(t, "nothing", &SummaryResult{})
}

// BenchmarkJSON is the answer to drops per hour by reason over seven days.
func BenchmarkJSON(b *testing.B) {
	result := &SummaryResult{}
	for _, reason := range []string{"NO_SOCKET", "NETFILTER_DROP", "TCP_INVALID_SEQUENCE", "TCP_RESET", "CPU_BACKLOG", "QDISC_DROP", "SOCKET_RCVBUFF", "TCP_CSUM", "IP_OUTNOROUTES", "NEIGH_FAILED"} {
		result.Counts = append(result.Counts, Number{reason, 12345})
	}
	for hour := range 168 {
		result.Series = append(result.Series, Bucket{Time: time.Unix(int64(hour)*3600, 0).UTC(), Figures: result.Figures})
	}
	type plain SummaryResult
	b.Run("by tags", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal((*plain)(result)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by hand", func(b *testing.B) {
		for b.Loop() {
			if _, err := result.MarshalJSON(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
