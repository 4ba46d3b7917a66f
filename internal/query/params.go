package query

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/suggest"
)

// The column that since and until ask for.
var timeColumn = event.Common()[event.Time].Name

// Longer than anybody recorded, and short enough to count in nanoseconds.
const maxSpan = 100 * 365 * 24 * time.Hour

// Params is what was asked, by name, in whatever way it came: as a query
// string, or as the JSON of a body. A filter is taken apart as a query string is,
// at the first "=", see SplitFilter.
type Params map[string][]string

// Only refuses parameters that are not among the known ones.
func (p Params) Only(known []string) error {
	filters := slices.Contains(known, string(Absent)) // are taken here, so that a column may have an operator
	for _, key := range slices.Sorted(maps.Keys(p)) {
		name := key
		if column := parseExpression(key, "").column; filters && column != "" {
			name = column
		}
		switch {
		case slices.Contains(known, name):
		case name == timeColumn && len(known) > 0:
			return &ParamError{Name: name, Reason: "is asked for with since and until"}
		default:
			return &ParamError{Name: name, Reason: "is not known here" + suggest.Among(name, known)}
		}
	}
	return nil
}

// One returns a parameter that must not be repeated; "" if it is not given.
func (p Params) One(name string) (string, error) {
	switch values := p[name]; len(values) {
	case 0:
		return "", nil
	case 1:
		if values[0] == "" {
			return "", &ParamError{Name: name, Reason: "is empty"}
		}
		return values[0], nil
	default:
		return "", &ParamError{Name: name, Reason: "can be given only once"}
	}
}

// Number returns a whole number, or preset if the parameter is not given.
func (p Params) Number(name string, preset, least, most int) (int, error) {
	text, err := p.One(name)
	if err != nil || text == "" {
		return preset, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, &ParamError{Name: name, Value: text, Reason: fmt.Sprintf("must be a number from %d to %d", least, most)}
	}
	return n, nil
}

// Choice returns one of the options; the first if the parameter is not given.
func (p Params) Choice(name string, options ...string) (string, error) {
	text, err := p.One(name)
	if err != nil || text == "" {
		return options[0], err
	}
	if !slices.Contains(options, text) {
		return "", &ParamError{Name: name, Value: text, Reason: "must be one of " + strings.Join(options, ", ")}
	}
	return text, nil
}

// Bool returns true or false; false if the parameter is not given.
func (p Params) Bool(name string) (bool, error) {
	text, err := p.One(name)
	if err != nil || text == "" {
		return false, err
	}
	is, err := strconv.ParseBool(text)
	if err != nil {
		return false, &ParamError{Name: name, Value: text, Reason: "is neither true nor false"}
	}
	return is, nil
}

// Span returns a time span, which comes as seconds or with units; 0 if it is
// not given.
func (p Params) Span(name string) (time.Duration, error) {
	text, err := p.One(name)
	if err != nil || text == "" {
		return 0, err
	}
	seconds, err := strconv.ParseFloat(text, 64)
	d := time.Duration(seconds * float64(time.Second))
	if err != nil {
		if d, err = ParseDuration(text); err != nil {
			return 0, &ParamError{Name: name, Value: text, Reason: "must be a number of seconds, or a time span such as 90m or 7d"}
		}
		seconds = d.Seconds()
	}
	if math.IsNaN(seconds) || seconds > maxSpan.Seconds() || d <= 0 {
		return 0, &ParamError{Name: name, Value: text, Reason: "must be more than 0 and less than a hundred years"}
	}
	return d, nil
}

// Time returns a point in time; the zero time if it is not given.
func (p Params) Time(name string, now time.Time) (time.Time, error) {
	text, err := p.One(name)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	t, err := ParseTime(text, now)
	if param := (*ParamError)(nil); errors.As(err, &param) {
		return time.Time{}, &ParamError{Name: name, Value: param.Value, Reason: param.Reason}
	}
	return t, err
}

// Window reads since and until.
func (p Params) Window(now time.Time) (w Window, err error) {
	if w.Since, err = p.Time("since", now); err != nil {
		return w, err
	}
	if w.Until, err = p.Time("until", now); err != nil {
		return w, err
	}
	err = w.Validate()
	if param := (*ParamError)(nil); errors.As(err, &param) {
		param.Value = p[param.Name][0] // as it was given, not the time that it is
	}
	return w, err
}

// Filters reads every parameter that is not among the reserved ones.
func (p Params) Filters(types []*event.Type, reserved []string) (Filters, error) {
	columns := maps.Clone(p)
	for _, name := range reserved {
		delete(columns, name)
	}
	return ParseFilters(types, columns)
}

// FilterNames lists the parameters that Filters reads: the columns, without
// repetition, and those of Presence. Columns may have an operator behind them.
func FilterNames(types []*event.Type) []string {
	var names []string
	for _, t := range types {
		for _, c := range t.Shown() {
			if c.Kind != event.KindTime && !slices.Contains(names, c.Name) {
				names = append(names, c.Name)
			}
		}
	}
	return append(names, Presence...)
}
