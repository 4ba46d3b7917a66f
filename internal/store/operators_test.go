package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// randomFilter asks anything of any column.
func randomFilter(r *rand.Rand) query.Filter {
	values := map[string][]string{
		"pid":     {"7", "150", "299", "-1", "9223372036854775807", "-9223372036854775808"},
		"command": {"curl", "ssh", "c*", "s*", "*", "nobody", `c\*`},
		"state":   {"open", "closed", "c*"},
		"address": {"10.0.0.1", "10.0.0.2/31", "::/0", "0.0.0.0/0", "10.0.0.4"},
		"sent":    {"0", "900", "15000", "29900"},
		"flow_id": {"boot-b", "boot-c", "other-1"},
		"reason":  {"NO_SOCKET", "N*", "OTHER"},
		"peer":    {"open@10.0.0.1", "open@*", "closed@10.0.0.3", "ajar@10.0.0.1"},
		"uid":     {"0"}, // which no event has
	}
	columns := []string{"pid", "command", "state", "address", "sent", "flow_id", "reason", "peer", "uid"}
	f := query.Filter{Column: columns[r.IntN(len(columns))]}
	ops := []query.Op{query.Equal, query.NotEqual, query.Absent, query.Present}
	if slices.Contains([]string{"pid", "sent", "uid"}, f.Column) {
		ops = append(ops, query.Less, query.LessOrEqual, query.Greater, query.GreaterOrEqual)
	}
	if f.Op = ops[r.IntN(len(ops))]; f.Op == query.Absent || f.Op == query.Present {
		return f
	}
	for range 1 + r.IntN(2) {
		f.Values = append(f.Values, values[f.Column][r.IntN(len(values[f.Column]))])
	}
	return f
}

// passes looks at what is printed of an event.
func passes(row event.Row, f query.Filter) bool {
	var text string
	column, has := row.Batch.Type.Field(f.Column)
	if has {
		var raw []byte
		raw, has = row.AppendText(nil, column)
		text = string(raw)
	}
	is := func(value string) bool { return has && equals(text, value) }
	n, _ := strconv.ParseInt(text, 10, 64)
	than := func(compare func(wanted int64) bool) bool {
		return has && !slices.ContainsFunc(f.Values, func(value string) bool {
			wanted, _ := strconv.ParseInt(value, 10, 64)
			return !compare(wanted)
		})
	}
	switch f.Op {
	case query.Equal:
		return slices.ContainsFunc(f.Values, is)
	case query.NotEqual:
		return !slices.ContainsFunc(f.Values, is)
	case query.Less:
		return than(func(wanted int64) bool { return n < wanted })
	case query.LessOrEqual:
		return than(func(wanted int64) bool { return n <= wanted })
	case query.Greater:
		return than(func(wanted int64) bool { return n > wanted })
	case query.GreaterOrEqual:
		return than(func(wanted int64) bool { return n >= wanted })
	}
	return has == (f.Op == query.Present)
}

func equals(text, value string) bool {
	if network, err := netip.ParsePrefix(value); err == nil {
		ip, err := netip.ParseAddr(text)
		return err == nil && network.Contains(ip)
	}
	if before, ok := strings.CutSuffix(value, `\*`); ok {
		return text == before+"*"
	}
	before, begins := strings.CutSuffix(value, "*")
	return text == before || begins && strings.HasPrefix(text, before)
}

// Filters are what a look at each event says, be these in memory, rows or blocks,
// and summaries count the same, be it from rollups or not.
func TestFiltersAgainstNaive(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	flows, drops := event.NewBatch(flowType, 0), event.NewBatch(dropType, 0)
	for i := range int64(300) {
		addFlow(flows, minute(int(i)).UnixNano(), i)
	}
	flows.Append(minute(301).UnixNano()) // and nothing else is known
	for i := range 20 {
		drops.AppendRows(drop(minute(i*15), int64(i)), nil)
	}
	var rows []event.Row
	for _, b := range []*event.Batch{flows, drops} {
		for i := range b.Len() {
			rows = append(rows, event.Row{Batch: b, Index: i})
		}
	}
	s.Append(flows)
	s.Append(drops)
	c.set(minute(72 * 60))
	for _, step := range []struct {
		name string
		next func()
	}{{"memory", func() {}}, {"rows", func() { flush(t, s) }}, {"blocks", func() { sealAll(t, s) }}} {
		step.next()
		r := rand.New(rand.NewPCG(17, 4))
		for range 400 {
			var filters query.Filters
			for range 1 + r.IntN(3) {
				filters = append(filters, randomFilter(r))
			}
			compareNaive(t, s, fmt.Sprintf("%s: %+v", step.name, filters), rows, filters)
		}
	}
}

func compareNaive(t *testing.T, s *Store, name string, rows []event.Row, filters query.Filters) {
	t.Helper()
	want := map[string][]string{}
	for _, row := range rows {
		if !slices.ContainsFunc(filters, func(f query.Filter) bool { return !passes(row, f) }) {
			want[row.Batch.Type.Name] = append(want[row.Batch.Type.Name], string(row.AppendJSON(nil)))
		}
	}
	got := map[string][]string{}
	_, err := s.Events(context.Background(), query.Events{Types: testTypes, Filters: filters, Ascending: true}, func(row event.Row) error {
		got[row.Batch.Type.Name] = append(got[row.Batch.Type.Name], string(row.AppendJSON(nil)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range testTypes {
		if !slices.Equal(got[of.Name], want[of.Name]) {
			t.Errorf("%s: found %d of type %s, want %d", name, len(got[of.Name]), of.Name, len(want[of.Name]))
		}
		for _, q := range []query.Summary{{}, {Interval: time.Hour, Lists: []string{filters[0].Column}}, {Sums: []string{}, Interval: time.Minute}} {
			q.Type, q.Filters, q.Window = of, filters, minutes(0, 10*60)
			if _, ok := of.Column(filters[0].Column); !ok {
				q.Lists = nil
			}
			if got := summarise(t, s, q).Count; got != int64(len(want[of.Name])) {
				t.Errorf("%s: summary counts %d of type %s, want %d", name, got, of.Name, len(want[of.Name]))
			}
		}
	}
}
