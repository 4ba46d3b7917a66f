package query

// commandColumn tells who was the first, or used something most.
const commandColumn = "command"

// origins are when the events of each cell begin, and whose they are.
type origins struct {
	first    []int64 // of cells that have events
	commands *pairs
}

func newOrigins(command *valueColumn) *origins { return &origins{commands: newPairs(command)} }

func (o *origins) grow(cells int) {
	for len(o.first) < cells {
		o.first = append(o.first, never)
	}
	o.commands.grow(cells)
}

// never is later than every event.
const never = 1<<63 - 1

func (o *origins) add(at []uint32, times []int64, sel []int32, weights []int64) {
	for i, row := range sel {
		o.first[at[i]] = min(o.first[at[i]], times[row])
	}
	o.commands.add(at, weights)
}

// merge expects that the column of commands has just translated the other's.
func (o *origins) merge(other *origins, to []uint32) {
	for cell, first := range other.first {
		o.first[to[cell]] = min(o.first[to[cell]], first)
	}
	o.commands.merge(other.commands, to)
}
