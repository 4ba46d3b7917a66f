package store

import (
	"math"
	"time"
)

// startTime is how long a program may take from its first event to the note
// that it records; it tells of what is open in between.
const startTime = time.Minute

// recorded is a time in which a type was recorded without a break. When one
// begins, everything that is open is told again.
type recorded struct {
	span         // until is its last moment that is known
	after  int64 // its events come later than that: what is open may be told before from
	bootID string
}

// recordings returns those of a type, in order.
func (v *view) recordings(typeName string) (all []recorded, err error) {
	runs, err := v.runs()
	after := int64(math.MinInt64)
	for _, r := range runs {
		end := min(r.end(r == v.present), v.now.UnixNano())
		for _, of := range r.Recorded {
			if of.Type != typeName {
				continue
			}
			until := end
			if !of.Until.IsZero() {
				until = of.Until.UnixNano()
			}
			from := of.Since.UnixNano()
			all = append(all, recorded{span{from, until}, max(after, from-startTime.Nanoseconds()), r.BootID})
			after = until
		}
		// Not the end of what was recorded: while a program stops, it still tells
		// of some events.
		after = end
	}
	return all, err
}

// recordingAt returns the last recording that had begun at a time, its end cut to
// that time. Where there is none, events were imported, and all of them are one.
func (v *view) recordingAt(typeName string, at int64) (recorded, error) {
	found := recorded{span{math.MinInt64, min(at, v.now.UnixNano())}, math.MinInt64, ""}
	all, err := v.recordings(typeName)
	for _, r := range all {
		if r.from <= at {
			r.until = min(r.until, at)
			found = r
		}
	}
	return found, err
}

// recordingOf returns the recording that an event of some time is of. Where there
// is none, it was imported.
func (v *view) recordingOf(typeName string, at int64) (recorded, error) {
	found := recorded{span: allTime}
	all, err := v.recordings(typeName)
	for _, r := range all {
		if r.after < at {
			found = r
		}
	}
	return found, err
}

// bootBegan returns the time after which a boot was recorded: an earlier event
// cannot have an id of it.
func (v *view) bootBegan(typeName, bootID string) (int64, error) {
	all, err := v.recordings(typeName)
	for _, r := range all {
		if r.bootID == bootID {
			return r.after, err
		}
	}
	return math.MinInt64, err
}
