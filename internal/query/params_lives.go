package query

import (
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

const defaultStory = 1000

// StoryParams are the parameters of a Story.
var StoryParams = []string{"since", "until", "limit"}

// AtParams are the parameters of an At beside the columns.
var AtParams = []string{timeColumn, "limit", "order"}

// Story reads what is asked about one thing of a type with a life.
func (p Params) Story(t *event.Type, id string, now time.Time) (q Story, err error) {
	if err := p.Only(StoryParams); err != nil {
		return q, err
	}
	q.Type, q.ID = t, id
	if q.Window, err = p.Window(now); err != nil {
		return q, err
	}
	if q.Limit, err = p.Number("limit", defaultStory, 1, MaxLimit); err != nil {
		return q, err
	}
	return q, q.Validate()
}

// At reads what is asked about a moment.
func (p Params) At(t *event.Type, now time.Time) (q At, err error) {
	q.Type = t
	if _, q.Filters, err = p.Selection([]*event.Type{t}, AtParams); err != nil {
		return q, err
	}
	if q.Time, err = p.Time(timeColumn, now); err != nil {
		return q, err
	}
	if q.Limit, err = p.Number("limit", defaultLimit, 1, MaxLimit); err != nil {
		return q, err
	}
	order, err := p.Choice("order", "desc", "asc")
	if err != nil {
		return q, err
	}
	q.Ascending = order == "asc"
	return q, nil
}
