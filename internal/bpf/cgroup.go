package bpf

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rescanEvery bounds how often an unknown cgroup id makes Cgroups read the
// whole tree again.
const rescanEvery = time.Second

// maxCgroups bounds what is remembered of cgroups that are long gone.
const maxCgroups = 65536

// Cgroups finds the container of a cgroup id, which is the inode number of the
// cgroup's folder. It is safe for concurrent use.
type Cgroups struct {
	root string

	mu         sync.Mutex        // guards what follows
	containers map[uint64]string // "" for a cgroup that is no container, or not known to be one
	scanned    time.Time
}

// NewCgroups returns the cgroups below a cgroup2 mount; root may be empty.
func NewCgroups(root string) *Cgroups {
	return &Cgroups{root: root, containers: map[uint64]string{}}
}

// Container returns the container id of a cgroup, or "" if it is not known to
// be one. What was seen once is remembered after the cgroup is gone.
func (c *Cgroups) Container(id uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	container, known := c.containers[id]
	if known || c.root == "" || time.Since(c.scanned) < rescanEvery {
		return container
	}
	c.scan()
	if container, known = c.containers[id]; !known {
		c.containers[id] = "" // it is gone already: do not look for it again
	}
	return container
}

func (c *Cgroups) scan() {
	c.scanned = time.Now()
	if len(c.containers) > maxCgroups {
		clear(c.containers)
	}
	// Folders come and go during the walk; what cannot be read is left out.
	_ = filepath.WalkDir(c.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // see above
		}
		info, err := entry.Info()
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			c.containers[stat.Ino] = containerOfPath(strings.TrimPrefix(path, c.root))
		}
		return nil
	})
}

// Docker, containerd, CRI-O and Podman name the cgroup by 64 hex digits, with a
// prefix and ".scope" under systemd: docker-<id>.scope, cri-containerd-<id>.scope,
// crio-<id>.scope, libpod-<id>.scope, or just <id>.
var containerForm = regexp.MustCompile(`(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)`)

func containerOfPath(path string) string {
	if m := containerForm.FindStringSubmatch(path); m != nil {
		return m[1]
	}
	return ""
}
