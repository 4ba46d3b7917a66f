package terminal

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Columns of events that the table for people puts together, beside those that a
// type names itself (Breakdown, Details).
const (
	columnTime    = "time"
	columnType    = "type"
	columnCommand = "command"
	columnPID     = "pid"
)

// EventPage is the answer of GET /api/events.
type EventPage struct {
	Events     []Object
	Total      *int64 // left out if nobody asked
	NextCursor string `json:"next_cursor"`
	Coverage   query.Coverage
}

// UnmarshalJSON keeps numbers as they are.
func (p *EventPage) UnmarshalJSON(data []byte) error {
	type plain EventPage
	return decode(data, (*plain)(p))
}

// Page shows a page of events, and how far it can be trusted. With names of fields
// each of these has a column of its own.
func (s *Screen) Page(types []*event.Type, p *EventPage, fields []string) {
	switch {
	case len(p.Events) == 0:
	case len(fields) > 0:
		s.fields(types, p.Events, fields)
	default:
		s.events(types, p.Events)
	}
	s.shown(len(p.Events), p.Total, p.NextCursor)
	s.Coverage(p.Coverage)
}

// events shows events, one a line: when, what, who, from where to where, and the
// details that their type declares.
func (s *Screen) events(types []*event.Type, events []Object) {
	v := s.eventView(types)
	head := v.fitTime(events)
	columns := []column{{name: head}, {name: "event"}, {name: "process"}, {name: "protocol"}, {name: "source"}, {name: "destination"}, {name: "details"}}
	rows := make([][]string, len(events))
	for i, e := range events {
		rows[i] = v.row(e)
	}
	s.table(columns, rows)
}

func (s *Screen) fields(types []*event.Type, events []Object, fields []string) {
	v := s.eventView(types)
	head := v.fitTime(events)
	columns := make([]column, len(fields))
	rows := make([][]string, len(events))
	for k, name := range fields {
		columns[k].name = name
		if name == columnTime {
			columns[k].name = head
		}
		for i, e := range events {
			columns[k].right = columns[k].right || isNumber(e[name])
			rows[i] = append(rows[i], v.field(e, name))
		}
	}
	s.table(columns, rows)
}

type eventView struct {
	s     *Screen
	units units
	types map[string]*event.Type
	form  string // of times
}

func (s *Screen) eventView(types []*event.Type) eventView {
	v := eventView{s: s, units: unitsOf(types), types: map[string]*event.Type{}, form: wholeTime}
	for _, t := range types {
		v.types[t.Name] = t
	}
	return v
}

// row is the usual one of a table.
func (v eventView) row(e Object) []string {
	return []string{v.time(e), v.what(e), v.process(e), v.show(e, "protocol"), v.end(e, "source"), v.end(e, "destination"), v.details(e)}
}

func (v eventView) field(e Object, name string) string {
	if name == columnTime {
		return v.time(e)
	}
	return v.show(e, name)
}

func (v eventView) show(e Object, name string) string { return v.units.show(name, e[name]) }

func (v eventView) time(e Object) string {
	t, err := time.Parse(time.RFC3339Nano, v.show(e, columnTime))
	if err != nil {
		return v.show(e, columnTime)
	}
	return t.In(v.s.zone).Format(v.form)
}

// fitTime leaves the day out of the times of events that are all of one, and returns
// the head of their column, which says what they lack.
func (v *eventView) fitTime(events []Object) string {
	days := map[string]bool{}
	for _, e := range events {
		day, _, _ := strings.Cut(v.time(e), " ")
		days[day] = true
	}
	head := []string{zoneName(v.s.zone)}
	for day := range days {
		if len(days) == 1 {
			v.form, head = wholeTime[len(time.DateOnly)+1:], append([]string{day}, head...)
		}
	}
	return columnTime + " (" + strings.Join(head, " ") + ")"
}

// what is the value that its type is counted by, such as a state. Reasons and the
// like, of which nobody knows all, stand behind the type's name.
func (v eventView) what(e Object) string {
	name := v.show(e, columnType)
	t := v.types[name]
	if t == nil {
		return name
	}
	what := v.show(e, t.Breakdown)
	if at, _ := t.Column(t.Breakdown); t.Columns[at].Values == nil {
		short := name[strings.LastIndexByte(name, '_')+1:]
		what = strings.TrimSpace(short + " " + what)
	}
	if slices.Contains(t.Failures, v.show(e, t.Breakdown)) {
		return v.s.coloured(text.FgRed, what)
	}
	return what
}

func (v eventView) process(e Object) string {
	command, pid := v.show(e, columnCommand), v.show(e, columnPID)
	if pid != "" {
		return command + "[" + pid + "]"
	}
	return command
}

// end is an address with its port; "source" or "destination" names it.
func (v eventView) end(e Object, name string) string {
	ip, port := v.show(e, name+"_ip"), v.show(e, name+"_port")
	if port == "" {
		return ip
	}
	return net.JoinHostPort(ip, port)
}

// details leaves out numbers that are 0, which say that there is nothing to say.
// Texts before the first number go without their name.
func (v eventView) details(e Object) string {
	t := v.types[v.show(e, columnType)]
	if t == nil {
		return ""
	}
	var parts []string
	named := false
	for _, name := range t.Details {
		at, _ := t.Column(name)
		named = named || t.Columns[at].Kind == event.KindInt
		shown := v.show(e, name)
		switch {
		case shown == "" || e[name] == json.Number("0"):
		case named:
			parts = append(parts, fmt.Sprintf("%s=%s", name, shown))
		default:
			parts = append(parts, shown)
		}
	}
	return strings.Join(parts, " ")
}

func zoneName(zone *time.Location) string {
	name, _ := time.Now().In(zone).Zone()
	return name
}

// shown says how many events are shown of how many, and how to see the next.
func (s *Screen) shown(shown int, total *int64, next string) {
	switch {
	case total != nil && next != "":
		s.say("%s of %s events; for the next: --cursor %s\n", humanize.Comma(int64(shown)), humanize.Comma(*total), next)
	case next != "":
		s.say("%s events, and there are more; for the next: --cursor %s\n", humanize.Comma(int64(shown)), next)
	default:
		s.say("%s events\n", humanize.Comma(int64(shown)))
	}
}
