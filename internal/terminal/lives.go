package terminal

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Lives is what was open at a moment, or the story of one.
type Lives struct {
	Events   []Object
	Time     time.Time // of what was open
	AsOf     time.Time `json:"as_of"`
	Total    int
	More     bool // of a story: there is more
	Coverage query.Coverage
}

// UnmarshalJSON keeps numbers as they are.
func (l *Lives) UnmarshalJSON(data []byte) error {
	type plain Lives
	return decode(data, (*plain)(l))
}

// Lives shows what was open, with its age, or a story.
func (s *Screen) Lives(types []*event.Type, l *Lives) {
	v := s.eventView(types)
	head := v.fitTime(l.Events)
	columns := []column{{name: head}, {name: "event"}, {name: "process"}, {name: "protocol"}, {name: "source"}, {name: "destination"}, {name: "details"}}
	const age = 1 // before the event
	if !l.Time.IsZero() {
		s.say("open at %s: %s\n", s.instant(l.Time), humanize.Comma(int64(l.Total)))
		if !l.AsOf.Equal(l.Time) {
			s.warn("nothing was recorded then; this is what was open at %s", s.instant(l.AsOf))
		}
		columns = slices.Insert(columns, age, column{name: "age", right: true})
	}
	rows := make([][]string, len(l.Events))
	for i, e := range l.Events {
		rows[i] = v.row(e)
		if !l.Time.IsZero() {
			rows[i] = slices.Insert(rows[i], age, v.age(e))
		}
	}
	if len(rows) > 0 {
		s.table(columns, rows)
	}
	if !l.Time.IsZero() && l.Total > len(l.Events) || l.More {
		s.say("and more (--limit)\n")
	}
	s.Coverage(l.Coverage)
}

// age is not known of what was open before the program ran.
func (v eventView) age(e Object) string {
	n, ok := e["age_ns"].(json.Number)
	ns, err := n.Int64()
	if !ok || err != nil {
		return "?"
	}
	return duration(time.Duration(ns))
}
