package query

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/suggest"
)

// Validate reports what is wrong with a summary, as a *ParamError.
func (q Summary) Validate() error {
	checks := []func() error{q.validateGroups, q.validateColumns, q.Window.Validate, q.validateInterval, q.validateOrder, q.validateCompare}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (q Summary) validateColumns() error {
	for _, of := range []struct {
		param string
		names []string
		fits  func(event.Column) bool
		what  string
	}{
		{"distinct", q.Distinct, func(c event.Column) bool { return c.Kind != event.KindTime }, "whose values can be counted"},
		{"lists", q.Lists, func(c event.Column) bool { return c.Kind != event.KindTime }, "whose values can be counted"},
		{"sums", q.Sums, func(c event.Column) bool { return c.Sum }, "that is added up"},
		{"stats", q.Stats, func(c event.Column) bool { return c.Kind == event.KindInt && c.Name != q.Type.Weight }, "of numbers"},
	} {
		for i, name := range of.names {
			if at, ok := q.Type.Column(name); !ok || !of.fits(q.Type.Columns[at]) {
				return &ParamError{Name: of.param, Value: name, Reason: "is not a column of " + q.Type.Name + " " + of.what + suggest.Among(name, namesOf(q.Type, of.fits))}
			}
			if slices.Contains(of.names[:i], name) {
				return &ParamError{Name: of.param, Value: name, Reason: "is named twice"}
			}
		}
	}
	if len(q.Stats) > maxStats {
		return &ParamError{Name: "stats", Reason: fmt.Sprintf("names more than %d columns", maxStats)}
	}
	return nil
}

// namesOf are the names of the columns that fit.
func namesOf(t *event.Type, fits func(event.Column) bool) []string {
	var names []string
	for _, c := range t.Columns {
		if fits(c) {
			names = append(names, c.Name)
		}
	}
	return names
}

func (q Summary) validateInterval() error {
	if q.Top < 0 {
		return &ParamError{Name: "top", Value: strconv.Itoa(q.Top), Reason: "is negative"}
	}
	if q.Interval < 0 {
		return &ParamError{Name: "interval", Value: q.Interval.String(), Reason: "is negative"}
	}
	if q.Interval == 0 || q.Window.Since.IsZero() || q.Window.Until.IsZero() {
		return nil
	}
	_, n := q.buckets()
	if n > maxBuckets {
		return &ParamError{Name: "interval", Value: q.Interval.String(), Reason: fmt.Sprintf("makes %d buckets of the window (at most %d)", n, maxBuckets)}
	}
	if all := n * uint64(q.Top); q.groupsByTime() && all > maxTimeGroups {
		return &ParamError{Name: "top", Value: strconv.Itoa(q.Top), Reason: fmt.Sprintf("may make %d groups, that many in each of %d intervals (at most %d in all); ask for fewer, or a longer interval", all, n, maxTimeGroups)}
	}
	return nil
}

// groupParam is the parameter that names the columns of GroupBy.
func (q Summary) groupParam() string {
	if q.FirstSeen || q.keysOnly {
		return "first_seen"
	}
	return "group_by"
}

func (q Summary) validateGroups() error {
	param := q.groupParam()
	if len(q.GroupBy) > maxGroupBy {
		return &ParamError{Name: param, Reason: fmt.Sprintf("names more than %d columns", maxGroupBy)}
	}
	if q.FirstSeen && len(q.GroupBy) == 0 {
		return &ParamError{Name: param, Reason: "names no column"}
	}
	columns := make([]int, len(q.GroupBy))
	for i, text := range q.GroupBy {
		k, wrong := parseKey(q.Type, text)
		columns[i] = k.column
		switch {
		case wrong != nil:
			return &ParamError{Name: param, Value: text, Reason: wrong.Reason}
		case k.column == event.Time && q.FirstSeen:
			return &ParamError{Name: param, Value: text, Reason: "is always new; name other columns"}
		case k.column == event.Time && q.Interval == 0:
			return &ParamError{Name: param, Value: text, Reason: "needs interval as well, which says how long the steps are"}
		case text == q.Type.Weight:
			return &ParamError{Name: param, Value: text, Reason: "is what is counted, and makes no groups"}
		case slices.Contains(columns[:i], k.column):
			return &ParamError{Name: param, Value: text, Reason: "is named twice"}
		}
	}
	return nil
}

func (q Summary) validateCompare() error {
	switch {
	case q.Compare == 0:
		return nil
	case q.Compare < 0:
		return &ParamError{Name: "compare", Value: q.Compare.String(), Reason: "is not earlier"}
	case q.FirstSeen:
		return &ParamError{Name: "compare", Reason: "cannot go together with first_seen, which looks at all that was before"}
	case q.Interval > 0 && q.Compare%q.Interval != 0:
		return &ParamError{Name: "compare", Value: "-" + q.Compare.String(), Reason: "must be a multiple of interval, so that each point has its counterpart"}
	}
	return nil
}

// Before returns the question about the earlier window that q is compared with.
func (q Summary) Before() Summary {
	q.Window = Window{q.Window.Since.Add(-q.Compare), q.Window.Until.Add(-q.Compare)}
	if q.Interval > 0 {
		q.shift = int64(q.Compare / q.Interval)
	}
	q.Compare = 0
	return q
}

// Keys returns the question which groups there are at all, of which those that
// were seen before are not told: what is told of the others would be in vain.
func (q Summary) Keys() Summary {
	q.FirstSeen, q.keysOnly = false, true
	return q
}

// buckets returns the number of the first bucket of the series, counted from
// the Unix epoch, and how many there are.
func (q Summary) buckets() (first int64, n uint64) {
	since, until := q.Window.Bounds()
	first = bucketOf(since, int64(q.Interval))
	if until > since {
		n = uint64(bucketOf(until-1, int64(q.Interval))) - uint64(first) + 1
	}
	return first, n
}

// bucketOf rounds down, before the epoch too.
func bucketOf(t, interval int64) int64 {
	n := t / interval
	if t%interval < 0 {
		n--
	}
	return n
}
