package query

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// Position is a place in the events as they arrive: behind one of them.
type Position struct {
	Number int64 // of that event, counted from 1 since the program started; 0: before the first
	Time   int64 // when it arrived, in nanoseconds since the Unix epoch
}

// String returns the position as text that ParsePosition reads.
func (p Position) String() string { return fmt.Sprintf("%d-%d", p.Number, p.Time) }

// ParsePosition reads the text of a position. Errors are a *ParamError without a name.
func ParsePosition(text string) (p Position, err error) {
	number, at, _ := strings.Cut(text, "-")
	for digits, value := range map[string]*int64{number: &p.Number, at: &p.Time} {
		if *value, err = strconv.ParseInt(digits, 10, 64); err != nil || *value < 0 {
			return Position{}, &ParamError{Value: text, Reason: "is not the id of an event of this stream"}
		}
	}
	return p, nil
}

// Arrival is what came behind a position: either events, or that some were missed.
type Arrival struct {
	Batch  *event.Batch // nil: see Missed
	Row    int          // the first of the batch that came behind the position
	First  Position     // of that row; those of the next have the next numbers and the same time
	Missed *Missed
	Last   Position // where to go on: that of the last row, or of the last event that was missed
}

// Missed says that events came which are not held any more.
type Missed struct {
	Count int64     `json:"count,omitempty"` // Events of all types, whatever is asked for; left out where it is not known: they came to an earlier run of the program, or while it did not run.
	Since time.Time `json:"since,omitzero"`  // When the last event before them arrived, if it is known.
	Until time.Time `json:"until"`           // When the last of them arrived, or the program started.
}
