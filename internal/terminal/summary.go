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
	Changes     map[string]int
	StatsError  float64 `json:"stats_error"`
	Coverage    query.Coverage
	Before      *struct {
		Since, Until time.Time
		Coverage     query.Coverage
	}
	History *query.Coverage

	all Object
}

// UnmarshalJSON keeps everything else as the figures of all events.
func (s *Summary) UnmarshalJSON(data []byte) error {
	type known Summary
	if err := decode(data, (*known)(s)); err != nil {
		return err
	}
	if err := decode(data, &s.all); err != nil {
		return err
	}
	for _, name := range []string{"type", "since", "until", "groups", "groups_total", "top", "series", "changes", "stats_error", "coverage", "history"} {
		delete(s.all, name)
	}
	return nil
}

// Summary shows the figures of all events, then the groups, lists and series that
// were asked for.
func (s *Screen) Summary(t *event.Type, r *Summary, groupBy []string) {
	v := summaryView{s: s, t: t, units: unitsOf([]*event.Type{t})}
	s.say("%s from %s to %s (%s)\n", strings.ReplaceAll(t.Collection, "_", " "), s.instant(r.Since), s.instant(r.Until), duration(r.Until.Sub(r.Since)))
	stats, _ := r.all["stats"].(map[string]any)
	for column := range stats {
		if len(stats) == 1 {
			v.statsOf = column
			s.say("%s to %s are of %s\n", statsOrder[0], statsOrder[len(statsOrder)-1], column)
		}
	}
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
		v.groups(groupBy, r)
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
	if r.StatsError > 0 {
		s.say("percentiles are exact to %.1g %%\n", 100*r.StatsError)
	}
	s.Coverage(r.Coverage)
	if r.Before != nil {
		s.say("before, from %s to %s:\n", s.instant(r.Before.Since), s.instant(r.Before.Until))
		s.Coverage(r.Before.Coverage)
	}
	if r.History != nil {
		s.say("what was there before the window is known from %s on:\n", s.instant(r.History.From))
		s.Coverage(*r.History)
	}
}

type summaryView struct {
	s       *Screen
	t       *event.Type
	units   units
	statsOf string // the only column with stats, which labels need not name; "" if there are more
}

// groups shows those that were asked for, by columns or networks.
func (v summaryView) groups(groupBy []string, r *Summary) {
	key := make([]string, len(groupBy))
	for i, name := range groupBy {
		key[i], _, _ = strings.Cut(name, "/")
	}
	if len(r.Groups) == 0 {
		v.s.say("there are no groups\n")
		return
	}
	v.table(key, r.Groups)
	if more := r.GroupsTotal - len(r.Groups); more > 0 {
		v.s.say("and %s more (--top)\n", humanize.Comma(int64(more)))
	}
	for i, change := range slices.Sorted(maps.Keys(r.Changes)) {
		if i > 0 {
			v.s.say(", ")
		}
		v.s.say("%s %s", humanize.Comma(int64(r.Changes[change])), change)
	}
	if len(r.Changes) > 0 {
		v.s.say("\n")
	}
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
		c := column{name: v.label(name), right: true}
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
			if !slices.Contains(key, name) && !slices.Contains(names, name) && !isLeftOut(name) && (name == "count" || value != json.Number("0")) {
				names = append(names, name)
			}
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(v.rank(a)-v.rank(b), cmp.Compare(a, b)) })
	return names
}

// isLeftOut tells of what would be too much for a table; JSON has it.
func isLeftOut(name string) bool {
	return strings.HasPrefix(name, "before.") && name != "before.count" || strings.HasPrefix(name, "stats.") && strings.HasSuffix(name, ".count")
}

// How the figures of one column are put in order.
var statsOrder = []string{"min", "avg", "p50", "p95", "p99", "max"}

// rank puts the count first, then what it was before, what else was asked for, the counts
// by state or reason, and the sums: what does not fit is what nobody asked for.
func (v summaryView) rank(name string) int {
	const apart = 1000 // more than there are columns or values
	of, what, _ := strings.Cut(name, ".")
	switch of {
	case "count":
		return 0
	case "before", "change":
		return 1
	case "counts":
		at, _ := v.t.Column(v.t.Breakdown)
		return 10*apart + slices.Index(v.t.Columns[at].Values, what)
	case "sums":
		at, _ := v.t.Column(what)
		return 11*apart + at
	case "stats":
		column, figure, _ := strings.Cut(what, ".")
		at, _ := v.t.Column(column)
		return apart + 10*at + slices.Index(statsOrder, figure)
	}
	return 9 * apart
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
func (v summaryView) label(name string) string {
	for _, known := range []string{"counts.", "sums."} {
		if what, ok := strings.CutPrefix(name, known); ok {
			return what
		}
	}
	if what, ok := strings.CutPrefix(name, "stats."); ok {
		column, figure, _ := strings.Cut(what, ".")
		if column == v.statsOf {
			return figure
		}
		return figure + "(" + column + ")"
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
