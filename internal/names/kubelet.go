package names

import (
	"path/filepath"
	"strings"
)

// kubelet reads the names that the kubelet gives to logs, which are the same
// with every runtime:
//
//	/var/log/containers/<pod>_<namespace>_<container>-<container id>.log
//	/var/log/pods/<namespace>_<pod>_<pod uid>/
//
// The first is made when the container has started, the second before.
// Kubernetes allows no _ in names.
func (h *Host) kubelet(id, podUID string) Pod {
	var p Pod
	for _, path := range h.glob("var/log/containers/*_*_*-" + id + ".log") {
		fields := strings.Split(strings.TrimSuffix(filepath.Base(path), "-"+id+".log"), "_")
		if len(fields) == 3 {
			p = p.or(Pod{Name: fields[0], Namespace: fields[1], Container: fields[2]})
		}
	}
	if podUID == "" {
		return p
	}
	for _, path := range h.glob("var/log/pods/*_*_" + podUID) {
		fields := strings.Split(filepath.Base(path), "_")
		if len(fields) == 3 {
			p = p.or(Pod{Name: fields[1], Namespace: fields[0]})
		}
	}
	return p
}
