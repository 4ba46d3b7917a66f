package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// Every mistake that a person can make at the start ends the program with one
// clear line that says what to do.
func TestStartErrors(t *testing.T) {
	bpftest.RequireRoot(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	running := filepath.Join(dir, "running.db")
	start(t, filepath.Join(built, "ebpf-server"), running)
	db := filepath.Join(dir, "events.db")

	for _, test := range []struct {
		name string
		args []string
		user uint32
		want []string // parts of the line
	}{
		{"mistyped key", []string{"--config", write("key.yaml", "storage:\n  flush_intervall: 5s\n")}, 0, []string{"key.yaml:2", "flush_intervall", "flush_interval"}},
		{"bad duration", []string{"--config", write("duration.yaml", "retention:\n  max_age: 7 bananas\n")}, 0, []string{"duration.yaml:2", "retention.max_age", `"7 bananas"`, "7d"}},
		{"no such config", []string{"--config", filepath.Join(dir, "none.yaml")}, 0, []string{"none.yaml", "no such file"}},
		{"unknown flag", []string{"--listen", "x"}, 0, []string{"--listen"}},
		{"open address without a token", []string{"--address", "0.0.0.0:8080"}, 0, []string{"--address", "auth_token_file"}},
		{"db is a folder", []string{"--db", dir}, 0, []string{dir}},
		{"db cannot be written", []string{"--db", "/proc/events.db"}, 0, []string{"/proc/events.db", "choose another path"}},
		{"db is something else", []string{"--db", write("text.db", strings.Repeat("not a db\n", 1000))}, 0, []string{"text.db"}},
		{"db in use", []string{"--db", running}, 0, []string{"running.db", "in use"}},
		{"port in use", []string{"--address", taken.Addr().String(), "--db", db}, 0, []string{taken.Addr().String(), "--address"}},
		{"no root", []string{"--db", "/tmp/events-of-nobody.db"}, 65534, []string{"root"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			if !strings.Contains(strings.Join(args, " "), "--config") {
				args = append(args, "--config", emptyConfig(t))
			}
			command := exec.Command(filepath.Join(built, "ebpf-server"), args...)
			if test.user != 0 {
				command = exec.Command(publicCopy(t))
				command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: test.user, Gid: test.user}}
				command.Args = append(command.Args, test.args...)
				command.Dir = "/"
			}
			out, err := command.CombinedOutput()
			if err == nil || command.ProcessState.ExitCode() <= 0 {
				t.Errorf("ended with %v", err)
			}
			text := strings.TrimSpace(string(out))
			if strings.Count(text, "\n") != 0 {
				t.Errorf("more than one line:\n%s", text)
			}
			for _, part := range test.want {
				if !strings.Contains(text, part) {
					t.Errorf("%q does not say %q", text, part)
				}
			}
			t.Log(text)
		})
	}
	if _, err := os.Stat(db); err == nil {
		t.Error("a db file was left behind by a start that failed")
	}
}

// publicCopy is the binary in a folder that an ordinary user may read.
func publicCopy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ebpf-server-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "ebpf-server")
	bpftest.Run(t, "cp", filepath.Join(built, "ebpf-server"), path)
	bpftest.Run(t, "chmod", "755", dir, path)
	return path
}
