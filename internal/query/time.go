package query

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	unixForm     = regexp.MustCompile(`^\d+(\.\d+)?$`)
	durationForm = regexp.MustCompile(`^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d|w))+$`)
	durationPart = regexp.MustCompile(`([\d.]+)([^\d.]+)`)
)

// Times are held as nanoseconds since 1970 in 64 bits, which reach this far.
var (
	firstTime = time.Unix(0, math.MinInt64)
	lastTime  = time.Unix(0, math.MaxInt64)
)

// ParseTime reads a point in time: RFC 3339, Unix seconds with or without a
// fraction, "now", or relative to it ("-90m", "now-7d", "now-1h30m").
// Errors are a *ParamError without a name.
func ParseTime(text string, now time.Time) (time.Time, error) {
	t, err := parseTime(text, now)
	if err != nil {
		return time.Time{}, err
	}
	if t.Before(firstTime) || t.After(lastTime) {
		return time.Time{}, &ParamError{Value: text, Reason: "is too far away (the years 1678 to 2262 can be asked for)"}
	}
	return t.UTC(), nil
}

func parseTime(text string, now time.Time) (time.Time, error) {
	if unixForm.MatchString(text) {
		return parseUnix(text)
	}
	if offset, ok := strings.CutPrefix(text, "now"); ok || strings.HasPrefix(text, "-") {
		if offset == "" {
			return now, nil
		}
		d, err := ParseDuration(offset[1:])
		switch {
		case err != nil:
			return time.Time{}, &ParamError{Value: text, Reason: "is not a time relative to now (want now, -90m, now-7d or now-1h30m)"}
		case offset[0] == '-':
			return now.Add(-d), nil
		case offset[0] == '+':
			return now.Add(d), nil
		}
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil {
		reason := "is not a time (want RFC 3339 such as 2026-11-21T03:12:00Z, Unix seconds, now, or relative such as -90m)"
		if strings.Contains(text, " ") {
			reason += "; in a URL a + is written %2B"
		}
		return time.Time{}, &ParamError{Value: text, Reason: reason}
	}
	return t, nil
}

// parseUnix reads the fraction as digits: a float would lose nanoseconds.
func parseUnix(text string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, &ParamError{Value: text, Reason: "is too large for Unix seconds"}
	}
	digits := (fraction + "000000000")[:9]
	nanoseconds, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return time.Time{}, &ParamError{Value: text, Reason: "is not Unix seconds"}
	}
	return time.Unix(seconds, nanoseconds), nil
}

// ParseDuration reads a span of time such as "90m", "1d12h" or "7d", in units
// ns, us, ms, s, m, h, d (24 h) and w. Errors are a *ParamError without a name.
func ParseDuration(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	if !durationForm.MatchString(text) {
		return 0, &ParamError{Value: text, Reason: "is not a duration (want 90s, 10m, 1h30m or 7d)"}
	}
	var total time.Duration
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		number, unit, times := part[1], part[2], time.Duration(1)
		switch unit {
		case "d":
			unit, times = "h", 24
		case "w":
			unit, times = "h", 7*24
		}
		d, err := time.ParseDuration(number + unit)
		if err != nil || d > math.MaxInt64/times || total > math.MaxInt64-d*times {
			return 0, &ParamError{Value: text, Reason: "is too long (at most 292 years)"}
		}
		total += d * times
	}
	return total, nil
}

// Validate reports a window that ends before it begins, as a *ParamError.
func (w Window) Validate() error {
	if !w.Since.IsZero() && !w.Until.IsZero() && w.Until.Before(w.Since) {
		return &ParamError{Name: "until", Value: w.Until.UTC().Format(time.RFC3339Nano), Reason: "is before since"}
	}
	return nil
}

// Bounds returns the window in nanoseconds since the Unix epoch, open ends as
// far as the numbers reach.
func (w Window) Bounds() (since, until int64) {
	since, until = math.MinInt64, math.MaxInt64
	if !w.Since.IsZero() {
		since = clampedNano(w.Since)
	}
	if !w.Until.IsZero() {
		until = clampedNano(w.Until)
	}
	return since, until
}

func clampedNano(t time.Time) int64 {
	switch {
	case t.Before(firstTime):
		return math.MinInt64
	case t.After(lastTime):
		return math.MaxInt64
	}
	return t.UnixNano()
}
