package names

import (
	"cmp"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
)

// Container is what a container is called. What is not known is "".
type Container struct {
	Name  string // by its runtime; in Kubernetes as in the pod's description
	Image string // as it was asked for
	Pod   Pod
}

// Pod is what Kubernetes calls a container.
type Pod struct{ Name, Namespace, Container string }

// or fills in what is not known yet.
func (c Container) or(other Container) Container {
	return Container{Name: cmp.Or(c.Name, other.Name), Image: cmp.Or(c.Image, other.Image), Pod: c.Pod.or(other.Pod)}
}

func (p Pod) or(other Pod) Pod {
	return Pod{Name: cmp.Or(p.Name, other.Name), Namespace: cmp.Or(p.Namespace, other.Namespace), Container: cmp.Or(p.Container, other.Container)}
}

// container asks the files of every runtime for an id, and those of the kubelet.
func (h *Host) container(id, podUID string) Container {
	c := h.containerd(id).or(h.docker(id)).or(h.crio(id)).or(h.storage(id))
	c.Pod = c.Pod.or(h.kubelet(id, podUID))
	if c.Pod.Container == "POD" { // a pod's sandbox is no container of the pod
		c.Pod.Container = ""
	}
	return c
}

// tasks are where containerd keeps <namespace>/<id>/config.json, the OCI
// configuration of a running container.
var tasks = []string{"run/containerd/io.containerd.runtime.v2.task", "run/k3s/containerd/io.containerd.runtime.v2.task"}

// containerd finds what the kubelet asked for, in the annotations of the CRI
// plugin; containerd by itself has no names.
func (h *Host) containerd(id string) Container {
	var c Container
	for _, folder := range tasks {
		for _, path := range h.glob(folder + "/*/" + id + "/config.json") {
			c = c.or(h.annotated(path, "io.kubernetes.cri.container-name", "io.kubernetes.cri.image-name",
				"io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"))
		}
	}
	return c
}

// taskOf finds the id that somebody who uses containerd by itself made up for a
// container, with "ctr run" for one. The cgroup is then /<namespace>/<id>, as
// the container's configuration says.
func (h *Host) taskOf(cgroup string) string {
	fields := strings.SplitN(cgroup, "/", 4) // "", namespace, id, what is below
	if len(fields) < 3 {
		return ""
	}
	for _, folder := range tasks {
		var config struct {
			Linux struct {
				CgroupsPath string `json:"cgroupsPath"`
			} `json:"linux"`
		}
		h.note(readJSON(filepath.Join(h.root, folder, fields[1], fields[2], "config.json"), &config))
		if config.Linux.CgroupsPath == "/"+fields[1]+"/"+fields[2] {
			return fields[2]
		}
	}
	return ""
}

// crio reads the annotations that CRI-O gives its containers.
func (h *Host) crio(id string) Container {
	var c Container
	for _, storage := range storages {
		for _, path := range h.glob(storage + "/*-containers/" + id + "/userdata/config.json") {
			c = c.or(h.annotated(path, "io.kubernetes.container.name", "io.kubernetes.cri-o.ImageName",
				"io.kubernetes.pod.name", "io.kubernetes.pod.namespace"))
		}
	}
	return c
}

// annotated reads the annotations of an OCI configuration.
func (h *Host) annotated(path, name, image, pod, namespace string) Container {
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	h.note(readJSON(path, &config))
	of := func(key string) string { return config.Annotations[key] }
	return Container{Name: of(name), Image: of(image), Pod: Pod{Name: of(pod), Namespace: of(namespace), Container: of(name)}}
}

// Docker keeps a folder for each container. The labels are those of cri-dockerd.
func (h *Host) docker(id string) Container {
	var config struct {
		Name   string
		Config struct {
			Image  string
			Labels map[string]string
		}
	}
	h.note(readJSON(filepath.Join(h.root, "var/lib/docker/containers", id, "config.v2.json"), &config))
	label := func(key string) string { return config.Config.Labels["io.kubernetes."+key] }
	return Container{
		Name: strings.TrimPrefix(config.Name, "/"), Image: config.Config.Image,
		Pod: Pod{Name: label("pod.name"), Namespace: label("pod.namespace"), Container: label("container.name")},
	}
}

// storages are where the library containers/storage, of Podman and CRI-O, keeps
// what it knows: for ever, and until the next boot.
var storages = []string{"var/lib/containers/storage", "run/containers/storage"}

// storage reads the list of containers of that library, which Podman writes
// their names into. There is one for each storage driver, and one for
// containers that are not meant to survive the next boot.
func (h *Host) storage(id string) Container {
	type entry struct {
		ID       string   `json:"id"`
		Names    []string `json:"names"`
		Metadata string   `json:"metadata"` // JSON once more
	}
	var found Container
	for _, storage := range storages {
		for _, path := range h.glob(storage + "/*-containers/*containers.json") {
			var list []entry
			h.note(readJSON(path, &list))
			i := slices.IndexFunc(list, func(e entry) bool { return e.ID == id })
			if i < 0 {
				continue
			}
			var c Container
			var metadata struct {
				Image string `json:"image-name"`
			}
			if json.Unmarshal([]byte(list[i].Metadata), &metadata) == nil {
				c.Image = metadata.Image
			}
			if len(list[i].Names) > 0 {
				c.Name = list[i].Names[0]
			}
			found = found.or(c)
		}
	}
	return found
}
