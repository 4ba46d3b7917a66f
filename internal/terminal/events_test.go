package terminal

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

var testType = event.MustType(event.Type{
	Name: "drop", Collection: "drops", Summary: "Drops.", Breakdown: "reason", Details: []string{"place", "size"},
	Columns: []event.Column{
		{Name: "reason", Kind: event.KindString, Description: "Why."},
		{Name: "place", Kind: event.KindString, Description: "Where."},
		{Name: "size", Kind: event.KindInt, Unit: "bytes", Description: "How much."},
	},
})

// A process may call itself what it wants: the terminal must not obey it, and what is
// no time must not end the program.
func TestHostileTexts(t *testing.T) {
	var page EventPage
	text := `{"events":[{"time":"2026-11-23T03:12:00Z","type":"drop","command":"\u001b[2J\u009bx\n","pid":7,"reason":"\u0007","place":"here","size":2048},
		{"time":"x","type":"unknown"},{}],"total":3}`
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		t.Fatal(err)
	}
	for _, fields := range [][]string{nil, {"time", "command", "reason", "size"}} {
		var out bytes.Buffer
		New(&out, time.UTC).Page([]*event.Type{testType}, &page, fields)
		if strings.ContainsAny(out.String(), "\x1b\x07\u009b") || !strings.Contains(out.String(), `\x1b[2J`) || !strings.Contains(out.String(), "2.0KiB") {
			t.Errorf("fields %v:\n%q", fields, out.String())
		}
	}
	var out bytes.Buffer
	live := New(&out, time.UTC).Live([]*event.Type{testType}, nil)
	for _, e := range page.Events {
		if err := live.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := live.Missed("\x1b[2J"); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%v: %q", err, out.String())
	}
}
