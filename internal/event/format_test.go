package event_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestParseIP(t *testing.T) {
	tests := map[string]string{ // text to raw bytes, empty for an error
		"10.0.0.1":        "\x0a\x00\x00\x01",
		"::ffff:10.0.0.1": "\x0a\x00\x00\x01",
		"::1":             strings.Repeat("\x00", 15) + "\x01",
		"fe80::1%eth0":    "",
		"10.0.0":          "",
		"":                "",
	}
	for text, want := range tests {
		got, err := event.ParseIP(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseIP(%q) = %x, %v", text, got, err)
		}
	}
}

func TestParseID(t *testing.T) {
	tests := []struct {
		text, scope string
		n           int64
		ok          bool
	}{
		{"boot-ff", "boot", 255, true},
		{"a-b-0", "a-b", 0, true},
		{"boot-ffffffffffffffff", "boot", -1, true},
		{"boot-", "", 0, false},
		{"-1", "", 0, false},
		{"boot", "", 0, false},
		{"boot-xyz", "", 0, false},
		{"boot-1ffffffffffffffff", "", 0, false},
		{"", "", 0, false},
	}
	for _, test := range tests {
		scope, n, err := event.ParseID(test.text)
		if scope != test.scope || n != test.n || (err == nil) != test.ok {
			t.Errorf("ParseID(%q) = %q, %d, %v", test.text, scope, n, err)
		}
	}
}

// An id or address that is accepted must be the same after printing.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"boot-ff", "10.0.0.1", "::ffff:1.2.3.4", "fe80::1", "a-b-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := event.NewBatch(testType, 1)
		b.Append(0)
		row := event.Row{Batch: b}
		if scope, n, err := event.ParseID(text); err == nil {
			b.SetID(colSocket, scope, n)
			printed, _ := row.AppendText(nil, colSocket)
			if s, m, err := event.ParseID(string(printed)); s != scope || m != n || err != nil {
				t.Errorf("%q prints as %q, which is %q, %d, %v", text, printed, s, m, err)
			}
		}
		if raw, err := event.ParseIP(text); err == nil {
			ip, _ := netip.AddrFromSlice([]byte(raw))
			b.SetIP(colAddress, ip)
			printed, _ := row.AppendText(nil, colAddress)
			if again, err := event.ParseIP(string(printed)); again != raw || err != nil {
				t.Errorf("%q prints as %q", text, printed)
			}
		}
	})
}

func TestAppendFields(t *testing.T) {
	b := event.NewBatch(testType, 2)
	full(b, 1, "open")
	sparse(b, 2)
	for want, names := range map[string][]string{
		`{"command":"curl","time":"1970-01-01T00:00:00.000000001Z","type":"test","bytes":10}{"time":"1970-01-01T00:00:00.000000002Z","type":"test"}`: {"command", "time", "type", "bytes"},
		`{"address":"10.0.0.1","socket":"boot-ffffffffffffffff"}{}`:                                                                                  {"address", "colour", "socket"},
		`{}{}`: {},
	} {
		columns := testType.Positions(names...)
		got := string(event.Row{Batch: b}.AppendFields(nil, columns)) + string(event.Row{Batch: b, Index: 1}.AppendFields(nil, columns))
		if got != want {
			t.Errorf("%v: got %s, want %s", names, got, want)
		}
	}
}
