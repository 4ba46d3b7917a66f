package query

import "fmt"

// ParamError says which part of a question is wrong and why, so that an API
// can name the field in its answer.
type ParamError struct {
	Name   string // the parameter: "since", "limit", the name of a column; empty where only the caller knows it
	Value  string // as it was given
	Reason string // what is wrong and what would be right: "is not a number"
}

func (e *ParamError) Error() string {
	switch {
	case e.Name == "":
		return fmt.Sprintf("%q %s", e.Value, e.Reason)
	case e.Value == "":
		return e.Name + " " + e.Reason
	}
	return fmt.Sprintf("%s %q %s", e.Name, e.Value, e.Reason)
}
