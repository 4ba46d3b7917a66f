package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
)

// formats are those in which events are sent, the one that is preferred first.
// JSON is an answer as a whole; the others are streams of events.
var formats = []struct{ name, mime string }{
	{formatJSON, mimeJSON},
	{format.NDJSON, mimeNDJSON},
	{format.CSV, mimeCSV},
	{format.Parquet, mimeParquet},
}

const (
	formatJSON  = "json"
	mimeNDJSON  = "application/x-ndjson"
	mimeCSV     = "text/csv"
	mimeParquet = "application/vnd.apache.parquet"
)

// EventPage is the answer of GET /api/events. Its events are written by eventList.
type EventPage struct {
	Events     json.RawMessage `json:"events" swaggertype:"array,object"`
	Count      int             `json:"count"`                 // How many events are in this answer.
	Total      *int64          `json:"total,omitempty"`       // How many events match on all pages; only with total=true.
	NextCursor string          `json:"next_cursor,omitempty"` // Parameter cursor of the next page; left out when there is none.
	PrevCursor string          `json:"prev_cursor,omitempty"` // Parameter cursor of the page before; left out when there is none.
	Coverage   query.Coverage  `json:"coverage"`
}

// events answers with single events.
//
//	@Summary		Single events
//	@Description	Events of all types or some, newest first. Every column is a filter: `column=value`, with an address also a network, with a text also its beginning (`command=ng*`; a star that is meant is `\*`); `column!=value`, which events without a value match too; of numbers `<`, `<=`, `>` and `>=`, with units where the column has one (`duration_ns>=1s`, `bytes_sent>1MiB`); `absent` and `present`. Filters combine with AND, the values of a repeated `=` with OR, and of a repeated `!=` an event must have none.
//	@Description	An answer ends with `limit` events; `next_cursor` asks for those that follow and `prev_cursor` for those before, with otherwise the same parameters. Paging gives every event once, also while new ones come in; a new event whose time the pages have passed already is not among them.
//	@Description	NDJSON, CSV and Parquet are sent as events are found, without count, cursor and coverage; an answer that fails underway ends with a broken connection. A row group of Parquet has events of one type, sorted by time.
//	@Tags			events
//	@ID				events
//	@Produce		json
//	@Produce		application/x-ndjson
//	@Produce		text/csv
//	@Produce		application/vnd.apache.parquet
//	@Param			type	query		[]string	false	"Type of the events. Default: all types."	collectionFormat(multi)
//	@Param			since	query		string		false	"Beginning of the window, which includes it: RFC 3339, Unix seconds, or relative such as -90m or now-7d. Default: the oldest event."
//	@Param			until	query		string		false	"End of the window, which excludes it, written in the same ways. Default: none."
//	@Param			limit	query		integer		false	"At most so many events. In other formats than json any number, and 0 is all."	minimum(0)	default(100)
//	@Param			order	query		string		false	"desc: newest first. In Parquet it decides which events a limit leaves."	Enums(desc, asc)	default(desc)
//	@Param			cursor	query		string		false	"next_cursor or prev_cursor of another page."
//	@Param			fields	query		[]string	false	"Columns that are sent, also with commas between them; type is one. The others are left out, time and type too, which only Parquet always has. Default: all."	collectionFormat(multi)
//	@Param			total	query		boolean		false	"Also count the events on all pages. Only with format=json."
//	@Param			format	query		string		false	"Goes before the header Accept."	Enums(json, ndjson, csv, parquet)	default(json)
//	@Success		200		{object}	EventPage
//	@Failure		400		{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure		504		{object}	Problem	"The question took longer than server.query_timeout; the problem says how far it came."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/api/events [get]
func (s *Server) events(c echo.Context) error {
	q, format, err := s.readEvents(c.Request())
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderVary, echo.HeaderAccept)
	if format != formatJSON {
		return s.streamEvents(c, q, format)
	}
	return s.eventPage(c, q)
}

func (s *Server) eventPage(c echo.Context, q query.Events) error {
	list, appendEvent := eventList{}, format.JSON(q.Fields)
	page, err := s.Store.Events(c.Request().Context(), q, func(r event.Row) error {
		list.text = appendEvent(list.next(), r)
		return nil
	})
	if err != nil {
		return err
	}
	answer := EventPage{Count: list.count, Coverage: page.Coverage}
	if q.Total {
		answer.Total = &page.Total
	}
	if page.Next != nil {
		answer.NextCursor = page.Next.String()
	}
	if page.Prev != nil {
		answer.PrevCursor = page.Prev.String()
	}
	return list.send(c, answer)
}

// streamEvents sends events as they are found. After the first bytes are out, an
// error breaks the connection (see fail), so that what came is not taken for all.
func (s *Server) streamEvents(c echo.Context, q query.Events, name string) error {
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, mimeOf(name))
	if name != format.NDJSON { // a browser is to save it
		header.Set(echo.HeaderContentDisposition, `attachment; filename="events.`+name+`"`)
	}
	if name == format.Parquet && q.Limit == 0 && q.Cursor == nil {
		return s.streamBlocks(c, q)
	}
	w, err := format.NewWriter(c.Response(), name, q.Types, q.Fields...)
	if err != nil {
		return err
	}
	if _, err := s.Store.Events(c.Request().Context(), q, w.Write); err != nil {
		return err
	}
	return w.Close()
}

// streamBlocks sends all events as Parquet. What is a block in the file goes out as it
// is: to take its events out and to encode them again takes nearly three
// times as long, and a hundred MB more.
func (s *Server) streamBlocks(c echo.Context, q query.Events) error {
	out := bufio.NewWriterSize(c.Response(), 1<<16) // an error before the first block is still answered as one
	w, err := format.NewParquetWriter(out, q.Types, q.Fields...)
	if err != nil {
		return err
	}
	err = s.Store.Pieces(c.Request().Context(), q, func(p query.Piece) error {
		if p.Block != nil {
			return w.Block(p.Type, p.Block)
		}
		return w.Batch(p.Batch)
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

func mimeOf(name string) string {
	for _, f := range formats {
		if f.name == name {
			return f.mime
		}
	}
	return ""
}

func (s *Server) readEvents(r *http.Request) (q query.Events, format string, err error) {
	p, err := queryParams(r)
	if err != nil {
		return q, "", err
	}
	if format, err = readFormat(p, r); err != nil {
		return q, "", err
	}
	q, err = p.Events(s.Types, format != formatJSON, time.Now())
	return q, format, err
}

// readFormat returns what the client wants to have: by the parameter, or else by Accept.
func readFormat(p query.Params, r *http.Request) (string, error) {
	accepted := strings.Join(r.Header.Values(echo.HeaderAccept), ",")
	preset := accepts(accepted)
	var names, mimes []string
	for _, f := range formats {
		names, mimes = append(names, f.name), append(mimes, f.mime)
	}
	if len(p["format"]) > 0 {
		return p.Choice("format", names...)
	}
	if preset == "" {
		return "", newProblem(http.StatusNotAcceptable, fmt.Sprintf("cannot answer with %s (possible are %s)", shorten(accepted), strings.Join(mimes, ", ")))
	}
	return preset, nil
}

// accepts returns the format that a header Accept prefers, or "" if it wants none
// that there is.
func accepts(header string) (preferred string) {
	best := 0.0
	for accepted := range strings.SplitSeq(header, ",") {
		kind, params, err := mime.ParseMediaType(accepted)
		quality, failed := strconv.ParseFloat(params["q"], 64)
		if failed != nil {
			quality = 1
		}
		for _, f := range formats {
			group, _, _ := strings.Cut(f.mime, "/")
			if (err != nil || kind == f.mime || kind == group+"/*" || kind == "*/*") && quality > best {
				preferred, best = f.name, quality
			}
		}
	}
	return preferred
}
