package query

import (
	"strconv"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// At asks what was open at a moment, of a type with a life.
type At struct {
	Type      *event.Type
	Time      time.Time // zero: now
	Filters   Filters   // of the events with which they began
	Limit     int       // at most so many of them
	Ascending bool      // those that began first come first; otherwise last
}

// Open is one that was open: the event with which it began, or was found.
type Open struct {
	event.Row
	Age      time.Duration // how long it had been open
	AgeKnown bool
}

// Opened says how an answer to At ended.
type Opened struct {
	Time     time.Time // that was asked for
	AsOf     time.Time // what the answer is true for: where nothing was recorded at Time, the end of the recording before
	Total    int       // how many were open
	Coverage Coverage  // of the time from the beginning of that recording on
}

// Validate reports what is wrong with a query, as a *ParamError.
func (q At) Validate() error {
	if q.Limit <= 0 {
		return &ParamError{Name: "limit", Value: strconv.Itoa(q.Limit), Reason: "is not positive"}
	}
	return nil
}
