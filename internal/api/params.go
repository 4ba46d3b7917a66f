package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/suggest"
)

// The column that since and until ask for.
var timeColumn = event.Common()[event.Time].Name

// Longer than anybody recorded, and short enough to count in nanoseconds.
const maxSpan = 100 * 365 * 24 * time.Hour

// params is what was asked, by name, in whatever way it came: as a query
// string, or as the JSON of a body.
type params map[string][]string

func queryParams(r *http.Request) (params, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, fmt.Sprintf("cannot read the query string: %v", err))
	}
	return params(values), nil
}

// noParams is for requests that take none.
func noParams(r *http.Request) error {
	p, err := queryParams(r)
	if err != nil {
		return err
	}
	return p.only(nil)
}

// addBody adds the parameters of a JSON object. The columns in its member
// "filters" count like members of the object itself.
func (p params) addBody(body []byte) error {
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
		if slices.Contains(summaryParams, name) {
			return &query.ParamError{Name: name, Reason: "is not a column: it belongs beside " + filtersField + ", not into it"}
		}
	}
	return errors.Join(p.addFields(fields), p.addFields(filters))
}

func (p params) addFields(fields map[string]any) error {
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
			switch item := item.(type) {
			case string:
				p[name] = append(p[name], item)
			case json.Number:
				p[name] = append(p[name], item.String())
			default:
				return &query.ParamError{Name: name, Reason: "must be a text, a number, or a list of these"}
			}
		}
		if len(list) == 0 {
			return &query.ParamError{Name: name, Reason: "is an empty list: leave it out to ask for everything"}
		}
	}
	return nil
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

// only refuses parameters that are not among the known ones.
func (p params) only(known []string) error {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		switch {
		case slices.Contains(known, name):
		case name == timeColumn && len(known) > 0:
			return &query.ParamError{Name: name, Reason: "is asked for with since and until"}
		default:
			return &query.ParamError{Name: name, Reason: "is not known here" + suggest.Among(name, known)}
		}
	}
	return nil
}

// one returns a parameter that must not be repeated; "" if it is not given.
func (p params) one(name string) (string, error) {
	switch values := p[name]; len(values) {
	case 0:
		return "", nil
	case 1:
		if values[0] == "" {
			return "", &query.ParamError{Name: name, Reason: "is empty"}
		}
		return values[0], nil
	default:
		return "", &query.ParamError{Name: name, Reason: "can be given only once"}
	}
}

func (p params) number(name string, preset, least, most int) (int, error) {
	text, err := p.one(name)
	if err != nil || text == "" {
		return preset, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, &query.ParamError{Name: name, Value: text, Reason: fmt.Sprintf("must be a number from %d to %d", least, most)}
	}
	return n, nil
}

// choice returns one of the options; the first if the parameter is not given.
func (p params) choice(name string, options ...string) (string, error) {
	text, err := p.one(name)
	if err != nil || text == "" {
		return options[0], err
	}
	if !slices.Contains(options, text) {
		return "", &query.ParamError{Name: name, Value: text, Reason: "must be one of " + strings.Join(options, ", ")}
	}
	return text, nil
}

// span returns a time span, which comes as seconds or with units; 0 if it is
// not given.
func (p params) span(name string) (time.Duration, error) {
	text, err := p.one(name)
	if err != nil || text == "" {
		return 0, err
	}
	seconds, err := strconv.ParseFloat(text, 64)
	d := time.Duration(seconds * float64(time.Second))
	if err != nil {
		if d, err = query.ParseDuration(text); err != nil {
			return 0, &query.ParamError{Name: name, Value: text, Reason: "must be a number of seconds, or a time span such as 90m or 7d"}
		}
		seconds = d.Seconds()
	}
	if math.IsNaN(seconds) || seconds > maxSpan.Seconds() || d <= 0 {
		return 0, &query.ParamError{Name: name, Value: text, Reason: "must be more than 0 and less than a hundred years"}
	}
	return d, nil
}

// time returns a point in time; the zero time if it is not given.
func (p params) time(name string, now time.Time) (time.Time, error) {
	text, err := p.one(name)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	t, err := query.ParseTime(text, now)
	if param := (*query.ParamError)(nil); errors.As(err, &param) {
		return time.Time{}, &query.ParamError{Name: name, Value: param.Value, Reason: param.Reason}
	}
	return t, err
}

// window reads since and until.
func (p params) window(now time.Time) (w query.Window, err error) {
	if w.Since, err = p.time("since", now); err != nil {
		return w, err
	}
	if w.Until, err = p.time("until", now); err != nil {
		return w, err
	}
	return w, w.Validate()
}

// filters reads every parameter that is not among the reserved ones.
func (p params) filters(types []*event.Type, reserved []string) (query.Filters, error) {
	columns := maps.Clone(p)
	for _, name := range reserved {
		delete(columns, name)
	}
	return query.ParseFilters(types, columns)
}

// columnNames lists the columns that can be filtered by, without repetition.
func columnNames(types []*event.Type) []string {
	var names []string
	for _, t := range types {
		for _, c := range t.Columns {
			if c.Kind != event.KindTime && !slices.Contains(names, c.Name) {
				names = append(names, c.Name)
			}
		}
	}
	return names
}
