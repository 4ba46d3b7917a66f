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
var SummaryParams = []string{"duration", "since", "until", "group_by", "distinct", "top", "interval"}

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
	q.GroupBy, q.Distinct = p.columns("group_by"), p.columns("distinct")
	if len(q.GroupBy) == 0 && q.Interval == 0 {
		q.Lists = t.Top
		if q.Distinct == nil {
			q.Distinct = distinctColumns(t)
		}
	}
	return q, q.Validate()
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

// distinctColumns are those whose different values are counted by default.
func distinctColumns(t *event.Type) []string {
	var names []string
	for _, c := range t.Columns {
		if c.Distinct {
			names = append(names, c.Name)
		}
	}
	return names
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
