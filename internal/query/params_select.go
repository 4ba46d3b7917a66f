package query

import (
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/suggest"
)

// Selection reads which events a question is about: types and filters. Own are its
// parameters beside these.
func (p Params) Selection(all []*event.Type, own []string) (types []*event.Type, filters Filters, err error) {
	if err := p.Only(slices.Concat(own, FilterNames(all))); err != nil {
		return nil, nil, err
	}
	if types, err = p.types(all); err != nil {
		return nil, nil, err
	}
	filters, err = p.Filters(types, own)
	return types, filters, err
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
