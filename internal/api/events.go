package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	formatJSON   = "json"
	formatNDJSON = "ndjson"
	mimeNDJSON   = "application/x-ndjson"
)

// EventPage is the answer of GET /api/events.
type EventPage struct {
	Events     json.RawMessage `json:"events" swaggertype:"array,object"`
	Count      int             `json:"count"`                 // How many events are in this answer.
	NextCursor string          `json:"next_cursor,omitempty"` // Parameter cursor of the next page; left out when there is none.
	Coverage   query.Coverage  `json:"coverage"`
}

// events answers with single events.
//
//	@Summary		Single events
//	@Description	Events of all types or some, newest first. Every column is a filter; filters combine with AND, the values of a repeated one with OR.
//	@Description	An answer ends with `limit` events; `next_cursor` asks for those that follow, with otherwise the same parameters. Paging gives every event once, also while new ones come in; a new event whose time the pages have passed already is not among them.
//	@Description	As NDJSON, one event a line is sent as it is found, without count, cursor and coverage; an answer that fails underway ends with a broken connection.
//	@Tags			events
//	@ID				events
//	@Produce		json
//	@Produce		application/x-ndjson
//	@Param			type	query		[]string	false	"Type of the events. Default: all types."	collectionFormat(multi)
//	@Param			since	query		string		false	"Beginning of the window, which includes it: RFC 3339, Unix seconds, or relative such as -90m or now-7d. Default: the oldest event."
//	@Param			until	query		string		false	"End of the window, which excludes it, written in the same ways. Default: none."
//	@Param			limit	query		integer		false	"At most so many events. With format=ndjson any number, and 0 is all."	minimum(0)	default(100)
//	@Param			order	query		string		false	"desc: newest first."	Enums(desc, asc)	default(desc)
//	@Param			cursor	query		string		false	"next_cursor of the page before."
//	@Param			format	query		string		false	"Goes before the header Accept."	Enums(json, ndjson)	default(json)
//	@Success		200		{object}	EventPage
//	@Failure		400		{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/api/events [get]
func (s *Server) events(c echo.Context) error {
	q, format, err := s.readEvents(c.Request())
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderVary, echo.HeaderAccept)
	if format == formatNDJSON {
		return s.streamEvents(c, q)
	}
	answer := EventPage{Events: json.RawMessage{'['}}
	page, err := s.Store.Events(c.Request().Context(), q, func(r event.Row) error {
		if answer.Count++; answer.Count > 1 {
			answer.Events = append(answer.Events, ',')
		}
		answer.Events = r.AppendJSON(answer.Events)
		return nil
	})
	if err != nil {
		return err
	}
	answer.Events = append(answer.Events, ']')
	answer.Coverage = page.Coverage
	if page.Next != nil {
		answer.NextCursor = page.Next.String()
	}
	return c.JSON(http.StatusOK, answer)
}

// streamEvents sends a line an event. After the first bytes are out, an error
// breaks the connection (see fail), so that what came is not taken for all.
func (s *Server) streamEvents(c echo.Context, q query.Events) error {
	c.Response().Header().Set(echo.HeaderContentType, mimeNDJSON)
	out := bufio.NewWriterSize(c.Response(), 64<<10)
	var line []byte
	_, err := s.Store.Events(c.Request().Context(), q, func(r event.Row) error {
		line = append(r.AppendJSON(line[:0]), '\n')
		_, err := out.Write(line)
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

func (s *Server) readEvents(r *http.Request) (q query.Events, format string, err error) {
	p, err := queryParams(r)
	if err != nil {
		return q, "", err
	}
	if format, err = readFormat(p, r); err != nil {
		return q, "", err
	}
	q, err = p.Events(s.Types, format == formatNDJSON, time.Now())
	return q, format, err
}

// readFormat returns what the client wants to have: by the parameter, or else by Accept.
func readFormat(p query.Params, r *http.Request) (string, error) {
	accepted := strings.Join(r.Header.Values(echo.HeaderAccept), ",")
	preset, other := accepts(accepted), formatJSON
	if preset != formatNDJSON {
		other = formatNDJSON
	}
	if preset == "" && len(p["format"]) > 0 {
		preset = formatJSON
	}
	if preset == "" {
		return "", newProblem(http.StatusNotAcceptable, fmt.Sprintf("cannot answer with %s (possible are %s and %s)", accepted, mimeJSON, mimeNDJSON))
	}
	return p.Choice("format", preset, other)
}

// accepts returns the format that a header Accept asks for, or "" if it wants
// none that there is.
func accepts(header string) string {
	possible := ""
	for accepted := range strings.SplitSeq(header, ",") {
		kind, _, err := mime.ParseMediaType(accepted)
		switch {
		case kind == mimeNDJSON:
			return formatNDJSON
		case err != nil || kind == mimeJSON || kind == "application/*" || kind == "*/*":
			possible = formatJSON
		}
	}
	return possible
}
