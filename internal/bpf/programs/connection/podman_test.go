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
// what Podman says of it.
func TestPodmanContainer(t *testing.T) {
	bpftest.RequireRoot(t)
	podman := bpftest.NewPodman(t, buildDial(t, "dial"))
	host := bpftest.NewHost(t)
	host.Names = bpf.NewNames(names.NewHost(podman.Root, slog.New(slog.DiscardHandler)))
	r := bpftest.StartOn(t, connection.Monitor, host, bpf.Options{})
	ns := bpftest.NewNetNS(t, "podman")
	podman.RunIn(t, ns, "web", "--user", "4711", podman.Image, "/dial", "127.0.0.1:7001")

	inspected := strings.Fields(podman.Run(t, "inspect", "--format", "{{.Id}} {{.Name}} {{.ImageName}}", "web"))
	e := r.WaitFor(t, ns, 1, bpftest.Event{
		"destination_port": "7001", "container_id": inspected[0], "container_name": inspected[1], "container_image": inspected[2],
		"executable": "/dial", "command": "dial", "parent_command": "conmon", "uid": "4711",
	})[0]
	if name, known := e["user"]; known {
		t.Errorf("user %q is made up", name)
	}

	// One that is removed as soon as it has ended.
	podman.RunIn(t, ns, "moment", "--rm", podman.Image, "/dial", "127.0.0.1:7002")
	r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": "7002", "container_name": "moment", "container_image": inspected[2]})
}
