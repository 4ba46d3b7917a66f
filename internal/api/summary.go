package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	defaultSpan = time.Hour
	defaultTop  = 10
	maxTop      = 1000

	filtersField = "filters" // only in a body
)

// summaryParams are the parameters of a summary beside the columns.
var summaryParams = []string{"duration", "since", "until", "group_by", "distinct", "top", "interval"}

// getSummary answers with counts of events of one type.
//
//	@Summary	Counts, sums and top lists
//	@Description	Counts events, adds up sizes and durations, and lists the most frequent values, over any window. Every column is a filter; filters combine with AND, the values of a repeated one with OR.
//	@Tags		summaries
//	@ID			summary
//	@Produce	json
//	@Param		duration	query		string		false	"Length of the window before until: seconds, or a time span such as 90m. Not together with since. Default: 3600 seconds."
//	@Param		since		query		string		false	"Beginning of the window, which includes it: RFC 3339, Unix seconds, or relative such as -90m or now-7d."
//	@Param		until		query		string		false	"End of the window, which excludes it, written in the same ways. Default: now."
//	@Param		group_by	query		[]string	false	"Columns to group by, at most 3. Without it and without interval, the most frequent values of some columns are listed one by one."	collectionFormat(multi)
//	@Param		distinct	query		[]string	false	"Columns whose different values are counted. Without group_by and interval some are counted by default."	collectionFormat(multi)
//	@Param		top			query		integer		false	"At most so many groups in a list."	minimum(1)	maximum(1000)	default(10)
//	@Param		interval	query		string		false	"Adds a series with one point per interval: seconds, or a time span such as 5m."
//	@Success	200			{object}	query.SummaryResult
//	@Failure	400			{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure	default		{object}	Problem	"Any other problem."
//	@Router		/api/{collection}/summary [get]
func (s *Server) getSummary(t *event.Type) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, err := queryParams(c.Request())
		if err != nil {
			return err
		}
		return s.summary(c, t, p)
	}
}

// postSummary is getSummary with the parameters in a JSON object. Whatever
// content type the body claims to be is ignored: curl -d says it is a form.
//
//	@Summary	Counts, sums and top lists
//	@Description	The same as GET with the parameters in a JSON object, which needs no content type; an empty body asks for the last hour.
//	@Tags		summaries
//	@ID			post-summary
//	@Accept		json
//	@Produce	json
//	@Param		request	body		object	false	"What to count."
//	@Success	200		{object}	query.SummaryResult
//	@Failure	400		{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure	413		{object}	Problem	"The body has more than 1 MiB."
//	@Failure	default	{object}	Problem	"Any other problem."
//	@Router		/api/{collection}/summary [post]
func (s *Server) postSummary(t *event.Type) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, err := bodyParams(c)
		if err != nil {
			return err
		}
		return s.summary(c, t, p)
	}
}

// bodyParams are those of the query string and of a JSON object in the body.
func bodyParams(c echo.Context) (params, error) {
	p, err := queryParams(c.Request())
	if err != nil {
		return nil, err
	}
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	return p, p.addBody(body)
}

func readBody(c echo.Context) ([]byte, error) {
	out := c.Response().Writer
	body, err := io.ReadAll(http.MaxBytesReader(out, c.Request().Body, maxBody))
	switch large := (*http.MaxBytesError)(nil); {
	case errors.As(err, &large):
		return nil, newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", large.Limit))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, newProblem(http.StatusRequestTimeout, fmt.Sprintf("the body did not come within %v", bodyTimeout))
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, fmt.Sprintf("read the body: %v", err))
	}
	// The time limit that serve set was for reading; it must not cancel the
	// request while the answer is made.
	return body, http.NewResponseController(out).SetReadDeadline(time.Time{})
}

func (s *Server) summary(c echo.Context, t *event.Type, p params) error {
	q, err := readSummary(t, p, time.Now())
	if err != nil {
		return err
	}
	result, err := s.Store.Summary(c.Request().Context(), q)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, result)
}

func readSummary(t *event.Type, p params, now time.Time) (q query.Summary, err error) {
	types := []*event.Type{t}
	if err := p.only(slices.Concat(summaryParams, columnNames(types))); err != nil {
		return q, err
	}
	q.Type = t
	if q.Window, err = p.summaryWindow(now); err != nil {
		return q, err
	}
	if q.Top, err = p.number("top", defaultTop, 1, maxTop); err != nil {
		return q, err
	}
	if q.Interval, err = p.span("interval"); err != nil {
		return q, err
	}
	if q.Filters, err = p.filters(types, summaryParams); err != nil {
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
func (p params) summaryWindow(now time.Time) (query.Window, error) {
	w, err := p.window(now)
	if err != nil {
		return w, err
	}
	duration, err := p.span("duration")
	if err != nil {
		return w, err
	}
	if duration != 0 && p["since"] != nil {
		return w, &query.ParamError{Name: "duration", Reason: "cannot go together with since: the window begins either at since or so long before until"}
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
		return w, &query.ParamError{Name: "since", Value: p["since"][0], Reason: "is in the future"}
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
func (p params) columns(param string) []string {
	var columns []string
	for _, names := range p[param] {
		for name := range strings.SplitSeq(names, ",") {
			columns = append(columns, strings.TrimSpace(name))
		}
	}
	return columns
}
