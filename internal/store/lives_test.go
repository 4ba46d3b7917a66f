package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// callType has a life, and lossType tells of what is lost between two ends.
var (
	callType = event.MustType(event.Type{
		Name: "call", Collection: "calls", Summary: "Calls.", Breakdown: "state",
		Life: &event.Life{
			ID: "call_id", Begins: event.Mark{Column: "state", Values: []string{"begun", "open"}}, Ends: event.Mark{Column: "state", Values: []string{"over", "shut"}},
			Found: event.Mark{Column: "known_by", Values: []string{"look"}}, Duration: "lasted", Attempt: time.Minute,
		},
		Ends: &event.Ends{Protocol: "by", Source: [2]string{"from_ip", "from_port"}, Destination: [2]string{"to_ip", "to_port"}},
		Columns: append([]event.Column{
			{Name: "call_id", Kind: event.KindID, Description: "."},
			{Name: "state", Kind: event.KindString, Description: ".", Values: []string{"begun", "over", "refused", "open", "shut"}},
			{Name: "known_by", Kind: event.KindString, Description: "."},
			{Name: "lasted", Kind: event.KindInt, Description: "."},
		}, endColumns()...),
	})
	lossType = event.MustType(event.Type{
		Name: "loss", Collection: "losses", Summary: "Losses.", Breakdown: "by",
		Ends:    &event.Ends{Protocol: "by", Source: [2]string{"from_ip", "from_port"}, Destination: [2]string{"to_ip", "to_port"}},
		Columns: endColumns(),
	})
	lifeTypes = []*event.Type{callType, lossType}
)

func endColumns() []event.Column {
	return []event.Column{
		{Name: "by", Kind: event.KindString, Description: "."},
		{Name: "from_ip", Kind: event.KindIP, Description: "."},
		{Name: "from_port", Kind: event.KindInt, Description: "."},
		{Name: "to_ip", Kind: event.KindIP, Description: "."},
		{Name: "to_port", Kind: event.KindInt, Description: "."},
	}
}

// call is an event as tests write it; of a loss, id is the pid.
type call struct {
	at       time.Time
	id       int64
	state    string
	found    bool
	port     int64 // default 1000
	back     bool
	netns    int64
	duration time.Duration
}

func calls(t *event.Type, list ...call) *event.Batch {
	b := event.NewBatch(t, len(list))
	for _, c := range list {
		b.Append(c.at.UnixNano())
		b.SetInt(event.PID, c.id)
		if t == callType {
			b.SetID(t.MustColumn("call_id"), "boot", c.id)
			b.SetString(t.MustColumn("state"), c.state)
			if c.found {
				b.SetString(t.MustColumn("known_by"), "look")
			}
			if c.duration != 0 {
				b.SetInt(t.MustColumn("lasted"), int64(c.duration))
			}
		}
		if c.netns != 0 {
			b.SetInt(event.NetNS, c.netns)
		}
		if c.port == 0 {
			c.port = 1000
		}
		ends := []string{"from_ip", "from_port", "to_ip", "to_port"}
		if c.back {
			ends = []string{"to_ip", "to_port", "from_ip", "from_port"}
		}
		b.SetString(t.MustColumn("by"), "tcp")
		b.SetIP(t.MustColumn(ends[0]), netip.AddrFrom4([4]byte{10, 0, 0, 1}))
		b.SetInt(t.MustColumn(ends[1]), c.port)
		b.SetIP(t.MustColumn(ends[2]), netip.AddrFrom4([4]byte{10, 0, 0, 2}))
		b.SetInt(t.MustColumn(ends[3]), 80)
	}
	return b
}

func openAt(t *testing.T, s *Store, q query.At) (pids []int64, ages []time.Duration, answer query.Opened) {
	t.Helper()
	q.Type = callType
	if q.Limit == 0 {
		q.Limit = 1 << 20
	}
	answer, err := s.At(context.Background(), q, func(o query.Open) error {
		pid, _ := o.Int(event.PID)
		pids = append(pids, pid)
		age := o.Age
		if !o.AgeKnown {
			age = -1
		}
		ages = append(ages, age)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pids, ages, answer
}

// What At says is what one sees who goes through all events in order of time.
func TestAtAgainstAllEvents(t *testing.T) {
	clock := newClock()
	s := openTest(t, Options{Path: testPath(t), Types: lifeTypes, now: clock.now})
	clock.set(begin.Add(-time.Second))
	start(t, s, "call", "loss")
	const n = 30_000
	r := rand.New(rand.NewPCG(7, 7))
	var all []call
	for id := range int64(n) {
		began := begin.Add(time.Duration(r.Int64N(int64(50 * time.Hour))))
		begun, over := "begun", "over"
		if id%3 == 0 {
			begun, over = "open", "shut"
		}
		all = append(all, call{at: began, id: id, state: begun})
		if r.IntN(20) > 0 {
			lasted := time.Duration(r.ExpFloat64() * float64([]time.Duration{time.Second, time.Hour, 20 * time.Hour}[r.IntN(3)]))
			all = append(all, call{at: began.Add(lasted), id: id, state: over, duration: lasted})
		}
		if r.IntN(10) == 0 {
			all = append(all, call{at: began, id: n + id, state: "refused"})
		}
	}
	slices.SortFunc(all, func(a, b call) int { return a.at.Compare(b.at) })
	// The first part is in blocks, some of it as days, the next in rows, the last in memory.
	for i, part := range [][]call{all[:len(all)*6/10], all[len(all)*6/10 : len(all)*8/10], all[len(all)*8/10:]} {
		clock.set(begin.Add(100 * time.Hour))
		for some := range slices.Chunk(part, 1000) {
			s.Append(calls(callType, some...))
		}
		if i < 2 {
			flush(t, s)
		}
		if i < 1 {
			if err := s.Seal(context.Background(), true, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, after := range []time.Duration{0, time.Minute, 5 * time.Hour, 24 * time.Hour, 30 * time.Hour, 45 * time.Hour, 50 * time.Hour, 99 * time.Hour} {
		moment := begin.Add(after)
		open := map[int64]time.Time{}
		for _, c := range all {
			switch {
			case c.at.After(moment):
			case c.state == "begun" || c.state == "open":
				open[c.id] = c.at
			case c.state == "over" || c.state == "shut":
				delete(open, c.id)
			}
		}
		for _, order := range []bool{false, true} {
			pids, ages, answer := openAt(t, s, query.At{Time: moment, Ascending: order})
			if len(pids) != len(open) || answer.Total != len(open) || !answer.AsOf.Equal(moment) {
				t.Fatalf("after %v: %d are open as of %v, total %d, want %d", after, len(pids), answer.AsOf, answer.Total, len(open))
			}
			for i, pid := range pids {
				if began, ok := open[pid]; !ok || ages[i] != moment.Sub(began) {
					t.Fatalf("after %v: %d is open for %v, want %v, %v", after, pid, ages[i], ok, moment.Sub(began))
				}
			}
			if !slices.IsSortedFunc(ages, func(a, b time.Duration) int {
				if order {
					a, b = b, a
				}
				return int(a - b)
			}) {
				t.Errorf("after %v: not in order: %v", after, ages[:10])
			}
			if some, _, answer := openAt(t, s, query.At{Time: moment, Ascending: order, Limit: 7}); !slices.Equal(some, pids[:min(7, len(pids))]) || answer.Total != len(pids) {
				t.Errorf("after %v: the first 7 are %v of %d", after, some, answer.Total)
			}
		}
	}
	moment := begin.Add(40 * time.Hour)
	pids, _, _ := openAt(t, s, query.At{Time: moment})
	one, _, _ := openAt(t, s, query.At{Time: moment, Filters: query.Filters{{Column: "pid", Values: []string{fmt.Sprint(pids[3])}}}})
	if !slices.Equal(one, pids[3:4]) {
		t.Errorf("with a filter: %v", one)
	}
	if none, _, answer := openAt(t, s, query.At{Time: moment, Filters: query.Filters{{Column: "state", Values: []string{"over"}}}}); len(none) != 0 || answer.Total != 0 {
		t.Errorf("with a filter that no beginning passes: %v", none)
	}
}

// Each run tells again what is open.
func TestAtOverRuns(t *testing.T) {
	clock, path := newClock(), testPath(t)
	minute := func(n float64) time.Time { return begin.Add(time.Duration(n * float64(time.Minute))) }
	run := func(from float64, boot string, end func(*Store), events ...call) {
		t.Helper()
		clock.set(minute(from))
		s, err := Open(Options{Path: path, Types: lifeTypes, FlushInterval: time.Hour, now: clock.now})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(Run{BootID: boot, Types: []string{"call", "loss"}}); err != nil {
			t.Fatal(err)
		}
		s.Append(calls(callType, events...))
		end(s)
	}
	until := func(n float64) func(*Store) {
		return func(s *Store) {
			clock.set(minute(n))
			if err := errors.Join(s.SetRecorded(nil), s.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	begun := func(at float64, id int64) call { return call{at: minute(at), id: id, state: "begun"} }
	found := func(at float64, id int64) call { return call{at: minute(at), id: id, state: "begun", found: true} }
	over := func(at float64, id int64) call { return call{at: minute(at), id: id, state: "over"} }
	// 1 and 2 are open when the first run ends, 2 ends while nobody watches. 3 was
	// there before all. A run tells of what it finds just before it is noted.
	run(0, "boot", until(20), found(-0.001, 3), begun(1, 1), begun(2, 2), begun(3, 4), over(4, 4))
	run(30, "boot", until(50), found(29.999, 1), found(29.999, 3), begun(31, 5), over(40, 1))
	run(60, "boot", until(70), found(59.999, 3), found(59.999, 5))
	run(80, "other", func(s *Store) {
		clock.set(minute(90))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}, begun(81, 6))

	s := openTest(t, Options{Path: path, Types: lifeTypes, ReadOnly: true, now: clock.now})
	for _, test := range []struct {
		at       float64
		pids     []int64
		ages     []float64 // in minutes; -1: not known
		asOf     float64
		complete bool
	}{
		{-1, nil, nil, -1, false},
		{0, []int64{3}, []float64{-1}, 0, true},
		{2, []int64{3, 1, 2}, []float64{-1, 1, 0}, 2, true},
		{3.5, []int64{3, 1, 2, 4}, []float64{-1, 2.5, 1.5, 0.5}, 3.5, true},
		{25, []int64{3, 1, 2}, []float64{-1, 19, 18}, 20, false},
		{30, []int64{1, 3}, []float64{29, -1}, 30, true},
		{40, []int64{3, 5}, []float64{-1, 9}, 40, true},
		{60, []int64{3, 5}, []float64{-1, 29}, 60, true},
		{85, []int64{6}, []float64{4}, 85, true},
		{95, []int64{6}, []float64{9}, 90, false},
	} {
		pids, ages, answer := openAt(t, s, query.At{Time: minute(test.at), Ascending: true})
		var minutes []float64
		for _, age := range ages {
			if age >= 0 {
				minutes = append(minutes, age.Minutes())
			} else {
				minutes = append(minutes, -1)
			}
		}
		if !slices.Equal(pids, test.pids) || !slices.Equal(minutes, test.ages) || !answer.AsOf.Equal(minute(test.asOf)) || answer.Coverage.Complete != test.complete {
			t.Errorf("at %v: %v with ages %v as of %v, coverage %+v; want %+v", test.at, pids, minutes, answer.AsOf, answer.Coverage, test)
		}
	}
}

func TestStory(t *testing.T) {
	clock := newClock()
	s := openTest(t, Options{Path: testPath(t), Types: lifeTypes, now: clock.now})
	clock.set(begin.Add(-time.Hour))
	start(t, s, "call", "loss")
	second := func(n float64) time.Time { return begin.Add(time.Duration(n * float64(time.Second))) }
	clock.set(second(10_000))
	s.Append(calls(callType,
		call{at: second(0), id: 1, state: "begun", netns: 5}, call{at: second(100), id: 1, state: "over", duration: 100 * time.Second, netns: 5},
		// The same ends, again: between them 30 seconds, half of an attempt.
		call{at: second(130), id: 2, state: "begun", netns: 5}, call{at: second(200), id: 2, state: "over", netns: 5},
		// The other side, on the same host, and the same ends elsewhere.
		call{at: second(130.1), id: 3, state: "begun", netns: 5}, call{at: second(200.1), id: 3, state: "over", netns: 5},
		call{at: second(110), id: 4, state: "over", netns: 6},
		call{at: second(500), id: 5, state: "refused", netns: 5},
		call{at: second(600), id: 6, state: "begun", netns: 5, port: 7},
		call{at: second(700), id: 7, state: "over", netns: 5, port: 8, duration: 50 * time.Second},
	))
	loss := func(at float64, id, port int64, back bool, netns int64) call {
		return call{at: second(at), id: id, port: port, back: back, netns: netns}
	}
	s.Append(calls(lossType,
		loss(-61, 11, 0, false, 5), loss(-59, 12, 0, false, 5), loss(50, 13, 0, true, 5), loss(51, 14, 0, false, 0), loss(50, 15, 0, false, 6), loss(50, 16, 1001, false, 5),
		loss(100.5, 17, 0, false, 5), loss(102, 18, 0, false, 5), loss(131, 19, 0, true, 5),
		loss(439, 20, 0, false, 5), loss(441, 21, 0, false, 5), loss(9000, 22, 7, false, 5), loss(640, 23, 8, false, 5), loss(580, 24, 8, false, 5),
	))
	flush(t, s)
	tests := map[string][]int64{
		"boot-1": {12, 1, 13, 14, 1, 17},
		"boot-2": {17, 18, 2, 19, 2}, // 17 came after the end of 1 and before 2: it may be of either
		"boot-5": {21, 5},
		"boot-6": {6, 22},
		"boot-7": {23, 7},
	}
	for id, want := range tests {
		var pids []int64
		told, err := s.Story(context.Background(), query.Story{Type: callType, ID: id, Limit: 100}, func(r event.Row) error {
			pid, _ := r.Int(event.PID)
			pids = append(pids, pid)
			return nil
		})
		if err != nil || !slices.Equal(pids, want) || told.More || !told.Coverage.Complete {
			t.Errorf("%s: %v, %v, %+v; want %v", id, pids, err, told, want)
		}
	}
	ask := func(q query.Story) (n int, told query.Told, err error) {
		q.Type = callType
		told, err = s.Story(context.Background(), q, func(event.Row) error { n++; return nil })
		return n, told, err
	}
	if n, told, err := ask(query.Story{ID: "boot-1", Limit: 2}); n != 2 || !told.More || err != nil {
		t.Errorf("with a limit: %d, %+v, %v", n, told, err)
	}
	for _, q := range []query.Story{{ID: "boot-63", Limit: 9}, {ID: "other-1", Limit: 9}, {ID: "boot-1", Limit: 9, Window: query.Window{Since: second(101)}}} {
		if _, _, err := ask(q); !errors.Is(err, query.ErrNoStory) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	var param *query.ParamError
	if _, _, err := ask(query.Story{ID: "x", Limit: 9}); !errors.As(err, &param) || param.Name != "call_id" {
		t.Errorf("no id: %v", err)
	}
}
