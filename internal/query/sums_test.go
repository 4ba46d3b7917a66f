package query

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestSumsThatAreAskedFor(t *testing.T) {
	for _, test := range []struct {
		p    Params
		want []string // nil: all
	}{
		{Params{}, nil},
		{Params{"sums": {"none"}}, []string{}},
		{Params{"sums": {"sent"}}, []string{"sent"}},
		{Params{"sums": {"received, sent"}}, []string{"received", "sent"}},
		{Params{"sums": {"received", "sent"}}, []string{"received", "sent"}},
		{Params{"group_by": {"command"}, "order_by": {"sent"}}, nil},
		{Params{"group_by": {"command"}, "order_by": {"sent"}, "sums": {"none"}}, []string{"sent"}},
		{Params{"group_by": {"command"}, "order_by": {"sum(sent)"}, "sums": {"received"}}, []string{"received", "sent"}},
		{Params{"group_by": {"command"}, "order_by": {"sent"}, "sums": {"sent"}}, []string{"sent"}},
	} {
		q, err := test.p.Summary(flowType, time.Unix(100, 0))
		if err != nil || !reflect.DeepEqual(q.Sums, test.want) {
			t.Errorf("%v asks for %#v, %v; want %#v", test.p, q.Sums, err, test.want)
		}
	}
	for names, want := range map[string]string{
		"":          `sums is not a column of flow that is added up (known are sent, received)`,
		"sen":       `sums "sen" is not a column of flow that is added up (did you mean sent?)`,
		"command":   `sums "command" is not a column of flow that is added up (known are sent, received)`,
		"sent,sent": `sums "sent" is named twice`,
		"none,sent": `sums "none" cannot go together with columns`,
	} {
		_, err := Params{"sums": {names}}.Summary(flowType, time.Unix(100, 0))
		if wrong := (*ParamError)(nil); !errors.As(err, &wrong) || err.Error() != want {
			t.Errorf("%q is refused with %v, want %s", names, err, want)
		}
	}
}

// An answer with some sums is the whole answer without the others.
func TestSomeSumsAgainstAll(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	batches := []*event.Batch{flows(wideFlows(r, 300)...), flows(wideFlows(r, 300)...)}
	for _, q := range []Summary{
		{},
		{Interval: 100},
		{Lists: []string{"command", "address"}, Distinct: []string{"address"}, Top: 2},
		{GroupBy: []string{"command", "state"}},
		{GroupBy: []string{"time", "command"}, Interval: 200},
		{GroupBy: []string{"address/24"}, Stats: []string{"sent"}, Distinct: []string{"pid"}},
	} {
		q.Type, q.Window = flowType, window(0, 1000)
		for _, sums := range [][]string{{}, {"sent"}, {"received"}, {"received", "sent"}} {
			some := q
			some.Sums = sums
			want := without(t, summarise(t, q, batches...), sums)
			if got := without(t, summarise(t, some, batches...), []string{"sent", "received"}); !reflect.DeepEqual(got, want) {
				t.Errorf("%+v with %q:\n%v\nwant\n%v", q, sums, got, want)
			}
			if q.FromRollups() {
				compareRollups(t, some, [][]*event.Batch{batches})
			}
		}
	}
}

// without returns an answer as JSON reads, in which only these sums are left.
func without(t *testing.T, r *SummaryResult, left []string) (answer any) {
	t.Helper()
	if err := json.Unmarshal([]byte(asJSON(t, r)), &answer); err != nil {
		t.Fatal(err)
	}
	var cut func(any)
	cut = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			sums, _ := v["sums"].(map[string]any)
			for name := range sums {
				if !slices.Contains(left, name) {
					delete(sums, name)
				}
			}
			for _, member := range v {
				cut(member)
			}
		case []any:
			for _, member := range v {
				cut(member)
			}
		}
	}
	cut(answer)
	return answer
}
