package main_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// verb runs a verb of the binary and returns what it prints.
func verb(t testing.TB, args ...string) string {
	t.Helper()
	out, err := try(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func try(args ...string) (string, error) {
	var out, problems bytes.Buffer
	command := exec.Command(filepath.Join(built, "ebpf-server"), args...)
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	if err != nil {
		return problems.String(), err
	}
	return out.String(), nil
}

func sortedLines(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return lines
}

// A snapshot of the running server answers as the server does; what is exported
// from it and imported again is the same.
func TestOffline(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	s := start(t, filepath.Join(built, "ebpf-server"), path("events.db"))
	ns := bpftest.NewNetNS(t, "offline")
	const n = 300
	traffic(t, ns, n)
	eventually(t, func() error {
		if got := s.summary("connections", in(ns)).Count; got != eventsOf(n) {
			return fmt.Errorf("%d events, want %d", got, eventsOf(n))
		}
		return nil
	})
	verb(t, "snapshot", "--server", s.url, path("copy.db"))
	verb(t, "check", "--db", path("copy.db"))
	window := []string{"--netns", ns.Inode, "--since", ns.Made.Format("2006-01-02T15:04:05.999999999Z07:00")}
	asked := func(args ...string) string { return verb(t, append(args, window...)...) }

	fromServer := asked("export", "--server", s.url)
	fromCopy := asked("export", "--db", path("copy.db"))
	if fromServer != fromCopy || strings.Count(fromCopy, "\n") != int(eventsOf(n)) {
		t.Errorf("export from the server has %d lines, from the copy %d, want %d alike", strings.Count(fromServer, "\n"), strings.Count(fromCopy, "\n"), eventsOf(n))
	}
	for _, format := range []string{"ndjson", "parquet"} {
		asked("export", "--db", path("copy.db"), path("out."+format))
		verb(t, "import", "--db", path(format+".db"), path("out."+format))
		verb(t, "check", "--db", path(format+".db"))
		again := verb(t, "export", "--db", path(format+".db"))
		if !slices.Equal(sortedLines(again), sortedLines(fromCopy)) {
			t.Errorf("%s: what was imported is not what was exported", format)
		}
	}
	csv := asked("export", "--db", path("copy.db"), "--type", "connection", "--output", "csv", "--state", "closed")
	if strings.Count(csv, "\n") != 2*n+1 {
		t.Errorf("CSV has %d lines, want %d", strings.Count(csv, "\n"), 2*n+1)
	}
	id := checkZeek(t, 2*n, asked("export", "--server", s.url, "--format", "zeek"), asked("export", "--db", path("copy.db"), "-o", "zeek"))
	ofFlow := asked("export", "--db", path("copy.db"), "community_id="+id)
	if fromServer := asked("export", "--server", s.url, "--community-id", id); fromServer != ofFlow || strings.Count(ofFlow, id) != 4 || strings.Count(ofFlow, "\n") != 4 {
		t.Errorf("of the flow %s the server has\n%s\nthe copy\n%s\nwant two ends with two events each", id, fromServer, ofFlow)
	}
	if text := verb(t, "storage", "--db", path("copy.db"), "--hours"); !strings.Contains(text, "connection") {
		t.Errorf("storage: %s", text)
	}
	if text := verb(t, "storage", "--server", s.url); !strings.Contains(text, "packet_drop") {
		t.Errorf("storage: %s", text)
	}
	verb(t, "storage", "compact", "--db", path("copy.db"))
	verb(t, "check", "--db", path("copy.db"))
	if again := asked("export", "--db", path("copy.db")); again != fromCopy {
		t.Error("the compacted file has other events")
	}
}

// checkZeek looks at the conn.log of so many connections over loopback, of which
// each end is one: from the server and from a copy it is the same. It returns the
// community_id of one.
func checkZeek(t *testing.T, n int, fromServer, fromCopy string) (id string) {
	t.Helper()
	lines := func(text string) (all []string) {
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				all = append(all, strings.TrimSuffix(line, "\n"))
			}
		}
		return all
	}
	all := lines(fromCopy)
	if len(all) != n || !slices.Equal(all, lines(fromServer)) {
		t.Errorf("conn.log of the copy has %d connections, want %d, as that of the server", len(all), n)
	}
	ids := map[string]int{}
	for _, line := range all {
		f := strings.Split(line, "\t")
		if len(f) != 22 || f[6] != "tcp" || f[9] != "100" || f[10] != "50" || f[11] != "SF" || !strings.HasPrefix(f[21], "1:") {
			t.Fatalf("conn.log has the line %q", f)
		}
		ids[f[21]]++
	}
	ends := 0
	for id, ends = range ids {
		if ends != 2 {
			t.Errorf("community_id %s is that of %d ends", id, ends)
		}
	}
	return id
}

func TestVerbErrors(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	running := filepath.Join(dir, "running.db")
	start(t, filepath.Join(built, "ebpf-server"), running)
	bad := path("bad.ndjson", `{"time":"2026-11-21T03:12:00Z","type":"connection","pid":1}`+"\n"+`{"type":"connection"}`+"\n")
	fresh := filepath.Join(dir, "fresh.db")
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"export", "--db", running}, []string{"in use", "snapshot"}},
		{[]string{"check", "--db", filepath.Join(dir, "none.db")}, []string{"no such file"}},
		{[]string{"check", "--db", bad}, []string{"not a bbolt file"}},
		{[]string{"export", "--server", "http://127.0.0.1:1"}, []string{"no ebpf-server answers", "--server", "--db"}},
		{[]string{"export", "--server", "nonsense"}, []string{"is no URL"}},
		{[]string{"export", "--type", "colour"}, []string{"--type", "colour", "there are connection, packet_drop"}},
		{[]string{"export", "--server", "http://127.0.0.1:1", "--format", "zeek", "--type", "packet_drop"}, []string{"zeek", "connection", "packet_drop"}},
		{[]string{"import", "--db", fresh, bad}, []string{"record 2", "time", "nothing was imported", "--skip-bad"}},
		{[]string{"import", bad}, []string{"db"}},
		{[]string{"snapshot"}, []string{"arg"}},
		{[]string{"snapshot", bad}, []string{"is there already"}},
	} {
		out, err := try(test.args...)
		if err == nil {
			t.Errorf("%v: no error", test.args)
		}
		for _, part := range test.want {
			if !strings.Contains(out, part) {
				t.Errorf("%v: %q does not say %q", test.args, out, part)
			}
		}
	}
	verb(t, "import", "--db", fresh, "--skip-bad", bad)
	if got := verb(t, "export", "--db", fresh); strings.Count(got, "\n") != 1 {
		t.Errorf("after --skip-bad: %q", got)
	}
}

// Pinned events stay when retention becomes shorter.
func TestPinsAndSIGHUP(t *testing.T) {
	config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte("storage: {flush_interval: 200ms}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"), "--config", config)
	kept, gone := bpftest.NewNetNS(t, "kept"), bpftest.NewNetNS(t, "gone")
	traffic(t, gone, 10)
	traffic(t, kept, 10)
	response, err := http.Post(s.url+"/api/storage/pins", "application/json", strings.NewReader(fmt.Sprintf(`{"since":%q,"until":"now","note":"incident"}`, kept.Made.Format("2006-01-02T15:04:05.999999999Z07:00"))))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatalf("pin: %s", response.Status)
	}
	write("retention: {max_age: 1s}\n")
	if err := s.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if got := s.summary("connections", query("command", "tclient", "until", kept.Made.Format("2006-01-02T15:04:05.999999999Z07:00"), "duration", "3600")).Count; got != 0 {
			return fmt.Errorf("%d events that are not pinned are still there", got)
		}
		return nil
	})
	if got := s.summary("connections", in(kept)).Count; got != eventsOf(10) {
		t.Errorf("%d pinned events, want %d", got, eventsOf(10))
	}
}
