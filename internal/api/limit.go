package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/query"
)

var errTooLong = errors.New("the question takes too long")

// limit ends questions that take longer than QueryTimeout. What counts is the time
// in which nothing is sent: every piece of a stream begins it anew, and while a
// client takes one it stands still (that has a limit of its own, see response), as
// it does while the question waits for its turn.
func (s *Server) limit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		request, out := c.Request(), c.Response()
		ctx, cancel := context.WithCancelCause(request.Context())
		q := &question{ResponseWriter: out.Writer, timeout: s.QueryTimeout}
		if q.timeout > 0 {
			q.timer = time.AfterFunc(q.timeout, func() { cancel(errTooLong) })
		}
		defer func() {
			q.pause()
			cancel(nil)
			out.Writer = q.ResponseWriter
			c.SetRequest(request) // the answer to an error is not part of the question
		}()
		out.Writer = q
		c.SetRequest(request.WithContext(context.WithValue(ctx, questionKey{}, q)))
		err := next(c)
		if err != nil && errors.Is(context.Cause(ctx), errTooLong) {
			return s.tooLong(err)
		}
		return err
	}
}

func (s *Server) tooLong(err error) *Problem {
	came := ""
	if at := (*query.Unfinished)(nil); errors.As(err, &at) {
		came = "it had come as far as " + at.At.UTC().Format(time.RFC3339) + "; "
	}
	return newProblem(http.StatusGatewayTimeout, fmt.Sprintf(
		"the question was stopped after %v (server.query_timeout): %sask for less time, or with filters that fewer events match", s.QueryTimeout, came))
}

// question is one that is being answered. It is the writer of its answer, and
// in the context for inTurn.
type question struct {
	http.ResponseWriter
	timer   *time.Timer // nil: it has no limit
	timeout time.Duration

	turns turns           // nil: it has no turn yet, or not any more
	ctx   context.Context // of begin
}

type questionKey struct{}

// begin waits for its turn, which end gives back.
func (q *question) begin(ctx context.Context, t turns) error {
	defer q.pause()()
	err := t.take(ctx)
	if err == nil {
		q.turns, q.ctx = t, ctx
	}
	return err
}

func (q *question) end() {
	if q.turns != nil {
		q.turns.giveBack()
		q.turns = nil
	}
}

// pause stops the time until it is called on.
func (q *question) pause() (goOn func()) {
	if q.timer != nil && q.timer.Stop() { // or it is too late
		return func() { q.timer.Reset(q.timeout) }
	}
	return func() {}
}

// Write lets others have the turn while a slow client takes a piece.
func (q *question) Write(data []byte) (int, error) {
	defer q.pause()()
	t := q.turns
	if t == nil {
		return q.ResponseWriter.Write(data)
	}
	slow := time.AfterFunc(slowWrite, t.giveBack)
	n, err := q.ResponseWriter.Write(data)
	if slow.Stop() {
		return n, err
	}
	q.turns = nil
	return n, errors.Join(err, q.begin(q.ctx, t))
}

// Unwrap is for http.ResponseController.
func (q *question) Unwrap() http.ResponseWriter { return q.ResponseWriter }
