package query

import (
	"fmt"
	"time"
)

// Unfinished is the error of a question whose context ended before it was done.
type Unfinished struct {
	At  time.Time // how far it had come; what lies before, in its order, was looked at
	Err error     // of the context
}

func (e *Unfinished) Error() string {
	return fmt.Sprintf("stopped at %s: %v", e.At.UTC().Format(time.RFC3339), e.Err)
}

func (e *Unfinished) Unwrap() error { return e.Err }
