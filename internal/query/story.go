package query

import (
	"errors"

	"github.com/srodi/ebpf-server/internal/event"
)

// ErrNoStory is returned for an id of which there is no event.
var ErrNoStory = errors.New("no event has this id")

// Story asks for everything about one thing that has a life, see event.Life.
type Story struct {
	Type   *event.Type
	ID     string // as it is printed
	Window Window // in which it is looked for
	Limit  int    // at most so many events
}

// Told says how a story ended.
type Told struct {
	More     bool // there are further events
	Coverage Coverage
}

// Validate reports what is wrong with a query, as a *ParamError.
func (q Story) Validate() error {
	if err := checkFilter([]*event.Type{q.Type}, expression{column: q.Type.Life.ID, op: Equal, operand: q.ID}); err != nil {
		return err
	}
	return q.Window.Validate()
}
