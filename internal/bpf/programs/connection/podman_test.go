package connection_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	"github.com/srodi/ebpf-server/internal/names"
)

// A real container, from an image that holds nothing but dial: its events say
// what Podman says of it.
func TestPodmanContainer(t *testing.T) {
	bpftest.RequireRoot(t)
	root, err := os.MkdirTemp("", "podman") // Podman allows no long paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	podman := func(args ...string) string {
		t.Helper()
		// runc, as crun refuses a host that has the cgroup file systems of both
		// versions; vfs, as it needs nothing of the kernel.
		own := []string{"--root", filepath.Join(root, "var/lib/containers/storage"), "--runroot", filepath.Join(root, "run/containers/storage"),
			"--tmpdir", filepath.Join(root, "run/libpod"), "--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
		return strings.TrimSpace(bpftest.Run(t, "podman", append(own, args...)...))
	}
	dial := buildDial(t, "dial")
	tar := filepath.Join(root, "image.tar")
	bpftest.Run(t, "tar", "-C", filepath.Dir(dial), "-cf", tar, "dial")
	podman("import", "--quiet", tar, "registry.example/shop/dial:1.2")

	host := bpftest.NewHost(t)
	host.Names = bpf.NewNames(names.NewHost(root, slog.New(slog.DiscardHandler)))
	r := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	ns := bpftest.NewNetNS(t, "podman")
	t.Cleanup(func() {
		podman("rm", "--force", "--all")
		podman("rmi", "--force", "--all")
		// Podman leaves the parents of its cgroups, in each file system.
		for _, name := range []string{"libpod_parent/conmon", "libpod_parent"} {
			for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
				left, _ := filepath.Glob(pattern + name)
				for _, folder := range left {
					_ = os.Remove(folder) // unless another Podman uses it
				}
			}
		}
	})
	// The limits are below those of any machine, so that it may set them.
	podman("run", "--name", "web", "--network", "ns:/run/netns/"+ns.Name, "--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512", "--user", "4711",
		"registry.example/shop/dial:1.2", "/dial", "127.0.0.1:7001")

	inspected := strings.Fields(podman("inspect", "--format", "{{.Id}} {{.Name}} {{.ImageName}}", "web"))
	e := r.WaitFor(t, ns, 1, bpftest.Event{
		"destination_port": "7001", "container_id": inspected[0], "container_name": inspected[1], "container_image": inspected[2],
		"executable": "/dial", "command": "dial", "parent_command": "conmon", "uid": "4711",
	})[0]
	if name, known := e["user"]; known {
		t.Errorf("user %q is made up", name)
	}

	// One that is removed as soon as it has ended.
	podman("run", "--rm", "--name", "moment", "--network", "ns:/run/netns/"+ns.Name, "--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512",
		"registry.example/shop/dial:1.2", "/dial", "127.0.0.1:7002")
	r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": "7002", "container_name": "moment", "container_image": inspected[2]})
}
