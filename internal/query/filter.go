package query

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/suggest"
)

// Filter asks something of a column.
type Filter struct {
	Column string
	Values []string // as the user gave them
	Op     Op
}

// Filters must all match.
type Filters []Filter

// ParseFilters checks what is asked of columns against the types that are
// asked for. The keys are those of Params: a column, with an operator or without.
// At least one of the types must have each column, and each value must be
// possible for one of them. Errors are a *ParamError named as the column.
func ParseFilters(types []*event.Type, values map[string][]string) (Filters, error) {
	var filters Filters
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[key] {
			var err error
			if slices.Contains(Presence, key) {
				filters, err = filters.addPresence(types, key, value)
			} else {
				filters, err = filters.add(types, parseExpression(key, value))
			}
			if err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(filters, func(a, b Filter) int { return cmp.Compare(a.Column, b.Column) })
	return filters, nil
}

// add puts a value beside others of the same column and operator.
func (f Filters) add(types []*event.Type, e expression) (Filters, error) {
	if err := checkFilter(types, e); err != nil {
		return nil, err
	}
	for i := range f {
		if f[i].Column == e.column && f[i].Op == e.op {
			f[i].Values = append(f[i].Values, e.operand)
			return f, nil
		}
	}
	return append(f, Filter{Column: e.column, Op: e.op, Values: []string{e.operand}}), nil
}

// addPresence takes names with commas between them.
func (f Filters) addPresence(types []*event.Type, param, names string) (Filters, error) {
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		declared := declarations(types, name)
		switch {
		case name == "":
			return nil, &ParamError{Name: param, Reason: "names no column"}
		case len(declared) == 0:
			return nil, &ParamError{Name: param, Value: name, Reason: noColumn(types, name)}
		case declared[0].Kind == event.KindTime:
			return nil, &ParamError{Name: param, Value: name, Reason: "is in every event"}
		}
		f = append(f, Filter{Column: name, Op: Op(param)})
	}
	return f, nil
}

// declarations are those of a column, or a derived field, in each of the types that has it.
func declarations(types []*event.Type, column string) (all []event.Column) {
	for _, t := range types {
		if i, ok := t.Field(column); ok {
			all = append(all, t.Shown()[i])
		}
	}
	return all
}

func checkFilter(types []*event.Type, e expression) error {
	declared := declarations(types, e.column)
	switch {
	case len(declared) == 0:
		return &ParamError{Name: e.column, Reason: noColumn(types, e.column)}
	case declared[0].Kind == event.KindTime:
		return &ParamError{Name: e.column, Reason: "is not filtered by value; use since and until"}
	case e.op == notOp:
		return &ParamError{Name: e.column, Reason: "is followed by an operator that there is not (want =, !=, <, <=, > or >=)"}
	case e.operand == "":
		return &ParamError{Name: e.column, Reason: "is empty (absent=" + e.column + " asks for events that have no value there)"}
	}
	any := declared[0] // with the values that the column may have in one of the types
	any.Values = nil
	for _, c := range declared {
		if len(c.Values) == 0 {
			any.Values = nil
			break
		}
		for _, v := range c.Values {
			if !slices.Contains(any.Values, v) {
				any.Values = append(any.Values, v)
			}
		}
	}
	if _, err := parseWanted(any, e.op, e.operand); err != nil {
		return &ParamError{Name: e.column, Value: e.operand, Reason: err.Error()}
	}
	return nil
}

// noColumn is the reason why a name is refused, with the one that was probably meant.
func noColumn(types []*event.Type, name string) string {
	return "is not a column of " + typeNames(types) + suggest.Like(name, FilterNames(types))
}

func typeNames(types []*event.Type) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return strings.Join(names, " or ")
}
