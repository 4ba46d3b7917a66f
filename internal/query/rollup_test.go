package query

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// sections are those of a rollup, by name.
type sections map[string][]byte

// of returns what a summary needs of them.
func (s sections) of(q Summary) (list [][]byte) {
	for _, name := range q.Sections() {
		list = append(list, s[name])
	}
	return list
}

func rollupOf(t testing.TB, batches ...*event.Batch) sections {
	t.Helper()
	a := NewRollup(flowType)
	for _, b := range batches {
		if err := a.Add(b, all(b)); err != nil {
			t.Fatal(err)
		}
	}
	return a.sections()
}

func (a *Aggregator) sections() sections {
	s := sections{}
	for _, name := range RollupSections(a.query.Type) {
		s[name] = a.AppendSection(nil, name)
	}
	return s
}

// An aggregator that is used again knows nothing of what it counted before.
func TestRollupAfterReset(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	a := NewRollup(flowType)
	for range 20 {
		a.Reset()
		b := flows(randomFlows(r, 1+r.IntN(300))...)
		if err := a.Add(b, all(b)); err != nil {
			t.Fatal(err)
		}
		want := rollupOf(t, b)
		for name, section := range a.sections() {
			if !slices.Equal(section, want[name]) {
				t.Fatalf("section %q is %x, want %x", name, section, want[name])
			}
		}
	}
}

// A summary of rollups is that of the events, whatever is asked.
func TestRollupsAgainstEvents(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	hour := int64(time.Hour)
	for range 20 {
		var hours [3][]*event.Batch
		for h := range hours {
			for range 2 {
				list := randomFlows(r, 1+r.IntN(200))
				for i := range list {
					list[i].time += int64(h) * hour
				}
				hours[h] = append(hours[h], flows(list...))
			}
		}
		for _, q := range []Summary{
			{},
			{Lists: []string{"command", "address"}, Distinct: []string{"address", "protocol"}},
			{GroupBy: []string{"command"}, Top: 2},
			{GroupBy: []string{"state"}, Interval: time.Hour},
			{Interval: 2 * time.Hour},
			{Filters: Filters{{Column: "command", Values: []string{"curl", "nginx"}}}},
			{Filters: Filters{{Column: "state", Values: []string{"closed"}}}, GroupBy: []string{"state"}, Interval: time.Hour},
			{GroupBy: []string{"address/31"}, Interval: time.Hour},
			{GroupBy: []string{"time"}, Interval: time.Hour},
			{GroupBy: []string{"time", "command"}, Interval: time.Hour, Top: 2},
			{GroupBy: []string{"address/30/8", "time"}, Interval: 2 * time.Hour, OrderBy: "sent", Ascending: true},
			{GroupBy: []string{"time"}, Interval: time.Hour, Filters: Filters{{Column: "command", Op: Equal, Values: []string{"curl"}}}},
			{GroupBy: []string{"time", "address/31"}, Interval: time.Hour, Filters: Filters{{Column: "address", Op: Equal, Values: []string{"10.0.0.1", "::/0"}}}},
			{Filters: Filters{{Column: "address", Values: []string{"10.0.0.0/31"}}}, Lists: []string{"address"}, Distinct: []string{"address"}},
			{Filters: Filters{{Column: "state", Values: []string{"closed"}, Op: NotEqual}}, GroupBy: []string{"state"}},
			{Filters: Filters{{Column: "command", Op: Absent}}, Lists: []string{"command"}, Interval: time.Hour},
			{Filters: Filters{{Column: "address", Op: Present}}, Lists: []string{"address"}},
			{Filters: Filters{{Column: "command", Values: []string{"c*"}}, {Column: "command", Values: []string{"curl"}, Op: NotEqual}}},
			{Filters: Filters{{Column: "command", Values: []string{"c*"}, Op: NotEqual}, {Column: "command", Op: Present}}, GroupBy: []string{"command"}},
			{Filters: Filters{{Column: "address", Values: []string{"10.0.0.0/8"}, Op: NotEqual}}, Distinct: []string{"address"}},
			{Filters: Filters{{Column: "protocol", Values: []string{"icmp"}, Op: NotEqual}}, Interval: 3 * time.Hour},
		} {
			q.Type, q.Window = flowType, window(0, 3*hour)
			if !q.FromRollups() {
				t.Fatalf("%+v cannot be answered from rollups", q)
			}
			compareRollups(t, q, hours[:])
		}
	}
}

func compareRollups(t *testing.T, q Summary, hours [][]*event.Batch) {
	t.Helper()
	direct, err := NewAggregator(q)
	if err != nil {
		t.Fatal(err)
	}
	rolled, err := NewAggregator(q)
	if err != nil {
		t.Fatal(err)
	}
	for h, batches := range hours {
		for _, b := range batches {
			if err := direct.Add(b, q.Filters.Compile(flowType).Select(b, q.Window, nil)); err != nil {
				t.Fatal(err)
			}
		}
		// Made in two steps, as when a block is added to an hour.
		hour := NewRollup(flowType)
		for _, b := range batches {
			if err := hour.AddRollup(time.Time{}, rollupOf(t, b).of(hour.query)); err != nil {
				t.Fatal(err)
			}
		}
		if err := rolled.AddRollup(time.Unix(int64(h)*3600, 0), hour.sections().of(rolled.query)); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := json.Marshal(direct.Result())
	got, _ := json.Marshal(rolled.Result())
	if string(got) != string(want) {
		t.Errorf("%+v\nfrom rollups %s\nfrom events  %s", q, got, want)
	}
}

func TestFromRollups(t *testing.T) {
	for _, q := range []Summary{
		{GroupBy: []string{"port"}},
		{GroupBy: []string{"command", "address"}},
		{GroupBy: []string{"command", "time", "address"}, Interval: time.Hour},
		{GroupBy: []string{"command"}, Distinct: []string{"address"}},
		{GroupBy: []string{"command"}, FirstSeen: true},
		{Stats: []string{"sent"}},
		{Lists: []string{"pid"}},
		{Distinct: []string{"flow_id"}},
		{Interval: time.Minute},
		{Filters: Filters{{Column: "pid", Values: []string{"1"}}}},
		{Filters: Filters{{Column: "command", Values: []string{"x"}}}, Lists: []string{"address"}},
		{Filters: Filters{{Column: "state", Values: []string{"open"}}}, Distinct: []string{"state"}},
		{Filters: Filters{{Column: "sent", Values: []string{"1"}, Op: Greater}}},
		{Filters: Filters{{Column: "command", Values: []string{"x"}}, {Column: "state", Values: []string{"open"}}}},
	} {
		q.Type = flowType
		if q.FromRollups() {
			t.Errorf("%+v: rollups do not hold that", q)
		}
	}
}

func FuzzReadSection(f *testing.F) {
	for _, s := range rollupOf(f, flows(randomFlows(rand.New(rand.NewPCG(1, 1)), 20)...)) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"", "command", "address", "state"} {
			a := newAggregator(Summary{Type: flowType, Window: window(0, 1)})
			var s section
			if err := a.openSection(&s, name, slices.Clone(data)); err != nil {
				continue
			}
			if name == "" {
				a.addTotal(time.Unix(0, 0), &s, nil)
				continue
			}
			l := a.newList(name)
			s.codes(l.columns[0], nil)
			l.cells.grow(len(l.columns[0].values))
			s.addTo(&l.cells, len(a.breakdown.values))
			if !s.bad && len(s.at) != 1+s.values {
				t.Errorf("%d cells for %d values", len(s.at), s.values)
			}
		}
	})
}
