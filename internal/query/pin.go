package query

import "errors"

// ErrNoPin says that there is no pin of the id that was named.
var ErrNoPin = errors.New("there is no such pin")
