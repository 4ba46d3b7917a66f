package query

import (
	"math"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/suggest"
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
	if err := p.Only(slices.Concat(EventParams, FilterNames(all))); err != nil {
		return q, err
	}
	if q.Types, err = p.types(all); err != nil {
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
	if q.Filters, err = p.Filters(q.Types, EventParams); err != nil {
		return q, err
	}
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

// fields reads which columns of the events are asked for.
func (p Params) fields(types []*event.Type) ([]string, error) {
	names := p.columns("fields")
	for i, name := range names {
		switch {
		case name != "type" && len(declarations(types, name)) == 0:
			return nil, &ParamError{Name: "fields", Value: name, Reason: "is not a column of " + typeNames(types)}
		case slices.Contains(names[:i], name):
			return nil, &ParamError{Name: "fields", Value: name, Reason: "is named twice"}
		}
	}
	return names, nil
}

func (p Params) types(all []*event.Type) ([]*event.Type, error) {
	names := p["type"]
	if len(names) == 0 {
		return all, nil
	}
	var selected []*event.Type
	var known []string
	for _, t := range all {
		known = append(known, t.Name)
		if slices.Contains(names, t.Name) {
			selected = append(selected, t)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, &ParamError{Name: "type", Value: name, Reason: "is not a type of events" + suggest.Among(name, known)}
		}
	}
	return selected, nil
}
