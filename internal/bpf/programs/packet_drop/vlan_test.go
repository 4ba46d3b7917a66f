package packetdrop_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// A packet of a VLAN is told with the device that it had come in on where it was dropped:
// that of the VLAN, or before it gets there, the one below. A kernel may be built without
// such devices; those of make test-kernels have them. (Frames with tags that no device
// takes: TestReasons.)
func TestVLAN(t *testing.T) {
	a, b := bpftest.Pair(t)
	if !addVLAN(t, a, "v-a", "10.9.5.1/24") {
		return
	}
	addVLAN(t, b, "v-b", "10.9.5.2/24")
	b.Run(t, "nft", `add table inet t
		add counter inet t dropped
		add chain inet t in { type filter hook input priority 0; }
		add rule inet t in iifname "v-b.5" udp dport 7001 counter name dropped drop
		add table netdev below
		add chain netdev below in { type filter hook ingress device v-b priority 0; }
		add rule netdev below in udp dport 7002 drop`)
	r := bpftest.Start(t, packetdrop.Monitor)
	const n = 5
	a.Do(t, func() {
		for _, to := range []string{"10.9.5.2:7001", "10.9.5.2:7002"} {
			c, err := net.Dial("udp4", to)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range n {
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for port, device := range map[string]string{"7001": "v-b.5", "7002": "v-b"} {
		want := bpftest.Event{
			"protocol": "udp", "source_ip": "10.9.5.1", "destination_ip": "10.9.5.2", "destination_port": port,
			"interface": device, "length": "33",
		}
		if !r.Lacks(t, "drop_reason") {
			want["drop_reason"] = "NETFILTER_DROP"
		}
		r.WaitFor(t, b, n, want)
	}
	if out := b.Run(t, "nft", "list counter inet t dropped"); !strings.Contains(out, "packets 5 ") {
		t.Error(out)
	}
}

// addVLAN gives a device in a namespace a VLAN, 5. False: the kernel has none.
func addVLAN(t *testing.T, ns *bpftest.NetNS, device, address string) bool {
	t.Helper()
	var out []byte
	var err error
	ns.Do(t, func() {
		out, err = exec.Command("ip", "link", "add", "link", device, "name", device+".5", "type", "vlan", "id", "5").CombinedOutput()
	})
	if err != nil {
		if bpftest.Emulated() || !strings.Contains(string(out), "Unknown device type") {
			t.Fatalf("%v: %s", err, out)
		}
		t.Log("this kernel has no VLAN devices")
		return false
	}
	ns.Run(t, "ip", "addr", "add", address, "dev", device+".5")
	ns.Run(t, "ip", "link", "set", device+".5", "up")
	return true
}
