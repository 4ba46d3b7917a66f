package event

import (
	"fmt"
	"slices"
	"time"
)

// Life declares that events tell of things that begin and end, as connections
// do: what was open at a moment, and the story of each, follow from it. An event
// that neither begins nor ends one is the only one of something that never began.
type Life struct {
	ID       string        // the id column that all events of one share ("connection_id")
	Begins   Mark          // of the events with which one begins; each has one in each run of the program
	Ends     Mark          // of the events with which one ends
	Found    Mark          // of a beginning that nobody saw: it was there when recording began, at the event's time; optional
	Duration string        // the int column that says, with Ends, how many ns ago it began; absent if nobody saw it; optional
	Attempt  time.Duration // it can have been under way for so long before the event that tells that it began, or failed to
}

// Mark is the values of a text column that tell some events from others.
type Mark struct {
	Column string
	Values []string
}

// Has tells whether an event has the mark.
func (m Mark) Has(r Row) bool {
	i, ok := r.Batch.Type.Column(m.Column)
	if !ok {
		return false
	}
	text, present := r.String(i)
	return present && slices.Contains(m.Values, text)
}

// Ends names the columns that say between whom something passed, to find what
// events of another type say of the same two: the columns of each type in the
// same order. Such events are those of one netns, where both know it.
type Ends struct {
	Protocol            string
	Source, Destination [2]string // address and port
}

// Columns returns those of an event, or of one that went the other way.
func (e Ends) Columns(back bool) []string {
	from, to := e.Source, e.Destination
	if back {
		from, to = to, from
	}
	return []string{e.Protocol, from[0], from[1], to[0], to[1]}
}

// checkLife refuses declarations that name no columns of the right kind.
func (t *Type) checkLife() error {
	kinds := map[string]Kind{}
	if l := t.Life; l != nil {
		if l.Duration != "" {
			kinds[l.Duration] = KindInt
		}
		if l.Found.Column != "" {
			kinds[l.Found.Column] = KindString
		}
		kinds[l.ID], kinds[l.Begins.Column], kinds[l.Ends.Column] = KindID, KindString, KindString
	}
	if t.Ends != nil {
		for i, name := range t.Ends.Columns(false) {
			kinds[name] = []Kind{KindString, KindIP, KindInt, KindIP, KindInt}[i]
		}
	}
	for name, kind := range kinds {
		if i, ok := t.index[name]; !ok || t.Columns[i].Kind != kind {
			return fmt.Errorf("declare event type %s: %q is no column of kind %s, as its life or ends need it", t.Name, name, kind)
		}
	}
	return nil
}
