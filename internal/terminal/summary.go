package terminal

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// Summary is the answer of a summary, with its figures as they come: what a
// newer server adds is shown too.
type Summary struct {
	Type        string
	Since       time.Time
	Until       time.Time
	Groups      []Object
	GroupsTotal int `json:"groups_total"`
	Top         map[string][]Object
	Series      []Object
	Coverage    query.Coverage

	all Object
}

// UnmarshalJSON keeps everything else as the figures of all events.
func (s *Summary) UnmarshalJSON(data []byte) error {
	type known Summary
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	if err := decoder.Decode((*known)(s)); err != nil {
		return err
	}
	decoder = json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	if err := decoder.Decode(&s.all); err != nil {
		return err
	}
	for _, name := range []string{"type", "since", "until", "groups", "groups_total", "top", "series", "coverage", "history"} {
		delete(s.all, name)
	}
	return nil
}

// Summary shows the figures of all events, then the groups, lists and series that
// were asked for.
func (s *Screen) Summary(t *event.Type, r *Summary, groupBy []string) {
	v := summaryView{s: s, t: t, units: unitsOf([]*event.Type{t})}
	s.say("%s from %s to %s (%s)\n", strings.ReplaceAll(t.Collection, "_", " "), s.instant(r.Since), s.instant(r.Until), duration(r.Until.Sub(r.Since)))
	distinct, _ := r.all["distinct"].(map[string]any)
	delete(r.all, "distinct")
	v.table(nil, []Object{r.all})
	if len(distinct) > 0 {
		s.say("\ndifferent values:")
		for _, name := range slices.Sorted(maps.Keys(distinct)) {
			s.say("  %s %s", name, v.figure("distinct", distinct[name]))
		}
		s.say("\n")
	}
	if r.Groups != nil {
		s.say("\n")
		v.table(groupBy, r.Groups)
		if more := r.GroupsTotal - len(r.Groups); more > 0 {
			s.say("and %s more (--top)\n", humanize.Comma(int64(more)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Top)) {
		if len(r.Top[name]) > 0 {
			s.say("\n")
			v.table([]string{name}, r.Top[name])
		}
	}
	if r.Series != nil {
		s.say("\n")
		v.table([]string{columnTime}, r.Series)
	}
	s.say("\n")
	s.Coverage(r.Coverage)
}

type summaryView struct {
	s     *Screen
	t     *event.Type
	units units
}

// table shows a line for each group: its key, then its figures, each in a column.
func (v summaryView) table(key []string, groups []Object) {
	flat := make([]Object, len(groups))
	for i, g := range groups {
		flat[i] = Object{}
		flatten(flat[i], "", g)
	}
	columns := make([]column, 0, len(key))
	rows := make([][]string, len(flat))
	for _, name := range key {
		c := column{name: name}
		for i, g := range flat {
			c.right = c.right || isNumber(g[name])
			rows[i] = append(rows[i], cmp.Or(v.key(name, g[name]), "-"))
		}
		columns = append(columns, c)
	}
	for _, name := range v.figures(flat, key) {
		c := column{name: label(name), right: true}
		for i, g := range flat {
			c.right = c.right && (g[name] == nil || isNumber(g[name]))
			rows[i] = append(rows[i], v.figure(name, g[name]))
		}
		columns = append(columns, c)
	}
	v.s.table(columns, rows)
}

// figures names what some group has, in the order in which the type declares it,
// without what is 0 in all.
func (v summaryView) figures(groups []Object, key []string) []string {
	var names []string
	for _, g := range groups {
		for name, value := range g {
			if !slices.Contains(key, name) && !slices.Contains(names, name) && (name == "count" || value != json.Number("0")) {
				names = append(names, name)
			}
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(v.rank(a)-v.rank(b), cmp.Compare(a, b)) })
	return names
}

// rank puts the count first, then the counts by state or reason, then the sums, then
// the rest.
func (v summaryView) rank(name string) int {
	const apart = 1000 // more than there are columns or values
	of, what, _ := strings.Cut(name, ".")
	switch of {
	case "count":
		return 0
	case "counts":
		at, _ := v.t.Column(v.t.Breakdown)
		return apart + slices.Index(v.t.Columns[at].Values, what)
	case "sums":
		at, _ := v.t.Column(what)
		return 2*apart + at
	}
	return 3 * apart
}

// flatten gives the members of objects within an object names with dots.
func flatten(to Object, prefix string, from map[string]any) {
	for name, value := range from {
		switch value := value.(type) {
		case map[string]any:
			flatten(to, prefix+name+".", value)
		case []any:
		default:
			to[prefix+name] = value
		}
	}
}

// label names a figure: counts and sums are known by what is counted.
func label(name string) string {
	for _, known := range []string{"counts.", "sums."} {
		if what, ok := strings.CutPrefix(name, known); ok {
			return what
		}
	}
	return strings.ReplaceAll(name, ".", " ")
}

// key is a value that the events of a group share: of a number, nothing is cut off.
func (v summaryView) key(name string, value any) string {
	text, _ := value.(string)
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.In(v.s.zone).Format(time.DateTime)
	}
	return v.units.show(name, value)
}

func (v summaryView) figure(name string, value any) string {
	n, isNumber := value.(json.Number)
	if !isNumber {
		return v.key(name, value)
	}
	// The unit is that of the column that the figure is of, which may be any part
	// of the name; how many there are has none.
	for part := range strings.SplitSeq(name, ".") {
		if v.units[part] != "" && !strings.HasSuffix(name, "count") {
			return v.units.show(part, value)
		}
	}
	if whole, err := n.Int64(); err == nil {
		return humanize.Comma(whole)
	}
	return n.String()
}
