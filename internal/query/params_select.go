package query

import (
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
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
