package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// TestDocumentedMonitor adds a monitor as docs/program-development.md says, and
// nothing else: the blocks of that page that have a title are the files.
func TestDocumentedMonitor(t *testing.T) {
	bpftest.RequireRoot(t)
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "program-development.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := t.TempDir()
	for _, name := range []string{"bpf", "cmd", "internal", "migrations", "docs"} {
		if err := os.CopyFS(filepath.Join(sources, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	files := blocks(string(page))
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	for name, text := range files {
		path := filepath.Join(sources, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inSources := func(name string, args ...string) {
		t.Helper()
		command := exec.Command(name, args...)
		command.Dir = sources
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	inSources("go", "generate", "./internal/bpf/programs/tcp_reset")
	inSources("go", "test", "-count=1", "./internal/bpf/programs/tcp_reset")
	binary := filepath.Join(sources, "ebpf-server")
	if err := build(sources, binary, "./cmd/ebpf-server"); err != nil {
		t.Fatal(err)
	}

	s := start(t, binary, filepath.Join(t.TempDir(), "events.db"))
	ns := bpftest.NewNetNS(t, "documented")
	ns.Do(t, func() {
		if _, err := net.Dial("tcp4", "127.0.0.1:7001"); err == nil {
			t.Error("connected to a closed port")
		}
	})
	found := s.events(in(ns, "type", "tcp_reset"))
	if found.Count != 1 || found.Events[0]["remote_ip"] != "127.0.0.1" || found.Events[0]["remote_port"] != 7001.0 {
		t.Errorf("events: %v", found.Events)
	}
	if all := s.summary("tcp_resets", in(ns, "remote_port", "7001")); all.Counts["ipv4"] != 1 {
		t.Errorf("summary: %+v", all)
	}
}

var blockForm = regexp.MustCompile("(?ms)^```[a-z]+ title=(\\S+)\n(.*?)^```")

// blocks returns the code blocks of a page that have a title, by title.
func blocks(page string) map[string]string {
	found := map[string]string{}
	for _, m := range blockForm.FindAllStringSubmatch(page, -1) {
		found[m[1]] = m[2]
	}
	return found
}
