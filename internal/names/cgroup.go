package names

import (
	"path"
	"regexp"
	"strings"
)

// Cgroup is what a cgroup stands for. What is not known is "".
type Cgroup struct {
	Unit        string // of systemd
	ContainerID string
	Container   // of that id
}

// Cgroup finds the names of a cgroup by its path from the root of the cgroup2
// file system. It reads files: remember the answer.
func (h *Host) Cgroup(path string) Cgroup {
	c := Cgroup{Unit: unitOf(path), ContainerID: containerOf(path)}
	if c.ContainerID != "" {
		c.Container = h.container(c.ContainerID, podOf(path))
	} else {
		c.ContainerID = h.taskOf(path)
	}
	return c
}

// unitOf returns the unit that systemd itself runs the cgroup for, as
// "ps -o unit" and "systemctl status PID" show it: slices hold units, and the
// first folder that is none is the unit. What is below belongs to it: the units
// of a user are below user@UID.service, those in a container below its scope.
func unitOf(cgroup string) string {
	for name := range strings.SplitSeq(strings.TrimPrefix(cgroup, "/"), "/") {
		switch path.Ext(name) {
		case ".slice":
			continue
		case ".service", ".scope", ".socket", ".mount", ".swap":
			// systemd puts a _ before names that the kernel could take for its own.
			return strings.TrimPrefix(name, "_")
		}
		return ""
	}
	return ""
}

// Docker, containerd, CRI-O and Podman name the cgroup by 64 hex digits, with a
// prefix and ".scope" under systemd: docker-<id>.scope, cri-containerd-<id>.scope,
// crio-<id>.scope, libpod-<id>.scope, or just <id>.
var containerForm = regexp.MustCompile(`(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)`)

func containerOf(cgroup string) string {
	if m := containerForm.FindStringSubmatch(cgroup); m != nil {
		return m[1]
	}
	return ""
}

// The kubelet names the cgroup of a pod pod<uid>, or under systemd
// kubepods-burstable-pod<uid>.slice with _ for -. The uid of a static pod is a
// hash, without any.
var podForm = regexp.MustCompile(`[/-]pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?:\.slice)?/`)

func podOf(cgroup string) string {
	if m := podForm.FindStringSubmatch(cgroup); m != nil && strings.Contains(cgroup, "kubepods") {
		return strings.ReplaceAll(m[1], "_", "-")
	}
	return ""
}
