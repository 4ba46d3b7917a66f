package query

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	defaultLimit = 100
	// MaxLimit is for answers that are held in memory: about 500 bytes an event.
	MaxLimit = 10_000
)

// EventParams are the parameters of a question about single events beside the
// columns. The format is for those who print the answer to read.
var EventParams = []string{"type", "since", "until", "limit", "order", "cursor", "fields", "total", "format"}

// Events reads a question about single events of some of these types, as of now.
// If the answer is streamed, limit may be any number, and 0 asks for all.
func (p Params) Events(all []*event.Type, streamed bool, now time.Time) (q Events, err error) {
	p = p.countAsTotal()
	if q.Types, q.Filters, err = p.Selection(all, EventParams); err != nil {
		return q, err
	}
	if q.Window, err = p.Window(now); err != nil {
		return q, err
	}
	least, most := 1, MaxLimit
	if streamed {
		least, most = 0, math.MaxInt32
	}
	if q.Limit, err = p.Number("limit", defaultLimit, least, most); err != nil {
		return q, err
	}
	order, err := p.Choice("order", "desc", "asc")
	if err != nil {
		return q, err
	}
	q.Ascending = order == "asc"
	if q.Fields, err = p.fields(q.Types); err != nil {
		return q, err
	}
	if q.Total, err = p.Bool("total"); err != nil {
		return q, err
	}
	if q.Total && streamed {
		return q, &ParamError{Name: "total", Reason: "has no place in this format; ask for JSON"}
	}
	if cursor, err := p.One("cursor"); err != nil || cursor == "" {
		return q, err
	} else if q.Cursor, err = ParseCursor(cursor); err != nil {
		return q, err
	}
	return q, q.Validate()
}

// countAsTotal takes count=true for total=true, which means the same to most people.
// A column may have that name as well, but its values are numbers.
func (p Params) countAsTotal() Params {
	const name = "count"
	if len(p[name]) != 1 || p[name][0] != "true" && p[name][0] != "false" || p["total"] != nil {
		return p
	}
	p = maps.Clone(p)
	p["total"] = p[name]
	delete(p, name)
	return p
}

// fields reads which columns of the events are asked for.
func (p Params) fields(types []*event.Type) ([]string, error) {
	names := p.columns("fields")
	for i, name := range names {
		switch {
		case !slices.ContainsFunc(types, func(t *event.Type) bool { return len(t.Fields([]string{name})) > 0 }):
			return nil, &ParamError{Name: "fields", Value: name, Reason: noColumn(types, name)}
		case slices.Contains(names[:i], name):
			return nil, &ParamError{Name: "fields", Value: name, Reason: "is named twice"}
		}
	}
	return names, nil
}
