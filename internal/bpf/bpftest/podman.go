package bpftest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Podman runs containers whose files are below a folder of the test's own.
type Podman struct {
	Root  string // as "/" is to a Podman of the host
	Image string // holds one program, /PROGRAM
}

// NewPodman makes an image of one static program. What the containers leave
// behind is gone after the test.
func NewPodman(t testing.TB, program string) *Podman {
	t.Helper()
	RequireRoot(t)
	root, err := os.MkdirTemp("", "podman") // Podman allows no long paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Errorf("remove the files of Podman: %v", err)
		}
	})
	p := &Podman{Root: root, Image: "registry.example/shop/" + filepath.Base(program) + ":1.2"}
	tar := filepath.Join(root, "image.tar")
	Run(t, "tar", "-C", filepath.Dir(program), "-cf", tar, filepath.Base(program))
	p.Run(t, "import", "--quiet", tar, p.Image)
	removeCgroups(t, "libpod_parent/conmon", "libpod_parent")
	t.Cleanup(func() {
		p.Run(t, "rm", "--force", "--all")
		p.Run(t, "rmi", "--force", "--all")
	})
	return p
}

// Run runs Podman and returns its output.
func (p *Podman) Run(t testing.TB, args ...string) string {
	t.Helper()
	// runc, as crun refuses a host that has the cgroup file systems of both
	// versions; vfs, as it needs nothing of the kernel.
	own := []string{"--root", filepath.Join(p.Root, "var/lib/containers/storage"), "--runroot", filepath.Join(p.Root, "run/containers/storage"),
		"--tmpdir", filepath.Join(p.Root, "run/libpod"), "--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
	return strings.TrimSpace(Run(t, "podman", append(own, args...)...))
}

// RunIn runs a container of the image in a network namespace, until it ends.
func (p *Podman) RunIn(t testing.TB, ns *NetNS, name string, args ...string) {
	t.Helper()
	// The limits are below those of any machine, so that it may set them.
	fixed := []string{"run", "--name", name, "--network", "ns:/run/netns/" + ns.Name, "--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"}
	p.Run(t, append(fixed, args...)...)
}
