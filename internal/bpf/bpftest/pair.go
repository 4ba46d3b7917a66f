package bpftest

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Pair makes two namespaces joined by veth, 10.9.0.1 (fd09::1) and 10.9.0.2 (fd09::2).
func Pair(t testing.TB) (a, b *NetNS) {
	t.Helper()
	a, b = NewNetNS(t, "a"), NewNetNS(t, "b")
	Run(t, "ip", "link", "add", "v-a", "netns", a.Name, "type", "veth", "peer", "name", "v-b", "netns", b.Name)
	for i, ns := range []*NetNS{a, b} {
		device := "v-" + string("ab"[i])
		ns.Run(t, "sysctl", "-qw", "net.ipv6.conf."+device+".accept_dad=0")
		ns.Run(t, "ip", "addr", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", device)
		ns.Run(t, "ip", "addr", "add", fmt.Sprintf("fd09::%d/64", i+1), "dev", device, "nodad")
		ns.Run(t, "ip", "link", "set", device, "up")
	}
	// IPv6 takes a while to be there, and until a neighbour is known few packets wait for it:
	// the others of a flood would be dropped.
	a.Do(t, func() {
		for _, address := range []string{"10.9.0.2:1", "[fd09::2]:1"} {
			if _, err := net.DialTimeout("tcp", address, 10*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
				t.Error(err)
			}
		}
	})
	return a, b
}
