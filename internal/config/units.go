package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"
	"time"
)

var (
	durationForm = regexp.MustCompile(`^(?:(?:\d+(?:\.\d+)?)(?:ns|us|µs|ms|s|m|h|d|w))+$`)
	durationPart = regexp.MustCompile(`([\d.]+)([^\d.]+)`)
	sizeForm     = regexp.MustCompile(`^(\d+(?:\.\d+)?) ?([KMGT]i?B|B)$`)
	bareNumber   = regexp.MustCompile(`^[+-]?\d+(?:\.\d+)?$`)
)

var durationUnits = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

var sizeUnits = map[string]int64{
	"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// parseDuration reads what time.ParseDuration does, but nothing negative, and
// days (of 24 hours) and weeks beside it.
func parseDuration(text string) (time.Duration, error) {
	switch {
	case text == "0":
		return 0, nil
	case strings.HasPrefix(text, "-"):
		return 0, fmt.Errorf("%q is negative (want 5s, 10m, 12h or 7d)", text)
	case bareNumber.MatchString(text):
		return 0, fmt.Errorf("%q has no unit (want %ss, %sm, %sh or %sd)", text, text, text, text, text)
	case !durationForm.MatchString(text):
		return 0, fmt.Errorf("%q is not a duration (want 5s, 10m, 12h or 7d)", text)
	}
	total := new(big.Rat)
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		total.Add(total, multiply(part[1], int64(durationUnits[part[2]])))
	}
	ns, ok := wholeNumber(total)
	if !ok {
		return 0, fmt.Errorf("%q is too long (at most 292 years; 0 means no limit)", text)
	}
	return time.Duration(ns), nil
}

// parseSize reads a number of bytes with its unit.
func parseSize(text string) (int64, error) {
	parts := sizeForm.FindStringSubmatch(text)
	switch {
	case text == "0":
		return 0, nil
	case strings.HasPrefix(text, "-"):
		return 0, fmt.Errorf("%q is negative (want 500MB, 512MiB or 2GiB)", text)
	case bareNumber.MatchString(text):
		return 0, fmt.Errorf("%q has no unit (want %sB, %sMB or %sMiB)", text, text, text, text)
	case parts == nil:
		return 0, fmt.Errorf("%q is not a size (want 500MB, 512MiB or 2GiB)", text)
	}
	size, ok := wholeNumber(multiply(parts[1], sizeUnits[parts[2]]))
	if !ok {
		return 0, fmt.Errorf("%q is too large (0 means no limit)", text)
	}
	return size, nil
}

// multiply is exact, so that 0.1s is 100 ms and not a little less.
func multiply(number string, unit int64) *big.Rat {
	product, _ := new(big.Rat).SetString(number) // the forms above allow nothing that fails
	return product.Mul(product, new(big.Rat).SetInt64(unit))
}

// wholeNumber cuts off the fraction.
func wholeNumber(r *big.Rat) (int64, bool) {
	whole := new(big.Int).Quo(r.Num(), r.Denom())
	return whole.Int64(), whole.Cmp(big.NewInt(math.MaxInt64)) <= 0
}
