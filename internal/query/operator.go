package query

import (
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
)

// Op says what a filter asks of a column.
type Op string

// The operators. A value that an event does not have is not equal to any, nor
// less or greater: only NotEqual and Absent let such an event through.
const (
	Equal          Op = ""   // one of the values; a text may be given by its beginning: ng*
	NotEqual       Op = "!=" // none of the values: what Equal leaves
	Less           Op = "<"  // than every value, as the three that follow: numbers only
	LessOrEqual    Op = "<="
	Greater        Op = ">"
	GreaterOrEqual Op = ">="
	Present        Op = "present" // any value; takes none itself
	Absent         Op = "absent"  // no value; takes none itself
)

func (op Op) isRange() bool {
	switch op {
	case Less, LessOrEqual, Greater, GreaterOrEqual:
		return true
	}
	return false
}

// Operators returns those that a filter of a column of this kind takes, as they are
// written.
func Operators(k event.Kind) []string {
	if k == event.KindInt {
		return []string{"=", "!=", "<", "<=", ">", ">="}
	}
	return []string{"=", "!="}
}

// Presence are the parameters that take names of columns: of those that must
// have a value, and of those that must not.
var Presence = []string{string(Present), string(Absent)}

// SplitFilter takes a filter as a person writes it (command=ng*, state!=closed,
// duration_ns>=1s) apart into a key and a value as Params has them. Errors are a
// *ParamError without a name.
func SplitFilter(text string) (key, value string, err error) {
	key, value, _ = strings.Cut(text, "=")
	if e := parseExpression(key, value); e.column == "" || e.operand == "" || e.op == notOp {
		return "", "", &ParamError{Value: text, Reason: "is not a filter (want command=curl, command=ng*, command!=curl, 'duration_ns>=1s' or absent=pid)"}
	}
	return key, value, nil
}

// expression is a filter that is taken apart, with one value.
type expression struct {
	column  string
	op      Op
	operand string
}

// written are the operators as they stand in an expression, in the order in which
// they are looked for.
var written = []Op{NotEqual, LessOrEqual, GreaterOrEqual, Less, Greater, notOp, "="}

// notOp is what a "!" without "=" becomes: an operator that there is not.
const notOp Op = "!"

// parseExpression reads a key and a value, which are what stands before and
// behind the first "=". That may be a part of the operator (duration_ns>=1s is
// "duration_ns>" and "1s"), may be missing (duration_ns>1s is all key), or may be
// another one, where a client has escaped the first.
func parseExpression(key, value string) expression {
	at := strings.IndexAny(key, "!<>=")
	if at < 0 {
		return expression{key, Equal, value}
	}
	e := expression{column: key[:at]}
	for _, op := range written {
		if operand, ok := strings.CutPrefix(key[at:], string(op)); ok {
			e.op, e.operand = op, operand
			break
		}
	}
	switch {
	case e.operand == "":
		e.operand = value
		if len(e.op) == 1 && e.op != "=" {
			e.op += "="
		}
	case value != "":
		e.operand += "=" + value
	}
	if e.op == "=" {
		e.op = Equal
	}
	return e
}
