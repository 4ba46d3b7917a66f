package bpf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestContainerOfPath(t *testing.T) {
	id := strings.Repeat("3f4e7c0a9b128d56", 4)
	for path, want := range map[string]string{
		"/docker/" + id:                         id,
		"/system.slice/docker-" + id + ".scope": id,
		"/kubepods.slice/kubepods-pod1234.slice/cri-containerd-" + id + ".scope": id,
		"/kubepods/besteffort/pod6f1c2a90-1a2b/" + id:                            id,
		"/machine.slice/libpod-" + id + ".scope/container":                       id,
		"/kubepods.slice/pod.slice:cri-containerd:" + id:                         id,
		"/system.slice/ssh.service":                                              "",
		"/docker/" + id[:12]:                                                     "",
		"/docker/" + id + "0":                                                    "",
		"/user.slice/user-1000.slice/session-" + strings.ToUpper(id) + ".scope":  "",
		"": "",
	} {
		if got := containerOfPath(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// A folder stands for a cgroup: the id is its inode number in both.
func TestCgroups(t *testing.T) {
	root := t.TempDir()
	id := strings.Repeat("0123456789abcdef", 4)
	inode := func(name string) uint64 {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	container, service := inode("docker/"+id), inode("system.slice/x.service")
	c := NewCgroups(root)
	if got := c.Container(container); got != id {
		t.Errorf("container %q", got)
	}
	if got := c.Container(service); got != "" {
		t.Errorf("a service is container %q", got)
	}
	if err := os.RemoveAll(filepath.Join(root, "docker")); err != nil {
		t.Fatal(err)
	}
	c.scanned = time.Time{}
	if got := c.Container(1); got != "" { // makes it read the tree again
		t.Errorf("an unknown cgroup is container %q", got)
	}
	if got := c.Container(container); got != id {
		t.Errorf("a cgroup that is gone was forgotten: %q", got)
	}
}

func TestClock(t *testing.T) {
	c := NewClock()
	before := time.Now().UnixNano()
	wall := c.Wall(uint64(readClock(unix.CLOCK_BOOTTIME)))
	after := time.Now().UnixNano()
	// Within the reading error of the offset.
	if wall < before-stepNs || wall > after+stepNs {
		t.Errorf("wall time %d is not between %d and %d", wall, before, after)
	}
	c.offset.Add(-int64(time.Hour)) // as if the wall clock had been put forward
	c.Follow()
	if wall := c.Wall(uint64(readClock(unix.CLOCK_BOOTTIME))); wall < before {
		t.Errorf("did not follow the step: %v", time.Unix(0, wall))
	}
}

func TestSymbols(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	const text = `ffffffff81000200 T second
ffffffff81000100 T first
ffffffff81000080 t first.cold
ffffffff81000180 d data
ffffffffa0000000 t in_module	[mod]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewSymbols(path)
	for address, want := range map[uint64]string{
		0xffffffff81000100: "first", 0xffffffff810001ff: "first", 0xffffffff81000200: "second",
		0xffffffffa0000010: "in_module", 0xffffffff810000ff: "first", 0xffffffff8100007f: "",
	} {
		if got := s.Name(address); got != want {
			t.Errorf("%x: %q, want %q", address, got, want)
		}
	}
	want := []Range{{0xffffffff81000080, 0xffffffff81000100}, {0xffffffff81000100, 0xffffffff81000200}}
	if got := s.Ranges("first"); !slices.Equal(got, want) {
		t.Errorf("ranges %x, want %x", got, want)
	}
	if got := s.Ranges("none"); got != nil {
		t.Errorf("ranges of an unknown function: %x", got)
	}
}

// With kernel.kptr_restrict all addresses read as 0.
func TestHiddenSymbols(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	if err := os.WriteFile(path, []byte("0000000000000000 T first\n0000000000000000 T second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := NewSymbols(path).Name(0xffffffff81000100); got != "" {
		t.Errorf("%q is made up", got)
	}
}

func TestCapabilities(t *testing.T) {
	bits, err := capabilities(strings.NewReader("Name:\tx\nCapEff:\t000001ffffffffff\n"))
	if err != nil || bits != 0x1ffffffffff {
		t.Errorf("%x, %v", bits, err)
	}
	if _, err := capabilities(strings.NewReader("Name:\tx\n")); err == nil {
		t.Error("no error without CapEff")
	}
}
