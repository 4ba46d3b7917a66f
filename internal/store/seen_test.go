package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// seenRow is what the tests below know of an event.
type seenRow struct {
	time             int64
	command, address string
	number           int64
}

// network of an address; "" if there is none.
func (r seenRow) network() string {
	if r.address == "" {
		return ""
	}
	p, _ := netip.MustParseAddr(r.address).Prefix(28)
	return p.String()
}

// fillSeen appends events over four days, of which values come up now and then.
func fillSeen(t *testing.T, s *Store, r *rand.Rand, from, hours int) {
	t.Helper()
	for i := range 60 {
		b := event.NewBatch(flowType, 0)
		for range 20 {
			at := begin.Add(time.Duration(from)*time.Hour + time.Duration(r.Int64N(int64(hours)*int64(time.Hour))))
			age := int64(at.Sub(begin) / (4 * time.Hour))
			addFlow(b, at.UnixNano(), r.Int64N(10+10*age))
			if r.IntN(3) > 0 {
				b.SetIP(colAddress, netip.AddrFrom4([4]byte{10, 0, byte(r.Int64N(3)), byte(r.Int64N(10 + 10*age))}))
			}
			if r.IntN(4) > 0 {
				b.SetString(event.Command, fmt.Sprint("command", r.Int64N(2+age)))
			}
		}
		s.Append(b)
		if i%20 == 19 {
			flush(t, s)
		}
	}
}

func rowsOf(t *testing.T, s *Store, filters query.Filters) (rows []seenRow) {
	t.Helper()
	_, err := s.Events(context.Background(), query.Events{Types: []*event.Type{flowType}, Filters: filters}, func(e event.Row) error {
		row := seenRow{time: e.Time()}
		row.command, _ = e.String(event.Command)
		if raw, ok := e.String(colAddress); ok {
			ip, _ := netip.AddrFromSlice([]byte(raw))
			row.address = ip.String()
		}
		row.number, _ = e.Int(event.PID)
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// seenKeys are the groups that are asked for, and what they are of a row; "" for
// one that lacks a value.
var seenKeys = []struct {
	by []string
	of func(seenRow) string
}{
	{[]string{"address"}, func(r seenRow) string { return r.address }},
	{[]string{"address/28"}, seenRow.network},
	{[]string{"command"}, func(r seenRow) string { return r.command }},
	{[]string{"pid"}, func(r seenRow) string { return fmt.Sprint(r.number) }},
	{[]string{"command", "address"}, func(r seenRow) string {
		if r.command == "" || r.address == "" {
			return ""
		}
		return r.command + " " + r.address
	}},
}

// What was never seen before is what a look at every event says, wherever these
// are: in memory, rows, blocks or rollups.
func TestFirstSeenAgainstEvents(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	start(t, s, "flow")
	r := rand.New(rand.NewPCG(31, 32))
	fillSeen(t, s, r, 0, 60)
	c.set(begin.Add(61 * time.Hour))
	sealAll(t, s)
	fillSeen(t, s, r, 50, 46) // some of it late
	s.Append(flow(begin.Add(95*time.Hour), 100_000))
	c.set(begin.Add(96 * time.Hour))

	for round := range 60 {
		key := seenKeys[round%len(seenKeys)]
		q := query.Summary{Type: flowType, GroupBy: key.by, FirstSeen: true}
		switch round % 3 {
		case 1:
			q.Filters = query.Filters{{Column: "command", Op: query.Equal, Values: []string{"command1", "command7", "command9"}}}
		case 2:
			q.Filters = query.Filters{{Column: "address", Op: query.Equal, Values: []string{"10.0.0.0/23"}}}
		}
		q.Window.Since = begin.Add(time.Duration(r.Int64N(int64(95 * time.Hour))))
		q.Window.Until = q.Window.Since.Add(time.Duration(r.Int64N(int64(20 * time.Hour))))
		if round%4 == 0 {
			q.Window.Since = q.Window.Since.Truncate(24 * time.Hour)
		}
		got := summarise(t, s, q)
		checkFirstSeen(t, q, got, rowsOf(t, s, q.Filters), key.of)
		q.FirstSeen = false
		checkFigures(t, got, summarise(t, s, q))
	}
}

// checkFigures wants the figures of groups as a summary of all groups has them.
func checkFigures(t *testing.T, got, all *query.SummaryResult) {
	t.Helper()
	of := func(g *query.Group) string { return fmt.Sprint(g.Key) }
	figures := map[string]query.Figures{}
	for i := range all.Groups {
		figures[of(&all.Groups[i])] = all.Groups[i].Figures
	}
	for i := range got.Groups {
		g := &got.Groups[i]
		if want := figures[of(g)]; !reflect.DeepEqual(g.Figures, want) {
			t.Errorf("%s: %+v, want %+v", of(g), g.Figures, want)
		}
	}
}

func checkFirstSeen(t *testing.T, q query.Summary, got *query.SummaryResult, rows []seenRow, key func(seenRow) string) {
	t.Helper()
	before, news := map[string]bool{}, map[string][]seenRow{}
	since, until := q.Window.Bounds()
	count := int64(0)
	for _, row := range rows {
		switch {
		case row.time < since:
			before[key(row)] = true
		case row.time < until:
			news[key(row)] = append(news[key(row)], row)
			count++
		}
	}
	for k := range news {
		if k == "" || before[k] {
			delete(news, k)
		}
	}
	if got.Count != count || got.GroupsTotal != len(news) || len(got.Groups) != len(news) {
		t.Errorf("%v since %v: %d events, %d groups, want %d, %d", q.GroupBy, q.Window.Since, got.Count, got.GroupsTotal, count, len(news))
	}
	for _, g := range got.Groups {
		name := fmt.Sprint(g.Key[0].Value)
		if len(g.Key) > 1 {
			name += " " + fmt.Sprint(g.Key[1].Value)
		}
		of := news[name]
		first, commands, most := int64(1<<62), map[string]int{"": 0}, ""
		for _, row := range of {
			first = min(first, row.time)
			if row.command != "" {
				commands[row.command]++
			}
		}
		for command, n := range commands {
			if n > commands[most] || n == commands[most] && n > 0 && command < most {
				most = command
			}
		}
		if g.Count != int64(len(of)) || g.FirstSeen.UnixNano() != first || g.TopCommand != most {
			t.Errorf("%s: %d, first %v by %q, want %d, %v by %q", name, g.Count, g.FirstSeen, g.TopCommand, len(of), time.Unix(0, first).UTC(), most)
		}
	}
}

// The answer says how far back it is known.
func TestHistoryOfFirstSeen(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	q := query.Summary{Type: flowType, GroupBy: []string{"command"}, FirstSeen: true, Window: minutes(-60, 0)}
	if got := summarise(t, s, q).History; got.Complete || !got.From.Equal(minute(-60)) || !got.Until.Equal(minute(-60)) {
		t.Errorf("nothing was recorded, and the history is %+v", got)
	}
	start(t, s, "flow")
	q.Window = minutes(60, 120)
	s.Append(flow(minute(90), 1))
	c.set(minute(180))
	if got := summarise(t, s, q).History; !got.Complete || !got.From.Equal(begin) || !got.Until.Equal(minute(60)) {
		t.Errorf("an hour was recorded, and the history is %+v", got)
	}
	s.Lost("flow", "test", minute(10), 5)
	if got := summarise(t, s, q).History; got.Complete || got.Lost["flow"] != 5 {
		t.Errorf("events were lost, and the history is %+v", got)
	}
}

// A comparison says what both windows would say alone, and how far each was recorded.
func TestCompare(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	start(t, s, "flow")
	fillSeen(t, s, rand.New(rand.NewPCG(33, 34)), 0, 60)
	c.set(begin.Add(61 * time.Hour))
	sealAll(t, s)
	for _, by := range [][]string{{"command"}, {"address/28"}, {"time", "command"}, {"pid", "state"}} {
		q := query.Summary{Type: flowType, GroupBy: by, Interval: time.Hour, Window: query.Window{Since: begin.Add(30*time.Hour + 7*time.Minute), Until: begin.Add(50 * time.Hour)}}
		now := summarise(t, s, q)
		earlier := q
		earlier.Window = query.Window{Since: q.Window.Since.Add(-24 * time.Hour), Until: q.Window.Until.Add(-24 * time.Hour)}
		before := summarise(t, s, earlier)
		q.Compare = 24 * time.Hour
		got := summarise(t, s, q)

		if a, b := text(t, got.Before.Figures), text(t, before.Figures); a != b || text(t, got.Figures) != text(t, now.Figures) {
			t.Errorf("by %v: before is %s, want %s", by, a, b)
		}
		if text(t, got.Before.Coverage) != text(t, before.Coverage) {
			t.Errorf("coverage before is %+v, want %+v", got.Before.Coverage, before.Coverage)
		}
		there := func(change ...string) (n int) {
			for _, g := range got.Groups {
				if slices.Contains(change, g.Change) {
					n++
				}
			}
			return n
		}
		if there("new", "changed", "same") != len(now.Groups) || there("gone", "changed", "same") != len(before.Groups) {
			t.Errorf("by %v: %v, want %d now and %d before", by, got.Changes, len(now.Groups), len(before.Groups))
		}
		for _, g := range now.Groups {
			at := slices.IndexFunc(got.Groups, func(other query.Group) bool { return text(t, other.Key) == text(t, g.Key) })
			if at < 0 || text(t, got.Groups[at].Figures) != text(t, g.Figures) {
				t.Errorf("by %v: %v is missing or differs", by, g.Key)
			}
		}
		for i, b := range got.Series {
			if text(t, b.Before) != text(t, before.Series[i].Figures) {
				t.Errorf("series at %v: before is %s", b.Time, text(t, b.Before))
			}
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
