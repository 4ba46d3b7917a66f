package query

import (
	"slices"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	defaultSpan = time.Hour
	defaultTop  = 10
	maxTop      = 1000
)

// SummaryParams are the parameters of a summary beside the columns.
var SummaryParams = []string{"duration", "since", "until", "group_by", "first_seen", "distinct", "sums", "stats", "top", "order_by", "order", "interval", "compare"}

// Summary reads a question about events of one type, as of now.
func (p Params) Summary(t *event.Type, now time.Time) (q Summary, err error) {
	types := []*event.Type{t}
	if err := p.Only(slices.Concat(SummaryParams, FilterNames(types))); err != nil {
		return q, err
	}
	q.Type = t
	if q.Window, err = p.summaryWindow(now); err != nil {
		return q, err
	}
	if q.Top, err = p.Number("top", defaultTop, 1, maxTop); err != nil {
		return q, err
	}
	if q.Interval, err = p.Span("interval"); err != nil {
		return q, err
	}
	if q.Filters, err = p.Filters(types, SummaryParams); err != nil {
		return q, err
	}
	if err := p.groups(&q); err != nil {
		return q, err
	}
	if len(q.GroupBy) == 0 && q.Interval == 0 {
		q.Lists = t.Top
		if q.Distinct == nil {
			q.Distinct = namesOf(t, func(c event.Column) bool { return c.Distinct })
		}
	}
	q = q.withOrdered()
	return q, q.Validate()
}

// groups reads what is told of groups, and in which order.
func (p Params) groups(q *Summary) (err error) {
	q.GroupBy, q.Distinct, q.Stats = p.columns("group_by"), p.columns("distinct"), p.columns("stats")
	if q.Sums, err = p.sums(); err != nil {
		return err
	}
	if first := p.columns("first_seen"); first != nil {
		if q.GroupBy != nil {
			return &ParamError{Name: "first_seen", Reason: "cannot go together with group_by: it makes the groups"}
		}
		q.GroupBy, q.FirstSeen = first, true
	}
	if q.OrderBy, err = p.One("order_by"); err != nil {
		return err
	}
	order, err := p.Choice("order", "desc", "asc")
	if err != nil {
		return err
	}
	q.Ascending = order == "asc"
	if q.Compare, err = p.back("compare"); err != nil {
		return err
	}
	return nil
}

// noSums stands for no column: it spares an answer what nobody looks at.
const noSums = "none"

// sums reads what is added up; nil is everything that can be.
func (p Params) sums() ([]string, error) {
	names := p.columns("sums")
	switch {
	case !slices.Contains(names, noSums):
		return names, nil
	case len(names) > 1:
		return nil, &ParamError{Name: "sums", Value: noSums, Reason: "cannot go together with columns"}
	}
	return []string{}, nil
}

// back reads how much earlier something is: "-1d".
func (p Params) back(name string) (time.Duration, error) {
	text, err := p.One(name)
	if err != nil || text == "" {
		return 0, err
	}
	span, isBack := strings.CutPrefix(text, "-")
	if !isBack {
		return 0, &ParamError{Name: name, Value: text, Reason: "must be a time span back, such as -1d or -7d"}
	}
	return Params{name: {span}}.Span(name)
}

// summaryWindow has both ends: without since it is as long as the duration.
func (p Params) summaryWindow(now time.Time) (Window, error) {
	w, err := p.Window(now)
	if err != nil {
		return w, err
	}
	duration, err := p.Span("duration")
	if err != nil {
		return w, err
	}
	if duration != 0 && p["since"] != nil {
		return w, &ParamError{Name: "duration", Reason: "cannot go together with since: the window begins either at since or so long before until"}
	}
	if duration == 0 {
		duration = defaultSpan
	}
	if p["until"] == nil {
		w.Until = now
	}
	if p["since"] == nil {
		w.Since = w.Until.Add(-duration)
	} else if p["until"] == nil && w.Since.After(now) {
		return w, &ParamError{Name: "since", Value: p["since"][0], Reason: "is in the future"}
	}
	return w, nil
}

// columns takes a parameter's columns one by one and as a list with commas.
func (p Params) columns(param string) []string {
	var columns []string
	for _, names := range p[param] {
		for name := range strings.SplitSeq(names, ",") {
			columns = append(columns, strings.TrimSpace(name))
		}
	}
	return columns
}
