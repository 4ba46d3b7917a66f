package config

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "5s": 5 * time.Second, "100ms": 100 * time.Millisecond, "10us": 10 * time.Microsecond,
		"10µs": 10 * time.Microsecond, "7ns": 7, "7d": 7 * day, "2w": 14 * day, "1d12h": 36 * time.Hour,
		"1w1d1h1m1s": 8*day + time.Hour + time.Minute + time.Second, "1.5h": 90 * time.Minute, "0.5d": 12 * time.Hour,
		"0.1s": 100 * time.Millisecond, "1.1d": 26*time.Hour + 24*time.Minute, "106751d": 106751 * day,
	} {
		got, err := parseDuration(text)
		if err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is not a duration", "d": "is not a duration", "5 s": "is not a duration", "5y": "is not a duration", "5S": "is not a duration",
		"1e3s": "is not a duration", "1..5s": "is not a duration", ".5s": "is not a duration", "5s5": "is not a duration", "٣s": "is not a duration",
		"5": "has no unit (want 5s, 5m, 5h or 5d)", "00": "has no unit", "1.5": "has no unit",
		"-5s": "is negative", "-5": "is negative", "200000d": "is too long", strings.Repeat("9", 400) + "d": "is too long",
	} {
		got, err := parseDuration(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseDuration(%q) = %v, %v; want an error that says %q", text, got, err, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "0B": 0, "512B": 512, "1KB": 1000, "1MB": 1e6, "3GB": 3e9, "1TB": 1e12, "1KiB": 1 << 10, "500MiB": 500 << 20,
		"2GiB": 2 << 30, "1TiB": 1 << 40, "1.5GiB": 3 << 29, "0.1MB": 100_000, "10 GB": 10e9, "8388607TiB": 8388607 << 40,
	} {
		got, err := parseSize(text)
		if err != nil || got != want {
			t.Errorf("parseSize(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is not a size", "MB": "is not a size", "5 bananas": "is not a size", "5mb": "is not a size", "5M": "is not a size", "5kB": "is not a size",
		"5BiB": "is not a size", "1MB2KB": "is not a size", "1  GB": "is not a size",
		"500": "has no unit (want 500B, 500MB or 500MiB)", "-1GB": "is negative", "8388608TiB": "is too large", "99999999TiB": "is too large",
	} {
		got, err := parseSize(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseSize(%q) = %v, %v; want an error that says %q", text, got, err, want)
		}
	}
}
