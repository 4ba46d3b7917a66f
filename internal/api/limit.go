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
// client takes one it stands still (that has a limit of its own, see response).
func (s *Server) limit(next echo.HandlerFunc) echo.HandlerFunc {
	if s.QueryTimeout == 0 {
		return next
	}
	return func(c echo.Context) error {
		request, out := c.Request(), c.Response()
		ctx, cancel := context.WithCancelCause(request.Context())
		timer := time.AfterFunc(s.QueryTimeout, func() { cancel(errTooLong) })
		writer := out.Writer
		defer func() {
			timer.Stop()
			cancel(nil)
			out.Writer = writer
			c.SetRequest(request) // the answer to an error is not part of the question
		}()
		out.Writer = &pausing{ResponseWriter: writer, timer: timer, timeout: s.QueryTimeout}
		c.SetRequest(request.WithContext(ctx))
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

// pausing stops a timer while it writes.
type pausing struct {
	http.ResponseWriter
	timer   *time.Timer
	timeout time.Duration
}

func (p *pausing) Write(data []byte) (int, error) {
	if p.timer.Stop() { // or it is too late
		defer p.timer.Reset(p.timeout)
	}
	return p.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (p *pausing) Unwrap() http.ResponseWriter { return p.ResponseWriter }
