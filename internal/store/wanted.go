package store

import (
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// wanted is what filters ask of indexes: of each column one of some values.
type wanted []wantedColumn

type wantedColumn struct {
	name string
	keys []block.Key
}

// wantedOf makes the keys of filters. Those that no index can answer, such as
// networks, are left out.
func wantedOf(f query.Filters, t *event.Type) wanted { return keysOf(f.Exact(t)) }

func keysOf(exact []query.Exact) (w wanted) {
	for _, column := range exact {
		c := wantedColumn{name: column.Name}
		for _, n := range column.Numbers {
			c.keys = append(c.keys, block.IntKey(c.name, n))
		}
		for _, text := range column.Texts {
			c.keys = append(c.keys, block.TextKey(c.name, text))
		}
		for _, ip := range column.Addresses {
			c.keys = append(c.keys, block.IPKey(c.name, ip))
		}
		w = append(w, c)
	}
	return w
}

func (w wanted) mayBeIn(x *block.Index) bool {
	for _, c := range w {
		if !x.MayContain(c.name, c.keys...) {
			return false
		}
	}
	return true
}
