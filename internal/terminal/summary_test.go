package terminal

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What was asked for is shown before what is always told, and what does not fit is
// not left out in silence.
func TestNarrowSummary(t *testing.T) {
	text := `{"since":"2026-11-23T03:00:00Z","until":"2026-11-23T04:00:00Z","count":3,
		"counts":{"a_rather_long_reason":1,"another_rather_long_reason":2},"sums":{"size":9000},
		"stats":{"size":{"count":3,"min":1000,"max":6000,"avg":3000.5,"p50":2000,"p95":6000,"p99":6000}},"stats_error":0.008}`
	for width, fits := range map[int]bool{80: false, 0: true} {
		var r Summary
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		s := New(&out, time.UTC)
		s.width = width
		s.Summary(testType, &r, nil)
		shown := out.String()
		for _, want := range []string{"min to max are of size", "p99 ", "max ", "5.9KiB"} {
			if !strings.Contains(shown, want) {
				t.Errorf("width %d lacks %q:\n%s", width, want, shown)
			}
		}
		if strings.Contains(shown, "another_rather_long_reason") != fits || strings.Contains(shown, "--output json") == fits {
			t.Errorf("width %d:\n%s", width, shown)
		}
	}
}
