package query

import (
	"math"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tests := map[string]time.Time{ // zero for an error
		"now":                             now,
		"-90m":                            now.Add(-90 * time.Minute),
		"now-7d":                          now.AddDate(0, 0, -7),
		"now-1h30m":                       now.Add(-90 * time.Minute),
		"now+1w":                          now.AddDate(0, 0, 7),
		"-0":                              now,
		"2026-11-21T03:12:07.123456789Z":  time.Date(2026, 11, 21, 3, 12, 7, 123456789, time.UTC),
		"2026-11-21T03:12:07+02:00":       time.Date(2026, 11, 21, 1, 12, 7, 0, time.UTC),
		"2026-11-21t03:12:07z":            time.Date(2026, 11, 21, 3, 12, 7, 0, time.UTC),
		"1700000000":                      time.Unix(1700000000, 0),
		"1700000000.000000001":            time.Unix(1700000000, 1),
		"1700000000.25":                   time.Unix(1700000000, 250000000),
		"1700000000.1234567899":           time.Unix(1700000000, 123456789),
		"0":                               time.Unix(0, 0),
		"":                                {},
		"-":                               {},
		"-90":                             {},
		"-90x":                            {},
		"now90m":                          {},
		"nowhere":                         {},
		"yesterday":                       {},
		"2026-11-21":                      {},
		"2026-11-21T03:12:07 02:00":       {},
		"99999999999999999999":            {},
		"99999999999":                     {},
		"1e9":                             {},
		"now-200000d":                     {},
		"now-290y":                        {},
		"0001-01-01T00:00:00Z":            {},
		"9999-12-31T23:59:59Z":            {},
		"now-99999999999999999999999999w": {},
	}
	for text, want := range tests {
		got, err := ParseTime(text, now)
		if want.IsZero() {
			wantParam(t, err, "")
			continue
		}
		if err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("ParseTime(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	tests := map[string]time.Duration{ // negative for an error
		"0":                      0,
		"90s":                    90 * time.Second,
		"1d12h":                  36 * time.Hour,
		"7d":                     7 * 24 * time.Hour,
		"2w":                     14 * 24 * time.Hour,
		"1.5d":                   36 * time.Hour,
		"0.1s":                   100 * time.Millisecond,
		"1us2ns":                 1002,
		"106751d":                106751 * 24 * time.Hour,
		"106752d":                -1,
		"106751d24h":             -1,
		"9223372036854775808ns":  -1,
		"90":                     -1,
		"":                       -1,
		"-1s":                    -1,
		"1 s":                    -1,
		"1.s":                    -1,
		"s":                      -1,
		"1y":                     -1,
		"1w9999999999999999999h": -1,
	}
	for text, want := range tests {
		got, err := ParseDuration(text)
		if want < 0 {
			wantParam(t, err, "")
			continue
		}
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"now-1h30m", "1700000000.25", "2026-11-21T03:12:07+02:00", "-90m", "1.5d"} {
		f.Add(seed)
	}
	now := time.Unix(1700000000, 0)
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := ParseTime(text, now); err == nil && (got.Before(firstTime) || got.After(lastTime)) {
			t.Errorf("ParseTime(%q) = %v, which 64 bits do not hold", text, got)
		}
		if d, err := ParseDuration(text); err == nil && d < 0 {
			t.Errorf("ParseDuration(%q) = %v", text, d)
		}
	})
}

func TestBounds(t *testing.T) {
	open, until := Window{}.Bounds()
	if open != math.MinInt64 || until != math.MaxInt64 {
		t.Errorf("open window is %d to %d", open, until)
	}
	far := Window{Since: time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)}
	if since, until := far.Bounds(); since != math.MinInt64 || until != math.MaxInt64 {
		t.Errorf("far window is %d to %d", since, until)
	}
	if since, until := (Window{Since: time.Unix(1, 2), Until: time.Unix(0, 0)}).Bounds(); since != 1e9+2 || until != 0 {
		t.Errorf("window is %d to %d", since, until)
	}
}
