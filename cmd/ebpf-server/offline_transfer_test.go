package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store"
)

// connections are n lines of events from some time on, three a second; every
// tenth is a dropped packet.
func connections(from time.Time, first, n int) string {
	var lines strings.Builder
	for i := first; i < first+n; i++ {
		at := from.Add(time.Duration(i-first) * time.Second / 3).Format(time.RFC3339Nano)
		switch {
		case i%10 == 0:
			fmt.Fprintf(&lines, `{"time":%q,"type":"packet_drop","drop_reason":"NO_SOCKET","source_ip":"2001:db8::%x","length":%d}`, at, 1+i%4096, i)
		case i%2 == 0:
			fmt.Fprintf(&lines, `{"time":%q,"type":"connection","pid":%d,"command":"worker-%d","connection_id":"boot-%x","state":"established","destination_ip":"10.1.%d.%d"}`, at, i%300, i%7, i, i%5, i%250)
		default:
			fmt.Fprintf(&lines, `{"time":%q,"type":"connection","connection_id":"boot-%x","state":"closed","destination_ip":"2001:db8::%x","bytes_sent":%d}`, at, i, 1+i%500, int64(i)<<30)
		}
		lines.WriteByte('\n')
	}
	return lines.String()
}

// A file with blocks, rows and late events is exported as Parquet and as NDJSON;
// both become the same file again.
func TestTransfer(t *testing.T) {
	path := func(dir string) func(string) string {
		return func(name string) string { return filepath.Join(dir, name) }
	}(t.TempDir())
	begin := time.Date(2026, 1, 5, 7, 0, 0, 0, time.UTC)
	const n = 60_000 // 10,800 an hour
	first, late := connections(begin, 0, n), connections(begin.Add(100*time.Minute), n, 500)
	for name, text := range map[string]string{"first.ndjson": first, "late.ndjson": late} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db := path("events.db")
	verb(t, "import", "--db", db, path("first.ndjson"))
	verb(t, "storage", "compact", "--db", db) // seals
	verb(t, "import", "--db", db, path("late.ndjson"))
	if got := verb(t, "export", "--db", db); !slices.Equal(sortedLines(got), sortedLines(first+late)) {
		t.Error("what is exported is not what was imported")
	}
	for i, question := range [][]string{
		{},
		{"--type", "connection"},
		{"--since", "2026-01-05T07:20:00Z", "--until", "2026-01-05T10:10:00Z"},
		{"--destination_ip", "10.1.2.0/24", "--until", "2026-01-05T11:00:00Z"},
		{"--until", "2026-01-05T07:00:00Z"},
	} {
		want := sortedLines(verb(t, append([]string{"export", "--db", db}, question...)...))
		for _, format := range []string{"parquet", "ndjson"} {
			file, other := path(fmt.Sprint(i, ".", format)), path(fmt.Sprint(format, i, ".db"))
			verb(t, append([]string{"export", "--db", db, file}, question...)...)
			verb(t, "import", "--db", other, file)
			verb(t, "check", "--db", other)
			if got := sortedLines(verb(t, "export", "--db", other)); !slices.Equal(got, want) {
				t.Errorf("%v, %s: %d events, want %d, or others", question, format, len(got), len(want))
			}
		}
		csv := verb(t, append([]string{"export", "--db", db, "--output", "csv"}, question...)...)
		if got := strings.Count(csv, "\n") - 1; got != len(slices.DeleteFunc(want, func(line string) bool { return line == "" })) {
			t.Errorf("%v: CSV of %d events, want %d", question, got, len(want))
		}
	}
}

// A file may come from a program with another monitor: its events are exported too.
func TestExportOfAnotherType(t *testing.T) {
	other := event.MustType(event.Type{Name: "dns", Collection: "dns", Breakdown: "answer", Summary: "Questions.",
		Columns: []event.Column{{Name: "answer", Kind: event.KindString, Description: "What came back.", Example: "NXDOMAIN"}}})
	db := filepath.Join(t.TempDir(), "events.db")
	s, err := store.Open(store.Options{Path: db, Types: []*event.Type{other}})
	if err != nil {
		t.Fatal(err)
	}
	at, _ := other.Column("answer")
	b := event.NewBatch(other, 1)
	b.Append(time.Date(2026, 1, 5, 7, 0, 0, 0, time.UTC).UnixNano())
	b.SetString(at, "NXDOMAIN")
	s.Append(b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	const want = `{"time":"2026-01-05T07:00:00Z","type":"dns","answer":"NXDOMAIN"}`
	for _, question := range [][]string{{}, {"--type", "dns"}} {
		got := verb(t, append([]string{"export", "--db", db}, question...)...)
		if strings.TrimSpace(got) != want {
			t.Errorf("%v: exported %q, want %s", question, got, want)
		}
	}
}

// Events of a damaged block are left out of an export, which says so.
func TestExportOfADamagedFile(t *testing.T) {
	dir := t.TempDir()
	input, db, out := filepath.Join(dir, "input.ndjson"), filepath.Join(dir, "events.db"), filepath.Join(dir, "out.parquet")
	if err := os.WriteFile(input, []byte(connections(time.Date(2026, 1, 5, 7, 0, 0, 0, time.UTC), 0, 50_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	verb(t, "import", "--db", db, input)
	verb(t, "storage", "compact", "--db", db)
	data, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Index(data, []byte("PAR1"))
	if block < 0 {
		t.Fatal("there is no block")
	}
	data[block+1000] ^= 4
	if err := os.WriteFile(db, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--output", "ndjson"}, {out}} {
		command := exec.Command(filepath.Join(built, "ebpf-server"), append([]string{"export", "--db", db}, args...)...)
		var problems bytes.Buffer
		command.Stderr = &problems
		if err := command.Run(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, &problems)
		}
		if text := problems.String(); !strings.Contains(text, " events from 2026-01-05T07:") || !strings.Contains(text, "damaged") {
			t.Errorf("%v: it says %q", args, text)
		}
	}
	again := filepath.Join(dir, "again.db")
	verb(t, "import", "--db", again, out)
	if n := strings.Count(verb(t, "export", "--db", again), "\n"); n == 0 || n >= 50_000 {
		t.Errorf("%d events are exported", n)
	}
}
