package names

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var id = strings.Repeat("3f4e7c0a9b128d56", 4)

const uid = "6f1c2a90-1a2b-4c3d-8e9f-0123456789ab"

func TestContainerOf(t *testing.T) {
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
		if got := containerOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for path, want := range map[string]string{
		"/system.slice/nginx.service":                                       "nginx.service",
		"/system.slice/system-getty.slice/getty@tty1.service":               "getty@tty1.service",
		"/user.slice/user-1000.slice/session-3.scope":                       "session-3.scope",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/x-1.scope": "user@1000.service",
		"/system.slice/docker-" + id + ".scope/system.slice/nginx.service":  "docker-" + id + ".scope",
		"/init.scope":                                   "init.scope",
		"/system.slice/_cpu.service":                    "cpu.service",
		"/system.slice/delegated.service/worker.scope":  "delegated.service",
		"/system.slice":                                 "",
		"/kubepods/burstable/pod" + uid + "/" + id:      "",
		"/docker/" + id + "/system.slice/nginx.service": "",
		"/": "",
		"":  "",
	} {
		if got := unitOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestPodOf(t *testing.T) {
	static := strings.ReplaceAll(uid, "-", "")
	for path, want := range map[string]string{
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/cri-containerd-" + id + ".scope": uid,
		"/kubepods/besteffort/pod" + uid + "/" + id:                              uid,
		"/kubepods.slice/kubepods-pod" + static + ".slice/crio-" + id + ".scope": static,
		"/system.slice/pod" + uid + "/x":                                         "",
		"/kubepods/pod1234/" + id:                                                "",
	} {
		if got := podOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// The files are as their writers leave them, without what is not read: Docker
// 20.10, Podman 4.3 and containerd 1.6 were run, and are by the tests of the
// monitor of connections. Those of CRI-O, cri-dockerd and
// the kubelet are as their sources say.
func TestContainer(t *testing.T) {
	nginx := Pod{Name: "web-1", Namespace: "shop", Container: "nginx"}
	for name, test := range map[string]struct {
		files map[string]string
		want  Container
	}{
		"docker": {
			map[string]string{"var/lib/docker/containers/" + id + "/config.v2.json": `{"ID":"` + id + `","Name":"/web","Config":{"Image":"nginx:1.27","Labels":{"maintainer":"x"}}}`},
			Container{Name: "web", Image: "nginx:1.27"},
		},
		"cri-dockerd": {
			map[string]string{"var/lib/docker/containers/" + id + "/config.v2.json": `{"Name":"/k8s_nginx_web-1_shop_x_0","Config":{"Image":"sha256:1","Labels":{"io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"shop","io.kubernetes.container.name":"nginx"}}}`},
			Container{Name: "k8s_nginx_web-1_shop_x_0", Image: "sha256:1", Pod: nginx},
		},
		"podman": {
			map[string]string{"var/lib/containers/storage/overlay-containers/containers.json": `[{"id":"other","names":["no"]},{"id":"` + id + `","names":["web"],"image":"2568","metadata":"{\"image-name\":\"docker.io/library/nginx:1.27\",\"name\":\"web\"}"}]`},
			Container{Name: "web", Image: "docker.io/library/nginx:1.27"},
		},
		"podman, volatile": {
			map[string]string{"run/containers/storage/overlay-containers/volatile-containers.json": `[{"id":"` + id + `","names":["web"],"metadata":"no JSON"}]`},
			Container{Name: "web"},
		},
		"containerd": {
			map[string]string{"run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id + "/config.json": `{"annotations":{"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.image-name":"docker.io/library/nginx:1.27","io.kubernetes.cri.sandbox-name":"web-1","io.kubernetes.cri.sandbox-namespace":"shop"}}`},
			Container{Name: "nginx", Image: "docker.io/library/nginx:1.27", Pod: nginx},
		},
		"containerd, sandbox": {
			map[string]string{"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" + id + "/config.json": `{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"web-1","io.kubernetes.cri.sandbox-namespace":"shop"}}`},
			Container{Pod: Pod{Name: "web-1", Namespace: "shop"}},
		},
		"crio": {
			map[string]string{"run/containers/storage/overlay-containers/" + id + "/userdata/config.json": `{"annotations":{"io.kubernetes.container.name":"nginx","io.kubernetes.cri-o.ImageName":"docker.io/library/nginx:1.27","io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"shop"}}`},
			Container{Name: "nginx", Image: "docker.io/library/nginx:1.27", Pod: nginx},
		},
		"kubelet, log of the container": {
			map[string]string{"var/log/containers/web-1_shop_nginx-" + id + ".log": ""},
			Container{Pod: nginx},
		},
		"kubelet, logs of the pod": {
			map[string]string{"var/log/pods/shop_web-1_" + uid + "/nginx/0.log": ""},
			Container{Pod: Pod{Name: "web-1", Namespace: "shop"}},
		},
		"not JSON": {
			map[string]string{
				"var/lib/docker/containers/" + id + "/config.v2.json":                          `{"Name":`,
				"var/lib/containers/storage/overlay-containers/containers.json":                `{}`,
				"run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id + "/config.json":   "",
				"var/log/pods/nonsense_" + uid + "/nginx/0.log":                                "",
				"run/containers/storage/overlay-containers/" + id + "/userdata/config.json/in": "a folder where a file should be",
			},
			Container{},
		},
		"nothing": {nil, Container{}},
	} {
		t.Run(name, func(t *testing.T) {
			h := hostOf(t, test.files)
			if got := h.container(id, uid); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

// Who uses containerd by itself makes up ids, and the cgroup is named by them:
// containerd 1.6 was run.
func TestTaskOf(t *testing.T) {
	const folder = "run/containerd/io.containerd.runtime.v2.task/"
	h := hostOf(t, map[string]string{
		folder + "default/web/config.json":        `{"ociVersion":"1.0.2-dev","process":{"args":["/dial"]},"linux":{"cgroupsPath":"/default/web"}}`,
		folder + "default/moved/config.json":      `{"linux":{"cgroupsPath":"/elsewhere/moved"}}`,
		folder + "default/no-json/config.json":    `{"linux":`,
		folder + "default/" + id + "/config.json": `{"linux":{"cgroupsPath":"/default/` + id + `"}}`,
	})
	for path, want := range map[string]Cgroup{
		"/default/web":            {ContainerID: "web"},
		"/default/web/init":       {ContainerID: "web"},
		"/default/" + id:          {ContainerID: id},
		"/default/moved":          {},
		"/default/no-json":        {},
		"/default/gone":           {},
		"/other/web":              {},
		"/a.slice/default/web":    {},
		"/system.slice/x.service": {Unit: "x.service"},
		"/default":                {},
		"/":                       {},
		"":                        {},
	} {
		if got := h.Cgroup(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

// A FIFO, or a file too long to be one of a runtime, stops nobody.
func TestOddFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	var to any
	if err := readJSON(path, &to); err == nil {
		t.Error("a file that is too long was read")
	}
	if err := readJSON(t.TempDir(), &to); err == nil {
		t.Error("a folder was read")
	}
}

func TestUsers(t *testing.T) {
	h := hostOf(t, map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:\nweb:x:33:33::/:\n+nis\n:x:7:\nbad:x:y:1\nhuge:x:4294967296:1\n"})
	for uid, want := range map[uint32]string{0: "root", 33: "web", 7: "", 1: ""} {
		if got := h.Users.Name(uid); got != want {
			t.Errorf("%d: %q, want %q", uid, got, want)
		}
	}
	path := filepath.Join(h.root, "etc/passwd")
	writeFile(t, path+".new", "web:x:34:34::/:\n")
	if err := os.Rename(path+".new", path); err != nil { // as useradd does
		t.Fatal(err)
	}
	h.Users.Refresh()
	if h.Users.Name(34) != "web" || h.Users.Name(33) != "" {
		t.Errorf("the change was not seen: %q, %q", h.Users.Name(34), h.Users.Name(33))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.Users.Refresh()
	if h.Users.Name(34) != "web" {
		t.Error("forgotten because the file is missing for a moment")
	}
}

func hostOf(t *testing.T, files map[string]string) *Host {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		writeFile(t, filepath.Join(root, path), text)
	}
	return NewHost(root, slog.New(slog.DiscardHandler))
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
}
