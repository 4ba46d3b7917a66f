package connection_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	"github.com/srodi/ebpf-server/internal/names"
)

// A real container, from an image that holds nothing but dial: its events say
// what Docker says of it.
func TestDockerContainer(t *testing.T) {
	bpftest.RequireRoot(t)
	ns := bpftest.NewNetNS(t, "docker")
	docker := bpftest.NewDocker(t, ns, buildDial(t, "dial"))
	host := bpftest.NewHost(t)
	host.Names = bpf.NewNames(names.NewHost(docker.Root, slog.New(slog.DiscardHandler)))
	r := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	docker.Run(t, "run", "--name", "web", "--network", "host", "--user", "4711", docker.Image, "/dial", "127.0.0.1:7001")

	inspected := strings.Fields(docker.Run(t, "inspect", "--format", "{{.Id}} {{.Name}} {{.Config.Image}}", "web"))
	e := r.WaitFor(t, ns, 1, bpftest.Event{
		"destination_port": "7001", "container_id": inspected[0], "container_name": strings.TrimPrefix(inspected[1], "/"), "container_image": inspected[2],
		"executable": "/dial", "command": "dial", "parent_command": "containerd-shim", "uid": "4711",
	})[0]
	if name, known := e["user"]; known {
		t.Errorf("user %q is made up", name)
	}

	// One that is removed as soon as it has ended.
	docker.Run(t, "run", "--rm", "--name", "moment", "--network", "host", docker.Image, "/dial", "127.0.0.1:7002")
	r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": "7002", "container_name": "moment", "container_image": inspected[2]})
}

// containerd by itself, without Docker: a container is called as whoever started
// it wants, which may be no 64 hex digits. The annotations are as Kubernetes asks
// for them; ctr does it here.
func TestContainerdContainer(t *testing.T) {
	bpftest.RequireRoot(t)
	ns := bpftest.NewNetNS(t, "containerd")
	containerd := bpftest.NewContainerd(t, ns, buildDial(t, "dial"))
	host := bpftest.NewHost(t)
	host.Names = bpf.NewNames(names.NewHost(containerd.Root, slog.New(slog.DiscardHandler)))
	r := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})

	id, pod := strings.Repeat("3f4e7c0a9b128d56", 4), strings.Repeat("7c0a9b128d563f4e", 4)
	for port, test := range map[string]struct {
		id    string
		flags []string
		want  bpftest.Event
	}{
		"7001": {id, nil, bpftest.Event{"container_id": id}},
		"7002": {"web", nil, bpftest.Event{"container_id": "web"}},
		"7003": {pod, []string{
			"--annotation", "io.kubernetes.cri.container-name=nginx", "--annotation", "io.kubernetes.cri.image-name=docker.io/library/nginx:1.27",
			"--annotation", "io.kubernetes.cri.sandbox-name=web-1", "--annotation", "io.kubernetes.cri.sandbox-namespace=shop",
		}, bpftest.Event{
			"container_id": pod, "container_name": "nginx", "container_image": "docker.io/library/nginx:1.27",
			"k8s_pod": "web-1", "k8s_namespace": "shop", "k8s_container": "nginx",
		}},
	} {
		containerd.RunContainer(t, test.flags, test.id, "/dial", "127.0.0.1:"+port)
		e := r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": port, "executable": "/dial", "parent_command": "containerd-shim"})[0]
		for _, column := range []string{"container_id", "container_name", "container_image", "k8s_pod", "k8s_namespace", "k8s_container"} {
			if e[column] != test.want[column] {
				t.Errorf("container %s: %s is %q, want %q", test.id, column, e[column], test.want[column])
			}
		}
	}
}
