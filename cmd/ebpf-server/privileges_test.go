package main_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// Bits of capabilities, as in capabilities(7).
const (
	capDACReadSearch = 1 << 2
	capSysAdmin      = 1 << 21
	toAttach         = 1<<39 | 1<<38 | 1<<12 | 1<<34 // CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYSLOG
)

// rights are what /proc/PID/status says of a thread: the sets of capabilities
// that it has (those that hold, and those that could) and can get.
type rights struct{ effective, permitted, inheritable, ambient, bounding, noNewPrivs uint64 }

// only are the rights of who has given up all others for good.
func only(capabilities uint64) rights {
	return rights{effective: capabilities, permitted: capabilities, noNewPrivs: 1}
}

// expectRights checks what every thread of a process has, once it has come to that.
func expectRights(t *testing.T, pid int, want rights) {
	t.Helper()
	eventually(t, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil || len(threads) == 0 {
			return fmt.Errorf("process %d has no threads: %w", pid, errors.Join(err, os.ErrNotExist))
		}
		for _, path := range threads {
			status, err := os.ReadFile(path)
			if err != nil {
				continue // it has ended
			}
			if got := parseRights(t, string(status)); got != want {
				return fmt.Errorf("%s: %+v, want %+v", path, got, want)
			}
		}
		return nil
	})
}

func parseRights(t *testing.T, status string) (r rights) {
	t.Helper()
	sets := map[string]*uint64{
		"CapEff": &r.effective, "CapPrm": &r.permitted, "CapInh": &r.inheritable, "CapAmb": &r.ambient, "CapBnd": &r.bounding, "NoNewPrivs": &r.noNewPrivs,
	}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if sets[name] == nil {
			continue
		}
		var err error
		if *sets[name], err = strconv.ParseUint(value, 16, 64); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// children returns the processes that a server has started.
func (s *server) children() (pids []int) {
	s.t.Helper()
	out, _ := exec.Command("pgrep", "--parent", strconv.Itoa(s.command.Process.Pid)).Output() // fails if there are none
	for _, field := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			s.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// wrapped returns a program that starts the server, which it finds as "$0" with
// its arguments "$@", from a shell.
func wrapped(t testing.TB, server, shell string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wrapped")
	script := fmt.Sprintf("#!/bin/bash\nexec unshare --mount bash -c %s %s \"$@\"\n", quoted("set -e; "+shell), quoted(server))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// Once it records, the server has no capability in any thread; all that it does
// from then on goes on without.
func TestPrivilegesAreGivenUp(t *testing.T) {
	podman := bpftest.NewPodman(t, filepath.Join(built, "tclient"))
	folder := t.TempDir()
	config, db := filepath.Join(folder, "ebpf-server.yaml"), filepath.Join(folder, "events.db")
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	// It finds the containers of the test's Podman where those of the host are.
	binary := wrapped(t, filepath.Join(built, "ebpf-server"),
		fmt.Sprintf(`mount --bind %[1]s/var/lib /var/lib; mount --bind %[1]s/run /run; exec "$0" "$@"`, podman.Root))
	s := start(t, binary, db, "--config", config)
	expectRights(t, s.command.Process.Pid, only(0))
	children := s.children()
	if len(children) != 1 {
		t.Fatalf("%d processes beside the server, want the one that samples run times", len(children))
	}
	expectRights(t, children[0], only(capSysAdmin))
	if err := syscall.Kill(children[0], syscall.SIGHUP); err != nil { // as systemctl kill sends it to all
		t.Fatal(err)
	}

	ns := bpftest.NewNetNS(t, "privileges")
	// Names of processes and containers that are gone at once.
	listening := serveIn(t, ns, "127.0.0.1:7003", 1)
	podman.RunIn(t, ns, "moment", "--rm", "--user", "4711", podman.Image, "/tclient", "client", "127.0.0.1:7003", "1")
	if err := listening.Wait(); err != nil {
		t.Fatalf("server: %v", err)
	}
	_, client := traffic(t, ns, 100)
	eventually(t, func() error {
		own := in(ns, "pid", strconv.Itoa(client), "executable", filepath.Join(built, "tclient"), "parent_pid", strconv.Itoa(os.Getpid()))
		if got := s.summary("connections", own).Count; got != 200 {
			return fmt.Errorf("%d events of a client with its names, want 200", got)
		}
		return nil
	})
	got := s.events(in(ns, "type", "connection", "destination_port", "7003", "state", "established", "direction", "outbound"))
	if got.Count != 1 || got.Events[0]["container_name"] != "moment" || got.Events[0]["container_image"] != podman.Image || got.Events[0]["executable"] != "/tclient" {
		t.Errorf("events of a container: %v", got.Events)
	}
	checkFlood(t, s, ns)
	checkRunTimes(t, s, ns)

	configure("retention: {max_age: 1h}\n")
	checkReload(t, s)
	checkSnapshot(t, s)
	s.stop()
	for _, problem := range []string{"level=WARN", "level=ERROR"} {
		if strings.Contains(s.log.String(), problem) {
			t.Errorf("the log has a line with %s", problem)
		}
	}
	expectEnd(t, children[0])
}

// checkFlood makes more like drops than are told one by one: the others are
// taken from maps that the server changes.
func checkFlood(t *testing.T, s *server, ns *bpftest.NetNS) {
	t.Helper()
	const n = 1000
	ns.Do(t, func() {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range n {
			if _, err := c.WriteTo([]byte("hello"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7004}); err != nil {
				t.Error(err)
			}
		}
	})
	q := in(ns, "destination_port", "7004", "drop_reason", "NO_SOCKET", "location", "__udp4_lib_rcv")
	eventually(t, func() error {
		if got := s.summary("packet_drops", q); got.Count != n {
			return fmt.Errorf("%d drops of %d, by reason and place", got.Count, n)
		}
		return nil
	})
}

// checkRunTimes makes connections until they were there when run times are
// measured: one second in thirty.
func checkRunTimes(t *testing.T, s *server, ns *bpftest.NetNS) {
	t.Helper()
	for deadline := time.Now().Add(45 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		traffic(t, ns, 10)
		for _, program := range s.programs().Programs {
			for _, hook := range program.Hooks {
				if hook.Name == "inet_sock_set_state" && hook.Runs > 0 && hook.NSPerRun > 0 {
					return
				}
			}
		}
	}
	t.Errorf("no run times: %+v", s.programs())
}

// checkReload lets the server read its configuration again.
func checkReload(t *testing.T, s *server) {
	t.Helper()
	if err := s.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !strings.Contains(s.log.String(), "retention follows") {
			return errors.New("SIGHUP was not followed")
		}
		return nil
	})
}

// checkSnapshot takes a copy of the db file, and checks it.
func checkSnapshot(t *testing.T, s *server) {
	t.Helper()
	binary, copied := filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "copy.db")
	bpftest.Run(t, binary, "snapshot", "--server", s.url, copied)
	bpftest.Run(t, binary, "check", "--db", copied)
}

// The process that samples run times does not outlive a server that is killed.
func TestSamplingEndsWithTheServer(t *testing.T) {
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	children := s.children()
	if len(children) != 1 {
		t.Fatalf("%d processes beside the server", len(children))
	}
	if err := s.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err == nil {
		t.Error("the server ended well although it was killed")
	}
	expectEnd(t, children[0])
}

// expectEnd waits for the end of a process.
func expectEnd(t *testing.T, pid int) {
	t.Helper()
	eventually(t, func() error {
		// Nobody may wait for it here: then it stays as a zombie, without a command line.
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(line) > 0 {
			return fmt.Errorf("process %d is still there: %q", pid, line)
		}
		return nil
	})
}

// What it goes on needing differs with who it is and where its files are.
func TestPrivilegesThatAreKept(t *testing.T) {
	bpftest.RequireRoot(t)
	const nobody = 65534
	program := publicCopy(t)
	ordinary := func(capabilities string) string {
		return fmt.Sprintf(`exec setpriv --reuid %d --regid %[1]d --clear-groups --bounding-set=-all,%[2]s --inh-caps=-all,%[2]s --ambient-caps=-all,%[2]s "$0" "$@"`, nobody, capabilities)
	}
	for _, test := range []struct {
		name, shell string
		files       int // who owns the folder of db file and configuration
		want        rights
	}{
		{"files of root", `exec "$0" "$@"`, 0, only(0)},
		{"files of another user", `exec "$0" "$@"`, nobody, only(capDACReadSearch)},
		{"ordinary user", ordinary("+bpf,+perfmon,+net_admin,+syslog,+dac_read_search"), nobody,
			rights{effective: capDACReadSearch, permitted: capDACReadSearch, bounding: toAttach | capDACReadSearch, noNewPrivs: 1}},
		// As the systemd unit starts it; and as somebody might who has not read it.
		{"bounded", `exec setpriv --no-new-privs --bounding-set=-all,+bpf,+perfmon,+net_admin,+sys_resource,+syslog,+setpcap,+sys_admin "$0" "$@"`, 0, only(0)},
		{"bounded, without CAP_SYS_ADMIN", `exec setpriv --no-new-privs --bounding-set=-all,+bpf,+perfmon,+net_admin,+sys_resource,+syslog,+setpcap "$0" "$@"`, 0, only(0)},
		{"bounded, without CAP_SETPCAP", `exec setpriv --no-new-privs --bounding-set=-all,+bpf,+perfmon,+net_admin,+syslog "$0" "$@"`, 0,
			rights{bounding: toAttach, noNewPrivs: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "own")
			config := filepath.Join(folder, "ebpf-server.yaml")
			if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(config, nil, 0o600), os.Chown(folder, test.files, test.files), os.Chown(config, test.files, test.files)); err != nil {
				t.Fatal(err)
			}
			s := start(t, wrapped(t, program, test.shell), filepath.Join(folder, "events.db"), "--config", config)
			expectRights(t, s.command.Process.Pid, test.want)
			ns := bpftest.NewNetNS(t, "kept")
			traffic(t, ns, 10)
			eventually(t, func() error {
				if got := s.summary("connections", in(ns)).Count; got != eventsOf(10) {
					return fmt.Errorf("%d events, want %d", got, eventsOf(10))
				}
				return nil
			})
			checkFlood(t, s, ns)
			checkSnapshot(t, s)
			checkReload(t, s)
			s.stop()
		})
	}
}
