package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	defaultStory = 1000
	defaultOpen  = 100
	timeParam    = "time" // which is the name of a column as well
)

var (
	storyParams = []string{"since", "until", "limit"}
	openParams  = []string{"limit", "order"} // and timeParam
)

// StoryPage is the answer of GET /api/{collection}/{id}.
type StoryPage struct {
	Events   json.RawMessage `json:"events" swaggertype:"array,object"` // In order of time: its own, and those of its packets.
	Count    int             `json:"count"`                             // How many events are in this answer.
	More     bool            `json:"more"`                              // There are later ones than the limit allows.
	Coverage query.Coverage  `json:"coverage"`                          // Of its life.
}

// story answers with everything about one thing.
//
//	@Summary		The story of one
//	@Description	Its own events and the drops of its packets, in order of time. A dropped packet is its own if protocol, addresses and ports are those of the connection, in either direction, and so is the network namespace where both are known, from 3 minutes before it was established or failed (a connect tries for minutes) to a second after its end, as far as no other had the same addresses and ports then.
//	@Description	No index has ids: the ids of all events from the last in the window back to its beginning are read, about 0.1 s of processor time for 2 million events. Of what is still open the beginning is there however old it is. `since` and `until` make it quicker.
//	@Tags			events
//	@ID				story
//	@Produce		json
//	@Param			id		path		string	true	"Which one, as in the events."
//	@Param			since	query		string	false	"Its events are not before: RFC 3339, Unix seconds, or relative such as -90m or now-7d."
//	@Param			until	query		string	false	"Its events are before that time, written in the same ways."
//	@Param			limit	query		integer	false	"At most so many events."	minimum(1)	maximum(10000)	default(1000)
//	@Success		200		{object}	StoryPage
//	@Failure		400		{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure		404		{object}	Problem	"No event in the window has this id."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/api/{collection}/{id} [get]
func (s *Server) story(t *event.Type) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, err := queryParams(c.Request())
		if err != nil {
			return err
		}
		q := query.Story{Type: t, ID: c.Param(t.Life.ID)}
		if err := p.Only(storyParams); err != nil {
			return err
		}
		if q.Window, err = p.Window(time.Now()); err != nil {
			return err
		}
		if q.Limit, err = p.Number("limit", defaultStory, 1, query.MaxLimit); err != nil {
			return err
		}
		if err := q.Validate(); err != nil {
			return err
		}
		list := eventList{}
		told, err := s.Store.Story(c.Request().Context(), q, func(r event.Row) error {
			list.text = r.AppendJSON(list.next())
			return nil
		})
		if errors.Is(err, query.ErrNoStory) {
			return newProblem(http.StatusNotFound, "there is no event of "+t.Life.ID+" "+shorten(q.ID)+" in this window")
		}
		if err != nil {
			return err
		}
		return list.send(c, StoryPage{Count: list.count, More: told.More, Coverage: told.Coverage})
	}
}

// OpenPage is the answer of GET /api/{collection}/at.
type OpenPage struct {
	Time     time.Time       `json:"time"`                              // The moment that was asked for.
	AsOf     time.Time       `json:"as_of"`                             // What the answer is true for: time, or where nothing was recorded then, the end of the recording before.
	Events   json.RawMessage `json:"events" swaggertype:"array,object"` // Those with which they began, each with age_ns.
	Count    int             `json:"count"`                             // How many are in this answer.
	Total    int             `json:"total"`                             // How many were open.
	Coverage query.Coverage  `json:"coverage"`                          // Of the recording up to the moment.
}

// openAt answers with what was open at a moment.
//
//	@Summary		What was open at a moment
//	@Description	What had been established at or before that time and was not closed, also what was opened days before, and the TCP sockets that listened (`state=listening` asks for these alone, `state=established` for the others): the events of their beginning. `age_ns` says how long each had been open then. It is left out where the beginning is not known: it was open when the program first saw it (attribution `existing`).
//	@Description	The answer is made from the recording that the time is in: whenever the program starts, it tells of everything that is open. Where it did not run then, the answer is what was open when the recording before ended: `as_of` has that time, and `coverage` is not complete. It is not complete either if events were lost since that recording began. Of what is still open retention keeps the beginning, so it is missing only where `coverage` says so: if events had been lost, were damaged, or were removed by a version of the program that did not keep it.
//	@Description	Every column is a filter, of the events that are shown. Every event that is kept from the beginning of the recording on is looked at: about 0.6 s of processor time for 10 million.
//	@Tags			events
//	@ID				open
//	@Produce		json
//	@Param			time	query		string	false	"The moment: RFC 3339, Unix seconds, or relative such as -90m or now-7d. Default: now."
//	@Param			limit	query		integer	false	"At most so many; `total` says how many there are."	minimum(1)	maximum(10000)	default(100)
//	@Param			order	query		string	false	"desc: those that began last come first."			Enums(desc, asc)	default(desc)
//	@Success		200		{object}	OpenPage
//	@Failure		400		{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/api/{collection}/at [get]
func (s *Server) openAt(t *event.Type) echo.HandlerFunc {
	return func(c echo.Context) error {
		q, err := readAt(t, c.Request())
		if err != nil {
			return err
		}
		list := eventList{}
		answer, err := s.Store.At(c.Request().Context(), q, func(o query.Open) error {
			list.text = o.AppendJSON(list.next())
			if o.AgeKnown {
				list.text = append(list.text[:len(list.text)-1], `,"age_ns":`...)
				list.text = append(strconv.AppendInt(list.text, int64(o.Age), 10), '}')
			}
			return nil
		})
		if err != nil {
			return err
		}
		return list.send(c, OpenPage{Time: answer.Time, AsOf: answer.AsOf, Count: list.count, Total: answer.Total, Coverage: answer.Coverage})
	}
}

func readAt(t *event.Type, r *http.Request) (q query.At, err error) {
	p, err := queryParams(r)
	if err != nil {
		return q, err
	}
	q.Type = t
	if _, q.Filters, err = p.Selection([]*event.Type{t}, append(slices.Clone(openParams), timeParam)); err != nil {
		return q, err
	}
	if q.Time, err = p.Time(timeParam, time.Now()); err != nil {
		return q, err
	}
	if q.Limit, err = p.Number("limit", defaultOpen, 1, query.MaxLimit); err != nil {
		return q, err
	}
	order, err := p.Choice("order", "desc", "asc")
	if err != nil {
		return q, err
	}
	q.Ascending = order == "asc"
	return q, nil
}
