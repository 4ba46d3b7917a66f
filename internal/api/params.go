package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/query"
)

const filtersField = "filters" // only in a body

func queryParams(r *http.Request) (query.Params, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, fmt.Sprintf("cannot read the query string: %v", err))
	}
	return query.Params(values), nil
}

// noParams is for requests that take none.
func noParams(r *http.Request) error {
	p, err := queryParams(r)
	if err != nil {
		return err
	}
	return p.Only(nil)
}

// addBody adds the parameters of a JSON object. The columns in its member
// "filters" count like members of the object itself.
func addBody(p query.Params, body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	fields := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		return badJSON(body, err)
	}
	if end := decoder.InputOffset(); len(bytes.TrimSpace(body[end:])) > 0 {
		return badJSON(body, &json.SyntaxError{Offset: end + 1})
	}
	filters, ok := fields[filtersField].(map[string]any)
	if fields[filtersField] != nil && !ok {
		return &query.ParamError{Name: filtersField, Reason: "must be an object of columns and values"}
	}
	delete(fields, filtersField)
	for name := range filters {
		if slices.Contains(query.SummaryParams, name) {
			return &query.ParamError{Name: name, Reason: "is not a column: it belongs beside " + filtersField + ", not into it"}
		}
	}
	return errors.Join(addFields(p, fields), addFields(p, filters))
}

func addFields(p query.Params, fields map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if fields[name] == nil {
			continue // null: as if it was not there
		}
		if p[name] != nil {
			return &query.ParamError{Name: name, Reason: "is given in two places"}
		}
		list, isList := fields[name].([]any)
		if !isList {
			list = []any{fields[name]}
		}
		for _, item := range list {
			value, err := fieldText(name, item)
			if err != nil {
				return err
			}
			key := name
			if strings.HasSuffix(name, "<") || strings.HasSuffix(name, ">") { // in a query string that stands for <= or >=
				key, value = name+value, ""
			}
			p[key] = append(p[key], value)
		}
		if len(list) == 0 {
			return &query.ParamError{Name: name, Reason: "is an empty list: leave it out to ask for everything"}
		}
	}
	return nil
}

func fieldText(name string, item any) (string, error) {
	switch item := item.(type) {
	case string:
		return item, nil
	case json.Number:
		return item.String(), nil
	}
	return "", &query.ParamError{Name: name, Reason: "must be a text, a number, or a list of these"}
}

// badJSON says where in the body the mistake is.
func badJSON(body []byte, err error) error {
	if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
		return newProblem(http.StatusBadRequest, `the body must be a JSON object such as {"duration": 60}, not a JSON `+kind.Value)
	}
	place := len(body) // io.ErrUnexpectedEOF
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		place = int(syntax.Offset) - 1
	}
	line := bytes.Count(body[:place], []byte("\n")) + 1
	column := place - bytes.LastIndexByte(body[:place], '\n')
	return newProblem(http.StatusBadRequest, fmt.Sprintf("the body is not one JSON object: see line %d, column %d", line, column))
}

// bodyParams are those of the query string and of a JSON object in the body.
func bodyParams(c echo.Context) (query.Params, error) {
	p, err := queryParams(c.Request())
	if err != nil {
		return nil, err
	}
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	return p, addBody(p, body)
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
