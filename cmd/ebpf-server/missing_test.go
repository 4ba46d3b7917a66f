package main_test

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// Without what no monitor can do without, the program ends with one line that
// names it and the remedy. A kernel that is locked down is in TestLockdown of
// internal/bpf/programs, which make test-kernels runs on some that can be.
func TestMissingAltogether(t *testing.T) {
	bpftest.RequireRoot(t)
	for _, test := range []struct {
		name, shell string
		want        []string
	}{
		{"BTF", "mount -t tmpfs none /sys/kernel/btf; " + without(""), []string{"kernel's BTF", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"}},
		{"CAP_BPF", without("-bpf,-sys_admin"), []string{"not permitted", "CAP_BPF", "root"}},
		{"CAP_PERFMON", without("-perfmon,-sys_admin"), []string{"not permitted", "CAP_PERFMON", "root"}},
		{"CAP_NET_ADMIN", without("-net_admin,-sys_admin"), []string{"not permitted", "CAP_NET_ADMIN", "root"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			binary := wrapped(t, filepath.Join(built, "ebpf-server"), test.shell)
			command := exec.Command(binary, "--db", filepath.Join(t.TempDir(), "events.db"), "--config", emptyConfig(t))
			out, err := command.CombinedOutput()
			if err == nil || command.ProcessState.ExitCode() <= 0 {
				t.Errorf("ended with %v", err)
			}
			if strings.Count(string(out), "\n") != 1 {
				t.Errorf("not one line:\n%s", out)
			}
			if err := lacks(string(out), test.want); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without other things it records what it can, and says what is missing and
// what to do about it.
func TestMissingInPart(t *testing.T) {
	for _, test := range []struct {
		name, shell string
		want        []string // in the log
		failed      string   // a monitor, or ""
	}{
		{"tracefs", "umount -a -t tracefs,debugfs; " + without("-sys_admin"),
			[]string{"load connection", "mount tracefs", "operation not permitted", "mount -t tracefs nodev /sys/kernel/tracing"}, "connection"},
		{"tracefs, which it may mount", "umount -a -t tracefs,debugfs; " + without(""), nil, ""},
		// Nothing is pinned: the program holds all that it has loaded.
		{"bpffs", `umount -a -t bpf; if grep " bpf " /proc/self/mounts; then exit 1; fi; ` + without(""), nil, ""},
		{"CAP_SYSLOG", without("-syslog,-sys_admin"), []string{"kernel feature is not available", "missing=location"}, ""},
		{"CAP_SYS_ADMIN", without("-sys_admin"), []string{"run times", "not measured", "CAP_SYS_ADMIN"}, ""},
		{"cgroup2", "umount -a -l -t cgroup2; " + without(""), []string{"missing=udp_close", "mount -t cgroup2"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, wrapped(t, filepath.Join(built, "ebpf-server"), test.shell), filepath.Join(t.TempDir(), "events.db"))
			for _, program := range s.programs().Programs {
				if program.Name != test.failed {
					if program.State != "running" {
						t.Errorf("%s is %s: %s", program.Name, program.State, program.Error)
					}
					continue
				}
				if err := lacks(program.Error, test.want); err != nil || program.State != "failed" || program.Needs == "" {
					t.Errorf("%s is %s, needs %q, %v", program.Name, program.State, program.Needs, err)
				}
			}
			// What another process says of run times comes in its own time.
			eventually(t, func() error { return lacks(s.log.String(), test.want) })
			if len(test.want) == 0 && strings.Contains(s.log.String(), "level=WARN") {
				t.Error("a warning, although nothing is missing")
			}

			ns := bpftest.NewNetNS(t, "missing")
			ns.Do(t, func() {
				c, err := net.Dial("udp4", "127.0.0.1:7001")
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Error(err)
				}
			})
			if got := s.summary("packet_drops", in(ns, "destination_port", "7001")); got.Count != 1 {
				t.Errorf("%d drops, want 1", got.Count)
			}
			if test.failed == "connection" {
				return
			}
			if got := s.events(in(ns, "type", "connection", "destination_port", "7001", "state", "established")); got.Count != 1 {
				t.Errorf("%d connections, want 1", got.Count)
			}
		})
	}
}

// without starts the program without some capabilities, for wrapped.
func without(capabilities string) string {
	if capabilities == "" {
		return `exec "$0" "$@"`
	}
	return "exec setpriv --bounding-set=" + capabilities + " --inh-caps=" + capabilities + ` "$0" "$@"`
}

// lacks tells which parts a text has not.
func lacks(text string, parts []string) error {
	var missing []error
	for _, part := range parts {
		if !strings.Contains(text, part) {
			missing = append(missing, fmt.Errorf("%q is not in:\n%s", part, text))
		}
	}
	return errors.Join(missing...)
}
