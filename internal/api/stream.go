package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	heartbeat   = 15 * time.Second // proxies and clients take a connection that is silent for dead
	maxStreams  = 100              // each takes about 100 kB here, and some MB in the kernel if nobody reads
	streamPiece = 32 << 10         // bytes that are written at once
	mimeStream  = "text/event-stream"

	lastEventParam  = "last_event_id"
	lastEventHeader = "Last-Event-ID"
)

// streamParams are the parameters of a stream beside the columns.
var streamParams = []string{"type", lastEventParam}

// Feed hands out events in the order in which they arrive; *live.Feed is one.
type Feed interface {
	// Now returns the position behind the last event.
	Now() query.Position
	// Next returns what came behind a position, or a channel that is closed
	// when something comes.
	Next(after query.Position) (query.Arrival, <-chan struct{})
}

// streams are all that are under way.
type streams struct {
	free chan struct{} // has an element for each that may begin
	// encoding is held by the one that makes events into text. So all of them
	// together take one processor, and leave the others to those who record.
	encoding sync.Mutex
}

func newStreams() *streams {
	s := &streams{free: make(chan struct{}, maxStreams)}
	for range maxStreams {
		s.free <- struct{}{}
	}
	return s
}

// stream sends events as they come.
//
//	@Summary		Events as they happen
//	@Description	Server-sent events: the JSON of each event as `data`, with an `id`, in the order in which they arrive here. An inbound connection arrives when it is accepted, with an earlier `time`. Filters are those of /api/events. `curl -N` shows it.
//	@Description	A comment comes every 15 seconds, with the `id` of what was looked at last. The header `Last-Event-ID`, which browsers send by themselves, or the parameter `last_event_id` goes on behind that event, as long as what came since is held in memory (16 MB: minutes, or a second in a flood).
//	@Description	Nobody is waited for: a client that is too slow gets an event named `missed` in the place of what it has missed, and so does one that comes back too late or after a restart: `{"count": 12, "since": time, "until": time}`, of all types whatever the filters; without `count` where it is not known. These are times of arrival; /api/events has what was missed. A client that takes nothing for a minute is cut off.
//	@Tags			events
//	@ID				stream
//	@Produce		text/event-stream
//	@Param			type			query		[]string	false	"Type of the events. Default: all types."	collectionFormat(multi)
//	@Param			last_event_id	query		string		false	"Begin behind that event. Goes before the header. Default: with what comes from now on."
//	@Param			Last-Event-ID	header		string		false	"The same."
//	@Success		200				{string}	string		"Server-sent events."
//	@Failure		400				{object}	Problem		"A parameter is wrong; `field` names it."
//	@Failure		503				{object}	Problem		"There are 100 streams already."
//	@Failure		default			{object}	Problem		"Any other problem."
//	@Router			/api/events/stream [get]
func (s *Server) stream(c echo.Context) error {
	f, err := s.readStream(c.Request())
	if err != nil {
		return err
	}
	select {
	case <-s.streams.free:
		defer func() { s.streams.free <- struct{}{} }()
	default:
		return newProblem(http.StatusServiceUnavailable, "there are as many streams as there can be; end one")
	}
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, mimeStream)
	header.Set(echo.HeaderCacheControl, "no-cache")
	header.Set("X-Accel-Buffering", "no") // nginx would collect some kB before it passes them on
	c.Response().WriteHeader(http.StatusOK)
	out := c.Response().Writer.(*response) // what serve hands to echo
	if out.head {
		return nil
	}
	defer context.AfterFunc(s.ending, out.end)()
	return f.follow(c.Request(), c.Response(), s.ending.Done())
}

// follower is one stream.
type follower struct {
	feed     Feed
	encoding *sync.Mutex
	matchers map[string]query.Matcher // by type
	at       query.Position
	text     []byte // to be written next
	rows     []int32
}

func (s *Server) readStream(r *http.Request) (*follower, error) {
	p, err := queryParams(r)
	if err != nil {
		return nil, err
	}
	types, filters, err := p.Selection(s.Types, streamParams)
	if err != nil {
		return nil, err
	}
	f := &follower{feed: s.Feed, encoding: &s.streams.encoding, matchers: map[string]query.Matcher{}, at: s.Feed.Now()}
	for _, t := range types {
		f.matchers[t.Name] = filters.Compile(t)
	}
	id, err := p.One(lastEventParam)
	if id == "" && err == nil {
		id = r.Header.Get(lastEventHeader)
	}
	if id == "" || err != nil {
		return f, err
	}
	if f.at, err = query.ParsePosition(id); err != nil {
		return nil, &query.ParamError{Name: lastEventParam, Value: id, Reason: "is not the id of an event of this stream"}
	}
	return f, nil
}

// follow writes what comes until the client goes or the server ends. An error is
// that of a client that takes nothing.
func (f *follower) follow(r *http.Request, out http.ResponseWriter, ending <-chan struct{}) error {
	control := http.NewResponseController(out)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	f.text = f.comment(f.text) // so that the client knows that it is connected, and where to go on
	for {
		if _, err := out.Write(f.text); err != nil {
			return err
		}
		if err := control.Flush(); err != nil {
			return err
		}
		for wait := f.gather(); len(f.text) == 0; {
			select {
			case <-r.Context().Done():
				return nil
			case <-ending:
				return nil
			case <-wait:
				wait = f.gather()
			case <-beat.C:
				f.text = f.comment(f.text)
			}
		}
		select { // also while there is always something to write
		case <-r.Context().Done():
			return nil
		case <-ending:
			return nil
		default:
		}
	}
}

// comment tells nothing but that the connection lives, and how far the stream
// has come: where nothing passes the filters for long, the last event that did
// would be forgotten here when the client comes back.
func (f *follower) comment(text []byte) []byte {
	return append(append(append(text, ": alive\nid: "...), f.at.String()...), "\n\n"...)
}

// gather makes a piece of what came. If there is none, it returns a channel to
// wait at.
func (f *follower) gather() <-chan struct{} {
	f.encoding.Lock()
	defer f.encoding.Unlock()
	f.text = f.text[:0]
	for len(f.text) < streamPiece {
		came, wait := f.feed.Next(f.at)
		switch {
		case wait != nil:
			return wait
		case came.Missed != nil:
			f.at = came.Last
			data, _ := json.Marshal(came.Missed) // times and a number always marshal
			f.text = f.message(append(f.text, "event: missed\n"...), f.at, func(text []byte) []byte { return append(text, data...) })
		default:
			f.take(came)
		}
	}
	return nil
}

// take adds the events that pass the filters, until there is enough for a piece.
func (f *follower) take(came query.Arrival) {
	matcher, asked := f.matchers[came.Batch.Type.Name]
	if asked {
		f.rows = matcher.Select(came.Batch, query.Window{}, f.rows[:0])
		from, _ := slices.BinarySearch(f.rows, int32(came.Row))
		for _, row := range f.rows[from:] {
			if len(f.text) >= streamPiece {
				return
			}
			f.at = query.Position{Number: came.First.Number + int64(row) - int64(came.Row), Time: came.First.Time}
			f.text = f.message(f.text, f.at, event.Row{Batch: came.Batch, Index: int(row)}.AppendJSON)
		}
	}
	f.at = came.Last
}

func (f *follower) message(text []byte, at query.Position, data func([]byte) []byte) []byte {
	text = append(append(append(text, "id: "...), at.String()...), "\ndata: "...)
	return append(data(text), "\n\n"...)
}
