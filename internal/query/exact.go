package query

import (
	"net/netip"

	"github.com/srodi/ebpf-server/internal/event"
)

// Exact is a filter that lets only single values through, by the kind of the column.
type Exact struct {
	Name      string
	Numbers   []int64
	Texts     []string
	Addresses []netip.Addr
}

// Exact returns those filters that an index of values can answer: filters of
// networks and of ids are left out, and all that name no values to look for.
func (f Filters) Exact(t *event.Type) (all []Exact) {
	for _, filter := range f {
		i, ok := t.Column(filter.Column)
		if !ok || filter.Op != Equal {
			continue
		}
		e, exact := Exact{Name: filter.Column}, true
		for _, text := range filter.Values {
			w, err := parseWanted(t.Columns[i], filter.Op, text)
			if err != nil {
				continue // possible for another type
			}
			switch t.Columns[i].Kind {
			case event.KindInt:
				e.Numbers = append(e.Numbers, w.number)
			case event.KindString:
				exact = exact && !w.begins
				e.Texts = append(e.Texts, w.text)
			case event.KindIP:
				exact = exact && w.network.IsSingleIP()
				e.Addresses = append(e.Addresses, w.network.Addr())
			default:
				exact = false
			}
		}
		if exact {
			all = append(all, e)
		}
	}
	return all
}
