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
//	@Description	Counts events, adds up sizes and durations, and lists the most frequent values, or those that were never seen before, over any window, also beside an earlier one. Every column is a filter; filters combine with AND, the values of a repeated one with OR.
//	@Tags		summaries
//	@ID			summary
//	@Produce	json
//	@Param		duration	query		string		false	"Length of the window before until: seconds, or a time span such as 90m. Not together with since. Default: 3600 seconds."
//	@Param		since		query		string		false	"Beginning of the window, which includes it: RFC 3339, Unix seconds, or relative such as -90m or now-7d."
//	@Param		until		query		string		false	"End of the window, which excludes it, written in the same ways. Default: now."
//	@Param		group_by	query		[]string	false	"What to group by, at most 3: columns; networks of a column of addresses, as destination_ip/24 (IPv4 by /24, IPv6 by /64) or destination_ip/24/48; or time, in steps of interval: then the groups are in the order of time, top counts for each step, and there is no series. Without it and without interval, the most frequent values of some columns are listed one by one."	collectionFormat(multi)
//	@Param		first_seen	query		[]string	false	"Columns or networks, at most 3, instead of group_by: lists only the values, or combinations of these, that no event before the window has, with the time of the first event (first_seen) and the command with most events (top_command). Filters apply to what was before, too. history says how far back that is known."	collectionFormat(multi)
//	@Param		distinct	query		[]string	false	"Columns whose different values are counted, in each group of group_by as well. Without group_by and interval some are counted by default."	collectionFormat(multi)
//	@Param		sums		query		[]string	false	"Columns that are added up, in all, in each group and at each point of the series; none leaves all of them out. Fewer sums make an answer over a long window come sooner. Default: all columns that can be."	collectionFormat(multi)
//	@Param		stats		query		[]string	false	"Columns of numbers, at most 4, such as duration_ns: how many events have a value, its min, max, avg, p50, p95 and p99; in all, in each group and at each point of the series. Percentiles are within 0.8 % (stats_error), numbers below 128 exact. An event that stands for n (packet_drops) counts n times; of columns that are summed (length) each of them has an equal part."	collectionFormat(multi)
//	@Param		top			query		integer		false	"At most so many groups in a list."	minimum(1)	maximum(1000)	default(10)
//	@Param		order_by	query		string		false	"Figure that groups are ordered by: count; a column that is summed, as bytes_sent or sum(bytes_sent); distinct(COLUMN); or of a column of numbers count(COLUMN), min, max, avg, p50, p95 or p99, as p95(duration_ns). It is then told as well. Groups without the figure come last. With compare the larger of the two counts."	default(count)
//	@Param		order		query		string		false	"Largest or smallest first."	Enums(desc, asc)	default(desc)
//	@Param		interval	query		string		false	"Adds a series with one point per interval: seconds, or a time span such as 5m."
//	@Param		compare		query		string		false	"Asks the same of an earlier window, as much earlier as this says: -1d, -7d, -1h. All figures then have before beside them, with a coverage of its own, and each group its change: new, gone, changed, or same (count, counts and the sums that are told). changes counts the groups by these. Must be a multiple of interval."
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
	body, err := result.MarshalJSON()
	if err != nil {
		return err
	}
	return sendJSON(c, http.StatusOK, body)
}
