package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

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

func (s *Server) summary(c echo.Context, t *event.Type, p query.Params) error {
	q, err := p.Summary(t, time.Now())
	if err != nil {
		return err
	}
	result, err := s.Store.Summary(c.Request().Context(), q)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, result)
}
