package query

import (
	"errors"
	"fmt"
	"maps"

	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
)

// Filter wants one of Values, as the user gave them, in a column.
type Filter struct {
	Column string
	Values []string
}

// Filters must all match.
type Filters []Filter

// ParseFilters checks the wanted values of columns against the types that are
// asked for. At least one of the types must have each column, and each value
// must be possible for one of them. Errors are a *ParamError named as the column.
func ParseFilters(types []*event.Type, values map[string][]string) (Filters, error) {
	var filters Filters
	for _, column := range slices.Sorted(maps.Keys(values)) {
		if err := checkFilter(types, column, values[column]); err != nil {
			return nil, err
		}
		if len(values[column]) > 0 {
			filters = append(filters, Filter{Column: column, Values: values[column]})
		}
	}
	return filters, nil
}

func checkFilter(types []*event.Type, column string, values []string) error {
	var declared []event.Column
	for _, t := range types {
		if i, ok := t.Column(column); ok {
			declared = append(declared, t.Columns[i])
		}
	}
	if len(declared) == 0 {
		return &ParamError{Name: column, Reason: "is not a column of " + typeNames(types)}
	}
	if declared[0].Kind == event.KindTime {
		return &ParamError{Name: column, Reason: "is not filtered by value; use since and until"}
	}
	for _, text := range values {
		var reason error
		for _, c := range declared {
			if _, reason = parseWanted(c, text); reason == nil {
				break
			}
		}
		if reason != nil {
			return &ParamError{Name: column, Value: text, Reason: reason.Error()}
		}
	}
	return nil
}

func typeNames(types []*event.Type) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return strings.Join(names, " or ")
}

// wanted is one value that a filter lets through. Which fields are in use
// follows from the kind of the column.
type wanted struct {
	text   string       // KindString; the scope of a KindID
	number int64        // KindInt; the number of a KindID
	prefix netip.Prefix // KindIP
}

// parseWanted reads one value of a filter. The error is only the reason: the
// caller adds the name and value.
func parseWanted(c event.Column, text string) (w wanted, err error) {
	switch c.Kind {
	case event.KindInt:
		if w.number, err = strconv.ParseInt(text, 10, 64); err != nil {
			err = errors.New("is not a whole number")
		}
	case event.KindString:
		w.text = text
		if text == "" {
			err = fmt.Errorf("is empty")
		} else if len(c.Values) > 0 && !slices.Contains(c.Values, text) {
			err = fmt.Errorf("is not possible (want %s)", strings.Join(c.Values, ", "))
		}
	case event.KindIP:
		if w.prefix, err = parsePrefix(text); err != nil {
			err = fmt.Errorf("is not an IP address or a network such as 10.0.0.0/8")
		}
	case event.KindID:
		if w.text, w.number, err = event.ParseID(text); err != nil {
			err = fmt.Errorf("is not an id such as events show it (%s)", c.Example)
		}
	default:
		err = fmt.Errorf("cannot be filtered by")
	}
	return w, err
}

// parsePrefix reads an address or a network. v4-mapped ones become IPv4, as
// events hold them.
func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		ip, err := event.ParseIP(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		addr, _ := netip.AddrFromSlice([]byte(ip)) // 4 or 16 bytes
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), err
}
