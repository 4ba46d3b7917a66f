package bpftest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Docker is a Docker daemon of the test's own, with its containerd, whose files
// are below a folder of the test's own.
type Docker struct {
	Root  string // as "/" is to a Docker of the host
	Image string // holds one program, /PROGRAM

	socket string
}

// NewDocker starts a daemon in a network namespace and makes an image of one
// static program. A container with --network host is in that namespace.
func NewDocker(t testing.TB, ns *NetNS, program string) *Docker {
	t.Helper()
	d := &Docker{Root: daemonRoot(t), Image: "registry.example/shop/" + filepath.Base(program) + ":1.2"}
	d.socket = "unix://" + filepath.Join(d.Root, "docker.sock")
	removeCgroups(t, "docker")
	// vfs, as it needs nothing of the kernel; no bridge and no rules, as containers
	// have the network of the host.
	startDaemon(t, ns, filepath.Join(d.Root, "docker.sock"), "dockerd", "--log-level", "warn", "--host", d.socket, "--data-root", filepath.Join(d.Root, "var/lib/docker"),
		"--exec-root", filepath.Join(d.Root, "run/docker"), "--pidfile", filepath.Join(d.Root, "docker.pid"), "--storage-driver", "vfs",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	tar := filepath.Join(d.Root, "image.tar")
	Run(t, "tar", "-C", filepath.Dir(program), "-cf", tar, filepath.Base(program))
	d.Run(t, "import", tar, d.Image)
	t.Cleanup(func() {
		if left := strings.Fields(d.Run(t, "ps", "--all", "--quiet")); len(left) > 0 {
			d.Run(t, append([]string{"rm", "--force"}, left...)...)
		}
	})
	return d
}

// Run runs the client of Docker and returns its output.
func (d *Docker) Run(t testing.TB, args ...string) string {
	t.Helper()
	return strings.TrimSpace(Run(t, "docker", append([]string{"--host", d.socket}, args...)...))
}

// Containerd is a containerd of the test's own, whose files are below a folder
// of the test's own.
type Containerd struct {
	Root string // as "/" is to a containerd of the host

	socket, rootfs string
}

// containerdNamespace is what containerd calls a namespace, and the cgroup above
// those of its containers.
const containerdNamespace = "ebpfsrv-test"

// NewContainerd starts a containerd in a network namespace. Its containers hold
// one static program, /PROGRAM.
func NewContainerd(t testing.TB, ns *NetNS, program string) *Containerd {
	t.Helper()
	c := &Containerd{Root: daemonRoot(t)}
	c.socket = filepath.Join(c.Root, "run/containerd/containerd.sock")
	c.rootfs = filepath.Join(c.Root, "rootfs")
	Run(t, "install", "-D", "-t", c.rootfs, program)
	config := filepath.Join(c.Root, "containerd.toml")
	// The plugin for Kubernetes wants a network of its own.
	if err := os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	removeCgroups(t, containerdNamespace)
	startDaemon(t, ns, c.socket, "containerd", "--log-level", "warn", "--config", config, "--address", c.socket,
		"--root", filepath.Join(c.Root, "var/lib/containerd"), "--state", filepath.Join(c.Root, "run/containerd"))
	return c
}

// RunContainer runs a container until it ends, by ctr, and removes it.
func (c *Containerd) RunContainer(t testing.TB, flags []string, id string, args ...string) {
	t.Helper()
	command := append([]string{"--address", c.socket, "--namespace", containerdNamespace, "run", "--rm", "--net-host", "--fifo-dir", filepath.Join(c.Root, "run/fifo")}, flags...)
	Run(t, "ctr", append(append(command, "--rootfs", c.rootfs, id), args...)...)
}

// daemonRoot makes a folder with a short path, as sockets are below it.
func daemonRoot(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	root, err := os.MkdirTemp("", "docker")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Errorf("remove the files of a container runtime: %v", err)
		}
	})
	return root
}

// In namespaces of its own for mounts and processes, so that nothing is left
// when its first process ends, which is when nobody writes to it any more; with
// a /run of its own, where some paths are fixed, and without the configuration of
// the host's.
const inOwnNamespaces = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
[ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker
"$@" </dev/null &
read -r || true
kill $!
wait $! || true`

// startDaemon runs a daemon until the end of the test, and returns when its
// socket is there.
func startDaemon(t testing.TB, ns *NetNS, socket, name string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	daemon := ns.Command("bash", append([]string{"-c", inOwnNamespaces, "-", name}, args...)...)
	daemon.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	daemon.Stdout, daemon.Stderr = &log, &log
	lifeline, err := daemon.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = lifeline.Close()
		forced := time.AfterFunc(20*time.Second, func() {
			t.Errorf("%s does not end", name)
			_ = daemon.Process.Kill()
		})
		err := daemon.Wait() // also for whoever else has its output
		forced.Stop()
		if err != nil || t.Failed() {
			t.Logf("%s: %v\n%s", name, err, log.Bytes())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no socket", name)
		}
	}
}

// removeCgroups removes, after the test, what runtimes leave of their cgroups,
// in each file system.
func removeCgroups(t testing.TB, names ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, name := range names {
			for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
				left, _ := filepath.Glob(pattern + name)
				for _, folder := range left {
					_ = os.Remove(folder) // unless somebody else uses it
				}
			}
		}
	})
}
