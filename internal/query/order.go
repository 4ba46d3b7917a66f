package query

import (
	"math"
	"regexp"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// order is what groups are ordered by: a figure of all their events, or of one
// of their columns.
type order struct {
	figure string // one of orderFigures
	column string // empty: the figure is the count of events
}

const (
	figureCount    = "count"
	figureSum      = "sum"
	figureDistinct = "distinct"
)

var (
	orderForm    = regexp.MustCompile(`^(?:([a-z0-9]+)\(([a-z0-9_]+)\)|([a-z0-9_]+))$`)
	statsFigures = []string{figureCount, "min", "max", "avg", "p50", "p95", "p99"}
)

// parseOrder reads OrderBy: "count", "bytes_sent" or "sum(bytes_sent)",
// "distinct(destination_ip)", or one of the stats, such as "p95(duration_ns)".
func (q Summary) parseOrder() (order, error) {
	if q.OrderBy == "" || q.OrderBy == figureCount {
		return order{figure: figureCount}, nil
	}
	parts := orderForm.FindStringSubmatch(q.OrderBy)
	if parts == nil {
		parts = make([]string, 4)
	}
	o := order{parts[1], parts[2] + parts[3]}
	at, ok := q.Type.Column(o.column)
	switch {
	case !ok:
	case o.figure == "" && q.Type.Columns[at].Sum:
		return order{figureSum, o.column}, nil
	case o.figure == figureSum && q.Type.Columns[at].Sum,
		o.figure == figureDistinct && at != event.Time,
		slices.Contains(statsFigures, o.figure) && q.Type.Columns[at].Kind == event.KindInt:
		return o, nil
	}
	return o, &ParamError{Name: "order_by", Value: q.OrderBy, Reason: "is no figure to order by: want count, a column that is added up such as " + q.exampleSum() + ", distinct(COLUMN), or of a column of numbers max(COLUMN), min, avg, p50, p95, p99 or count"}
}

func (q Summary) exampleSum() string {
	for _, c := range q.Type.Columns {
		if c.Sum {
			return c.Name
		}
	}
	return "bytes_sent"
}

// withOrdered also asks for what the groups are ordered by.
func (q Summary) withOrdered() Summary {
	o, err := q.parseOrder()
	switch {
	case err != nil || o.column == "":
	case o.figure == figureSum:
		if q.Sums != nil && !slices.Contains(q.Sums, o.column) {
			q.Sums = append(slices.Clip(q.Sums), o.column)
		}
	case o.figure == figureDistinct:
		if !slices.Contains(q.Distinct, o.column) {
			q.Distinct = append(slices.Clip(q.Distinct), o.column)
		}
	case !slices.Contains(q.Stats, o.column):
		q.Stats = append(slices.Clip(q.Stats), o.column)
	}
	return q
}

func (q Summary) validateOrder() error {
	o, err := q.parseOrder()
	if err != nil {
		return err
	}
	wrong := func(reason string) error { return &ParamError{Name: "order_by", Value: q.OrderBy, Reason: reason} }
	switch {
	case q.OrderBy != "" && len(q.GroupBy)+len(q.Lists) == 0:
		return wrong("orders groups, and there are none: name columns in group_by")
	case o.column == "":
	case o.figure == figureDistinct && (len(q.GroupBy) == 0 || !slices.Contains(q.Distinct, o.column)):
		return wrong("needs that column in distinct, and columns in group_by")
	case o.figure == figureSum && q.Sums != nil && !slices.Contains(q.Sums, o.column):
		return wrong("needs that column in sums")
	case o.figure != figureSum && o.figure != figureDistinct && !slices.Contains(q.Stats, o.column):
		return wrong("needs that column in stats")
	}
	return nil
}

// unknown is the rank of a group that does not have the figure: it comes last.
const unknown = math.MinInt64

// ranks returns a number for each group, that of the first the largest. With a
// comparison the larger of the two figures counts, so that what is gone is listed too.
func (a *Aggregator) ranks(l *groupList) []int64 {
	o, _ := a.query.parseOrder() // Validate saw to it that it is one
	if o.column == "" && l.before == nil && !a.query.Ascending {
		return l.cells.count
	}
	ranks := make([]int64, l.cells.len())
	for g := range ranks {
		ranks[g] = a.rank(o, l, g)
		if l.wasThere(g) {
			ranks[g] = max(ranks[g], a.before.rank(o, l.other, l.before[g]))
		}
		if a.query.Ascending && ranks[g] != unknown {
			ranks[g] = ^ranks[g] // which turns the order round, and cannot overflow
		}
	}
	return ranks
}

func (a *Aggregator) rank(o order, l *groupList, g int) int64 {
	of := func(columns []int) int {
		return slices.IndexFunc(columns, func(at int) bool { return a.query.Type.Columns[at].Name == o.column })
	}
	switch {
	case o.column == "":
		return l.cells.count[g]
	case o.figure == figureSum:
		return l.cells.sums[g*l.cells.sumsOf+of(a.sums)]
	case o.figure == figureDistinct:
		return l.distinct[slices.Index(a.query.Distinct, o.column)].values[g]
	}
	stats, some := l.spread.of(g, of(a.stats))
	if !some {
		return unknown
	}
	switch o.figure {
	case "min":
		return stats.Min
	case "max":
		return stats.Max
	case "avg":
		return sortable(stats.Avg)
	case "p50":
		return stats.P50
	case "p95":
		return stats.P95
	case "p99":
		return stats.P99
	}
	return stats.Count
}

// sortable returns a number that compares with others as f does.
func sortable(f float64) int64 {
	n := int64(math.Float64bits(f))
	if n < 0 {
		n ^= math.MaxInt64
	}
	return n
}
