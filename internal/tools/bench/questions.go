package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// question is asked of every peer. It has either a Summary or Events.
type question struct {
	name    string
	goal    time.Duration // warm; see issue 3; 0: none
	summary query.Summary // by the one column in GroupBy, or with an Interval by the breakdown of the type
	sums    []string      // columns of which the sums are asked for too
	events  query.Events  // of all, when nothing else is asked for: that is the export
	export  bool
}

// cutOff is how much later than the first event the long windows begin, so that
// the first hour is cut in two, as it is on a host that runs for longer.
const cutOff = 20*time.Minute + 34*time.Second

// Questions of which the stream knows how many rows their answers have.
const (
	questionPID    = "newest 100 of a pid (has 100)"
	questionDaemon = "the same of a daemon (100 in 7 days)"
	questionIP     = "newest 100 of a destination (has 26)"
	questionFailed = "failed of a command in 26.5 h"
	questionExport = "export"
)

// questions are those of issue 3. The store is asked with just these values:
// what they leave out it need not compute.
func questions(o stream.Options) []question {
	p := o.Planted()
	week := query.Window{Since: o.Begin().Add(cutOff), Until: o.End}
	minute := query.Window{Since: o.End.Add(-time.Minute), Until: o.End}
	is := func(column, value string) query.Filter { return query.Filter{Column: column, Values: []string{value}} }
	all, none, bytes := stream.Types(), []string{}, []string{"bytes_sent", "bytes_received"}
	return []question{
		{name: "last 60 s by command", goal: 500 * time.Microsecond,
			summary: query.Summary{Type: connection.Type, Window: minute, Sums: none, GroupBy: []string{"command"}, Top: 10}},
		{name: "7 days, top commands with bytes", goal: 2 * time.Millisecond, sums: bytes,
			summary: query.Summary{Type: connection.Type, Window: week, Sums: bytes, GroupBy: []string{"command"}, Top: 10}},
		{name: "7 days, top destinations", goal: 20 * time.Millisecond,
			summary: query.Summary{Type: connection.Type, Window: week, Sums: none, GroupBy: []string{"destination_ip"}, Top: 10}},
		{name: "7 days, drops per hour by reason", goal: time.Millisecond,
			summary: query.Summary{Type: packetdrop.Type, Window: week, Sums: none, Interval: time.Hour}},
		{name: questionPID, goal: 4 * time.Millisecond,
			events: query.Events{Types: all, Limit: 100, Filters: query.Filters{is("pid", strconv.FormatInt(p.PID, 10))}}},
		{name: questionDaemon,
			events: query.Events{Types: all, Limit: 100, Filters: query.Filters{is("pid", strconv.FormatInt(p.Daemon, 10))}}},
		{name: questionIP, goal: 10 * time.Millisecond,
			events: query.Events{Types: all, Limit: 100, Filters: query.Filters{is("destination_ip", p.IP.String())}}},
		{name: "newest 100", goal: 2 * time.Millisecond,
			events: query.Events{Types: all, Limit: 100}},
		{name: questionFailed, goal: 4 * time.Millisecond,
			events: query.Events{Types: all[:1], Window: query.Window{Since: p.FailSince, Until: p.FailUntil},
				Filters: query.Filters{is("command", p.Command), is("state", "failed")}}},
		{name: "the same, counted by error",
			summary: query.Summary{Type: connection.Type, Window: query.Window{Since: p.FailSince, Until: p.FailUntil}, Sums: none, GroupBy: []string{"error"}, Top: 10,
				Filters: query.Filters{is("command", p.Command), is("state", "failed")}}},
		{name: questionExport, export: true, events: query.Events{Types: all, Ascending: true}},
	}
}

// exportGoal is in events a second.
const exportGoal = 1.5e6

// ask asks a peer. The answer is as the peer gives it: to make text of it takes
// time that is not the peer's.
func (q question) ask(p peer) (a answer, err error) {
	if len(q.events.Types) == 0 {
		a.figures, err = p.Summary(q)
		return a, err
	}
	err = p.Events(q.events, func(r row) error {
		a.rows = append(a.rows, string(r.AppendJSON(nil)))
		return nil
	})
	return a, err
}

// answer is what a peer says: figures, or events as JSON.
type answer struct {
	figures []figures
	rows    []string
}

// figures are those of a group of events: by time, or by the value of a column.
type figures struct {
	time  time.Time // of a series
	key   string
	count int64
	sums  []int64
}

// noValue is the key of the events that have none.
const noValue = "-"

// text returns the rows of an answer. Equal answers are equal text.
func (a answer) text() []string {
	slices.SortStableFunc(a.figures, func(x, y figures) int {
		if c := x.time.Compare(y.time); c != 0 || x.time.IsZero() {
			return c
		}
		return cmp.Compare(x.key, y.key)
	})
	rows := a.rows
	for _, f := range a.figures {
		row := ""
		if !f.time.IsZero() {
			row = f.time.UTC().Format(time.RFC3339) + " "
		}
		row += fmt.Sprintf("%s: %d", f.key, f.count)
		for _, sum := range f.sums {
			row += fmt.Sprintf(" %d", sum)
		}
		rows = append(rows, row)
	}
	return rows
}
