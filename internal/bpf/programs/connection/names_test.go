package connection_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	"github.com/srodi/ebpf-server/internal/names"
)

// buildDial builds testdata/dial, which is linked statically, under a name. Where
// there is no Go (make test-kernels) it is built already.
func buildDial(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if built, err := os.ReadFile("testdata/dial/dial"); err == nil {
		if err := os.WriteFile(path, built, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	command := exec.Command("go", "build", "-o", path, "./testdata/dial")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build dial: %v\n%s", err, out)
	}
	return path
}

// byThisTest is what is told of a process that this one started, but its executable.
func byThisTest(t *testing.T) bpftest.Event {
	t.Helper()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return bpftest.Event{"parent_pid": strconv.Itoa(os.Getpid()), "parent_command": strings.TrimSpace(string(comm)), "uid": "0", "user": "root"}
}

// Processes that are gone when their events are read have their names.
func TestNamesOfShortLivedProcesses(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "short")
	dial := buildDial(t, "dial")
	const n = 200
	for range n {
		ns.Run(t, dial, "127.0.0.1:7001")
	}
	want := byThisTest(t)
	want["executable"], want["command"], want["state"] = dial, "dial", "failed"
	events := r.WaitFor(t, ns, n, want)
	pids := map[string]bool{}
	for _, e := range events {
		pids[e["pid"]] = true
	}
	if len(pids) != n {
		t.Errorf("%d processes, want %d", len(pids), n)
	}
	if unnamed := r.Status().Unnamed; unnamed != 0 {
		t.Errorf("%d times names were not told", unnamed)
	}
}

// A process that executes another program keeps its number and its start; each
// event has the program that it was made by.
func TestNamesAfterExec(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "exec")
	first, second := buildDial(t, "first"), buildDial(t, "second")
	ns.Run(t, first, "127.0.0.1:7001", second, "127.0.0.1:7002", first, "127.0.0.1:7003")
	pid := ""
	for port, executable := range map[string]string{"7001": first, "7002": second, "7003": first} {
		want := byThisTest(t)
		want["destination_port"], want["executable"], want["command"] = port, executable, filepath.Base(executable)
		e := r.WaitFor(t, ns, 1, want)[0]
		if pid == "" {
			pid = e["pid"]
		}
		if e["pid"] != pid {
			t.Errorf("port %s: process %s, want %s", port, e["pid"], pid)
		}
	}
}

// However a program was named when it was executed, its path is whole; what is
// in no folder has a name that is no path.
func TestExecutablePaths(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "paths")
	dial := buildDial(t, "dial")
	folder := filepath.Dir(dial)

	relative := ns.Command("./dial", "127.0.0.1:7001")
	relative.Dir = folder
	link := filepath.Join(folder, "link")
	if err := os.Symlink("dial", link); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(folder, "script")
	if err := os.WriteFile(script, []byte("#!"+dial+" 127.0.0.1:7003\n"), 0o755); err != nil { //nolint:gosec // it is executed
		t.Fatal(err)
	}
	long := filepath.Join(folder, strings.Repeat("a", 200), strings.Repeat("b", 200))
	tooLong := filepath.Join(long, strings.Repeat("c", 200))
	if err := os.MkdirAll(tooLong, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{long, tooLong} {
		if err := os.Link(dial, filepath.Join(folder, "dial")); err != nil {
			t.Fatal(err)
		}
	}
	memory := ns.Command("/proc/self/fd/3", "127.0.0.1:7006")
	memory.ExtraFiles = []*os.File{inMemory(t, dial)}
	for port, test := range map[string]struct {
		command *exec.Cmd
		want    string
	}{
		"7001": {relative, dial},
		"7002": {ns.Command(link, "127.0.0.1:7002"), dial},
		"7003": {ns.Command(script), dial},
		"7004": {ns.Command(filepath.Join(long, "dial"), "127.0.0.1:7004"), filepath.Join(long, "dial")},
		"7005": {ns.Command(filepath.Join(tooLong, "dial"), "127.0.0.1:7005"), ""},
		"7006": {memory, "memfd:dial"},
	} {
		if out, err := test.command.CombinedOutput(); err != nil {
			t.Fatalf("port %s: %v\n%s", port, err, out)
		}
		e := r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": port})[0]
		if got, known := e["executable"]; got != test.want || known != (test.want != "") {
			t.Errorf("port %s: executable %q, want %q", port, got, test.want)
		}
	}
}

func inMemory(t *testing.T, path string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("dial", 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "dial")
	t.Cleanup(func() { file.Close() })
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(text); err != nil {
		t.Fatal(err)
	}
	return file
}

// The unit, the container and the pod of a cgroup that is gone when its events
// are read.
func TestNamesOfCgroups(t *testing.T) {
	root := t.TempDir()
	const id = "3f4e7c0a9b128d563f4e7c0a9b128d563f4e7c0a9b128d563f4e7c0a9b128d56"
	writeFile(t, filepath.Join(root, "etc/passwd"), "dialer:x:4711:4711::/:/bin/false\n")
	writeFile(t, filepath.Join(root, "var/log/pods/shop_web-1_6f1c2a90-1a2b-4c3d-8e9f-0123456789ab/nginx/0.log"), "")
	writeFile(t, filepath.Join(root, "run/containerd/io.containerd.runtime.v2.task/k8s.io", id, "config.json"),
		`{"annotations": {"io.kubernetes.cri.container-name": "nginx", "io.kubernetes.cri.image-name": "registry.example/nginx:1"}}`)
	host := bpftest.NewHost(t)
	host.Names = bpf.NewNames(names.NewHost(root, slog.New(slog.DiscardHandler)))
	r := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	ns := bpftest.NewNetNS(t, "cgroups")
	dial := buildDial(t, "dial")
	for port, test := range map[string]struct {
		cgroup string
		want   bpftest.Event
	}{
		"7001": {"ebpfsrv-test.slice/names-test.service", bpftest.Event{"unit": "names-test.service"}},
		"7002": {"ebpfsrv-test.slice/ebpfsrv-kubepods-burstable.slice/kubepods-burstable-pod6f1c2a90_1a2b_4c3d_8e9f_0123456789ab.slice/cri-containerd-" + id + ".scope", bpftest.Event{
			"unit": "cri-containerd-" + id + ".scope", "container_id": id, "container_name": "nginx", "container_image": "registry.example/nginx:1",
			"k8s_namespace": "shop", "k8s_pod": "web-1", "k8s_container": "nginx", "uid": "0", "user": "",
		}},
		"7003": {"ebpfsrv-test.slice", bpftest.Event{"unit": "", "container_id": ""}},
	} {
		bpftest.InCgroup(t, test.cgroup, ns.Command(dial, "127.0.0.1:"+port))
		test.want["destination_port"] = port
		r.WaitFor(t, ns, 1, test.want)
	}
	bash, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	bpftest.InCgroup(t, "ebpfsrv-test.slice", ns.Command("setpriv", "--reuid=4711", "--clear-groups", "/bin/bash", "-c", "true < /dev/tcp/127.0.0.1/7004 || true"))
	r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": "7004", "uid": "4711", "user": "dialer", "executable": bash})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
