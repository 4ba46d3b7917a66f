package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/query"
)

// What a client sent is repeated in a problem, but not at any length.
const maxRepeat = 100 // characters

// Problem is the body of every error, application/problem+json by RFC 9457.
// It is an error itself: a handler returns it.
type Problem struct {
	Type     string `json:"type" example:"about:blank"`                                       // Always about:blank: the status says what kind of problem it is.
	Title    string `json:"title" example:"Bad Request"`                                      // The status in words.
	Status   int    `json:"status" example:"400"`                                             // The HTTP status.
	Detail   string `json:"detail" example:"limit \"many\" must be a number from 1 to 10000"` // What is wrong and what to do about it.
	Instance string `json:"instance" example:"/api/events"`                                   // The path that was asked for.
	Field    string `json:"field,omitempty" example:"limit"`                                  // The parameter that is wrong, where it is one.
}

func newProblem(status int, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

func (p *Problem) Error() string { return p.Detail }

// problemOf says what an error of any origin looks like to the client.
func problemOf(err error, r *http.Request) *Problem {
	var known *Problem
	var param *query.ParamError
	var framework *echo.HTTPError
	path := shorten(r.URL.EscapedPath())
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &param):
		short := query.ParamError{Name: shorten(param.Name), Value: shorten(param.Value), Reason: param.Reason}
		p := newProblem(http.StatusBadRequest, short.Error())
		p.Field = short.Name
		return p
	case errors.Is(err, echo.ErrNotFound):
		return newProblem(http.StatusNotFound, fmt.Sprintf("there is nothing at %s; /docs/ lists what there is", path))
	case errors.Is(err, echo.ErrMethodNotAllowed):
		return newProblem(http.StatusMethodNotAllowed, fmt.Sprintf("%s does not take %s; the header Allow lists what it takes", path, r.Method))
	case errors.As(err, &framework):
		return newProblem(framework.Code, fmt.Sprint(framework.Message))
	}
	return newProblem(http.StatusInternalServerError, err.Error())
}

// fail answers with the problem that err stands for.
func (s *Server) fail(err error, c echo.Context) {
	r, out := c.Request(), c.Response()
	p := problemOf(err, r)
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		s.Logger.Error("request failed", "uri", r.RequestURI, "error", err)
	}
	if out.Committed {
		// Part of an answer is on its way. Only a connection that breaks tells
		// the client that this was not all.
		panic(http.ErrAbortHandler)
	}
	answer := *p
	answer.Instance = r.URL.EscapedPath()
	body, _ := json.Marshal(answer) // text and numbers always marshal
	if allow := out.Header().Get(echo.HeaderAllow); strings.Contains(allow, http.MethodGet) {
		out.Header().Set(echo.HeaderAllow, allow+", "+http.MethodHead)
	}
	out.Header().Del(echo.HeaderContentDisposition)
	out.Header().Set(echo.HeaderContentType, mimeProblem) // also in place of what the answer would have been
	_ = c.Blob(p.Status, mimeProblem, append(body, '\n')) // fails only when the client is gone
}

func shorten(text string) string {
	runes := []rune(text)
	if len(runes) <= maxRepeat {
		return text
	}
	return string(runes[:maxRepeat]) + "..."
}
