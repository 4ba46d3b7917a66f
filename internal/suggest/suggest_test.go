package suggest_test

import (
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/suggest"
)

func TestAmong(t *testing.T) {
	known := []string{"command", "pid", "EBPF_LEVEL"}
	for name, want := range map[string]string{
		"comand":                   " (did you mean command?)",
		"pit":                      " (did you mean pid?)",
		"ebpf_levl":                " (did you mean EBPF_LEVEL?)",
		"something":                " (known are command, pid, EBPF_LEVEL)",
		strings.Repeat("x", 1<<20): " (known are command, pid, EBPF_LEVEL)",
	} {
		if got := suggest.Among(name, known); got != want {
			t.Errorf("%.20s: %q, want %q", name, got, want)
		}
	}
	if got := suggest.Among("x", nil); got != " (there are none)" {
		t.Errorf("nothing known: %q", got)
	}
}
