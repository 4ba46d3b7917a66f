package query

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/srodi/ebpf-server/internal/event"
)

// wanted is one value of a filter. Which fields are in use follows from the kind
// of the column.
type wanted struct {
	text    string       // KindString; the scope of a KindID
	begins  bool         // the text is only the beginning of those that are wanted
	number  int64        // KindInt; the number of a KindID
	network netip.Prefix // KindIP
}

// errNoText: no event has such a text. A command may hold any byte but NUL; what is not
// UTF-8 is stored and shown as U+FFFD.
var errNoText = errors.New("is not a text: it has a NUL, or bytes that are not UTF-8")

// parseWanted reads one value of a filter. The error is only the reason: the
// caller adds the name and value.
func parseWanted(c event.Column, op Op, text string) (w wanted, err error) {
	if op.isRange() && c.Kind != event.KindInt {
		return w, errors.New("cannot be compared: only numbers are less or greater than others")
	}
	if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		return w, errNoText
	}
	switch c.Kind {
	case event.KindInt:
		w.number, err = parseNumber(c.Unit, text)
		if err == nil && c.Most > 0 && !op.isRange() && (w.number < 0 || w.number > c.Most) {
			err = fmt.Errorf("is not possible (want 0 to %d)", c.Most)
		}
	case event.KindString:
		return parseText(c, text)
	case event.KindIP:
		if w.network, err = parseNetwork(text); err != nil {
			err = errors.New("is not an IP address or a network such as 10.0.0.0/8")
		}
	case event.KindID:
		if w.text, w.number, err = event.ParseID(text); err != nil {
			err = fmt.Errorf("is not an id such as events show it (%s)", c.Example)
		}
	default:
		err = errors.New("cannot be filtered by")
	}
	return w, err
}

// parseText takes a star at the end for any end; one that is meant stands behind
// a backslash.
func parseText(c event.Column, text string) (w wanted, err error) {
	if literal, ok := strings.CutSuffix(text, `\*`); ok {
		w.text = literal + "*"
	} else {
		w.text, w.begins = strings.CutSuffix(text, "*")
	}
	switch {
	case text == "":
		return w, errors.New("is empty")
	case len(c.Values) > 0 && !slices.ContainsFunc(c.Values, w.is):
		return w, fmt.Errorf("is not possible (want %s)", strings.Join(c.Values, ", "))
	case c.Form != "" && !w.begins && !regexp.MustCompile(`^(?:`+c.Form+`)$`).MatchString(w.text):
		return w, fmt.Errorf("is not possible (want one like %s)", c.Example)
	}
	return w, nil
}

// is tells whether a text is wanted.
func (w wanted) is(text string) bool {
	return text == w.text || w.begins && strings.HasPrefix(text, w.text)
}

// parseNumber reads a whole number, or what it is in people's units.
func parseNumber(unit, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n, nil
	}
	switch unit {
	case "ns":
		return parseSpan(text, time.Nanosecond)
	case "us":
		return parseSpan(text, time.Microsecond)
	case "bytes":
		return parseSize(text)
	}
	return 0, errors.New("is not a whole number that fits into 64 bits")
}

var (
	sizeForm  = regexp.MustCompile(`^(\d+(?:\.\d+)?) ?([kKMGT]i?B|B)$`)
	sizeUnits = map[string]float64{
		"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"kiB": 1 << 10, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}
)

// parseSize rounds to a whole byte.
func parseSize(text string) (int64, error) {
	if parts := sizeForm.FindStringSubmatch(text); parts != nil {
		n, err := strconv.ParseFloat(parts[1], 64)
		if size := math.Round(n * sizeUnits[parts[2]]); err == nil && size < math.MaxInt64 {
			return int64(size), nil
		}
	}
	return 0, errors.New("is not a number of bytes (want 4096, 64kB, 1MiB or 2GiB)")
}

func parseSpan(text string, unit time.Duration) (int64, error) {
	d, err := ParseDuration(text)
	if err != nil || d%unit != 0 {
		units := map[time.Duration]string{time.Nanosecond: "nanoseconds", time.Microsecond: "microseconds"}
		return 0, fmt.Errorf("is not a time span (want 250ms, 1s or 5m, or a whole number of %s)", units[unit])
	}
	return int64(d / unit), nil
}

// parseNetwork reads an address or a network. v4-mapped ones become IPv4, as
// events hold them.
func parseNetwork(text string) (netip.Prefix, error) {
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
