package programs_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs"
)

// start, if set, makes this binary print what is missing to run all monitors.
const start = "PROGRAMS_TEST_START"

func TestMain(m *testing.M) {
	if os.Getenv(start) == "" {
		os.Exit(m.Run())
	}
	if err := startAll(); err != nil {
		fmt.Println(err)
	}
}

func startAll() error {
	if err := bpf.Check(); err != nil {
		return err
	}
	host, err := bpf.NewHost(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for _, m := range programs.All {
		program, err := bpf.Start(m, host, bpf.Options{}, bpftest.NewRecorder(), slog.New(slog.DiscardHandler))
		if err != nil {
			fmt.Println(err)
			continue
		}
		for _, hook := range program.Status().Hooks {
			if hook.Err != nil {
				fmt.Println(hook.Name, hook.Err)
			}
		}
	}
	return nil
}

// What the system lacks is named, with the remedy.
func TestMissing(t *testing.T) {
	bpftest.RequireRoot(t)
	without := func(capabilities string) string {
		return "exec setpriv --bounding-set=" + capabilities + " --inh-caps=" + capabilities + ` "$0"`
	}
	const capabilities = "-all,+bpf,+perfmon,+net_admin,+syslog"
	// In a guest with Linux 6.18, everybody could read tracefs after it was mounted again.
	nobody := "mount -t tracefs nodev /sys/kernel/tracing; chmod 700 /sys/kernel/tracing && exec setpriv --reuid 65534 --clear-groups --inh-caps=" + capabilities + " --ambient-caps=" + capabilities + ` "$0"`
	unit := "exec setpriv --no-new-privs --bounding-set=-all,+" + strings.Join(unitCapabilities(t), ",+") + ` "$0"`
	var paranoid []string // nothing is missing, but where Debian's kernel says so
	if level := perfEventParanoid(t); level > 2 {
		paranoid = []string{fmt.Sprint("kernel.perf_event_paranoid is ", level), "CAP_SYS_ADMIN", "kernel.perf_event_paranoid=2"}
	}
	all := startIn(t, `exec "$0"`) // what this kernel lacks
	for _, test := range []struct {
		name, shell string
		want        []string // none: nothing but what the kernel lacks is missing
	}{
		{"BTF", `mount -t tmpfs none /sys/kernel/btf && exec "$0"`, []string{"kernel's BTF", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"}},
		{"tracefs", "umount -a -t tracefs,debugfs && " + without("-sys_admin"), []string{"load connection", "mount tracefs", "mount -t tracefs nodev /sys/kernel/tracing"}},
		{"cgroup2", `umount -a -l -t cgroup2 && exec "$0"`, []string{"sock_release", "mount -t cgroup2"}},
		{"CAP_BPF", without("-bpf,-sys_admin"), []string{"not permitted", "CAP_BPF", "root"}},
		{"CAP_PERFMON", without("-perfmon,-sys_admin"), []string{"not permitted", "CAP_PERFMON", "root"}},
		{"CAP_SYS_ADMIN", without("-sys_admin"), paranoid},
		{"CAP_DAC_READ_SEARCH", nobody, []string{"permission denied", "tracefs belongs to root", "CAP_DAC_READ_SEARCH"}},
		{"nothing as the systemd unit starts it", unit, nil},
		{"CAP_NET_ADMIN", without("-net_admin,-sys_admin"), []string{"not permitted", "CAP_NET_ADMIN", "root"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := startIn(t, test.shell)
			if len(test.want) == 0 && out != all {
				t.Errorf("missing is:\n%s\nand to who has all rights:\n%s", out, all)
			}
			for _, part := range test.want {
				if !strings.Contains(out, part) {
					t.Errorf("%q is not in:\n%s", part, out)
				}
			}
		})
	}
}

// startIn starts all monitors in a process that a shell becomes, and returns what is missing.
func startIn(t *testing.T, shell string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("unshare", "--mount", "bash", "-c", shell, self)
	command.Env = append(os.Environ(), start+"=1")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func perfEventParanoid(t *testing.T) (level int) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err == nil {
		level, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return level
}

// unitCapabilities returns those of the systemd unit, as setpriv calls them.
func unitCapabilities(t *testing.T) []string {
	t.Helper()
	unit, err := os.ReadFile("../../../configs/ebpf-server.service")
	if err != nil {
		t.Fatal(err)
	}
	_, set, _ := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	set, _, _ = strings.Cut(set, "\n")
	return strings.Fields(strings.ReplaceAll(strings.ToLower(set), "cap_", ""))
}

// A kernel that is locked down to keep its memory confidential refuses all
// monitors. make test-kernels runs this again after such a lockdown.
func TestLockdown(t *testing.T) {
	bpftest.RequireRoot(t)
	state, _ := os.ReadFile("/sys/kernel/security/lockdown") // not there: no lockdown
	err := bpf.Check()
	if strings.Contains(string(state), "[confidentiality]") {
		if err == nil || !strings.Contains(err.Error(), "the kernel is locked down") || !strings.Contains(err.Error(), "lockdown=integrity") {
			t.Errorf("locked down, and the error is %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
	}
	host := bpftest.NewHost(t)
	for _, m := range programs.All {
		program, err := bpf.Start(m, host, bpf.Options{}, bpftest.NewRecorder(), slog.New(slog.DiscardHandler))
		if err == nil {
			err = program.Stop(t.Context())
		}
		if err != nil {
			t.Errorf("%s: %v", m.Type.Name, err)
		}
	}
}
