package programs_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// actor is a process that writes to a path of bash's, as /dev/tcp/127.0.0.1/7101.
type actor struct {
	command string
	uid     int
	cgroup  string
	path    string
}

// act runs it to its end. The process sets its own name: its file is bash's.
func act(t *testing.T, ns *bpftest.NetNS, a actor) {
	t.Helper()
	script := `echo 0 > "$1/cgroup.procs" && exec nsenter --net="$2" setpriv --reuid="$3" --clear-groups \
		bash -c 'printf %s "$0" > "/proc/$$/comm"; echo x > "$1"; exit 0' "$4" "$5"`
	out, err := exec.Command("bash", "-c", script, "-", filepath.Join(bpf.CgroupRoot(), a.cgroup), "/run/netns/"+ns.Name, strconv.Itoa(a.uid), a.command, a.path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", a, err, out)
	}
}

// newCgroups makes a cgroup, one below it, and one that has only the name in common.
func newCgroups(t *testing.T) (parent, child, other string) {
	t.Helper()
	parent = fmt.Sprintf("/ebpfsrv-traffic-%d", os.Getpid())
	child, other = parent+"/child", parent+"-other"
	for _, path := range []string{parent, child, other} {
		folder := filepath.Join(bpf.CgroupRoot(), path)
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(folder) })
	}
	return parent, child, other
}

// idle is long enough that no UDP flow of this machine ends by it meanwhile.
var idle = bpf.Options{UDPIdle: time.Hour}

// checkLeftOut checks how many events a monitor with rules counts as left out: n of the
// traffic, and no more than what a monitor without rules has recorded beside it. That one
// is looked at before and after: where nothing else happens on this machine, both are the same.
func checkLeftOut(t *testing.T, ns *bpftest.NetNS, all, r *bpftest.Recorder, n int64, traffic func()) {
	t.Helper()
	look := func(r *bpftest.Recorder) (events, excluded int64) {
		_ = r.Events(t, ns)
		s := r.Status()
		return s.Events, s.Filtered[bpf.FilteredExcluded]
	}
	allBefore, _ := look(all)
	// Who makes an event may be interrupted when one monitor has seen it and the other has not.
	time.Sleep(50 * time.Millisecond)
	before, excludedBefore := look(r)
	traffic()
	after, excluded := look(r)
	for deadline := time.Now().Add(20 * time.Second); excluded-excludedBefore < n && time.Now().Before(deadline); after, excluded = look(r) {
		time.Sleep(20 * time.Millisecond)
	}
	allAfter, _ := look(all)
	excluded -= excludedBefore
	most := allAfter - allBefore - (after - before)
	if excluded < n || excluded > most {
		t.Errorf("%d events were counted as left out, want %d (at most %d)", excluded, n, most)
	}
	if most > n {
		t.Logf("this machine had other traffic: %d to %d events were to be left out", n, most)
	}
}

// portsOf returns the destination ports of what was recorded, of those that the tests use.
func portsOf(events []bpftest.Event) string {
	var ports []string
	for _, e := range events {
		if port := e["destination_port"]; strings.HasPrefix(port, "710") {
			ports = append(ports, port)
		}
	}
	return strings.Join(ports, " ")
}

// What a rule of include means is recorded, and nothing else is; what is not is
// counted, each event once.
func TestInclude(t *testing.T) {
	all := bpftest.StartWith(t, connection.Monitor, idle)
	ns := bpftest.NewNetNS(t, "include")
	ns.Run(t, "ip", "addr", "add", "10.9.0.1/32", "dev", "lo") // no loopback address
	parent, child, other := newCgroups(t)
	actors := []actor{ // nobody listens: one event each
		{"rule-one", 4711, child, "/dev/tcp/127.0.0.1/7101"},
		{"rule-two", 4712, other, "/dev/tcp/::1/7102"},
		{"rule-one", 4712, parent, "/dev/tcp/10.9.0.1/7103"},
	}
	loopback := append(network("127.0.0.0/8"), network("::1/128")...) // as the configuration has it
	for _, test := range []struct {
		name    string
		include []bpf.Rule
		want    string
	}{
		{"command", []bpf.Rule{{Commands: []string{"rule-one"}}}, "7101 7103"},
		{"begin of a command", []bpf.Rule{{Commands: []string{"rule-"}}}, ""},
		{"uid", []bpf.Rule{{UIDs: []uint32{4712}}}, "7102 7103"},
		{"cgroup", []bpf.Rule{{Cgroups: []string{parent}}}, "7101 7103"},
		{"cgroup below", []bpf.Rule{{Cgroups: []string{child}}}, "7101"},
		{"loopback", []bpf.Rule{{Networks: loopback}}, "7101 7102"},
		{"all conditions", []bpf.Rule{{Commands: []string{"rule-one"}, UIDs: []uint32{4712}, Cgroups: []string{parent}, Networks: network("10.9.0.0/24")}}, "7103"},
		{"all but one condition", []bpf.Rule{{Commands: []string{"rule-one"}, UIDs: []uint32{4711}, Cgroups: []string{other}, Networks: loopback}}, ""},
		{"two rules", []bpf.Rule{{UIDs: []uint32{4711}}, {Cgroups: []string{other}}}, "7101 7102"},
		// A connection has none, and what is not known meets no condition. (The
		// configuration refuses such a rule.)
		{"interface", []bpf.Rule{{Interfaces: []string{"lo"}}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := bpftest.StartWith(t, connection.Monitor, bpf.Options{Include: test.include, UDPIdle: idle.UDPIdle})
			seen := len(all.Events(t, ns))
			checkLeftOut(t, ns, all, r, int64(len(actors)-len(strings.Fields(test.want))), func() {
				for _, a := range actors {
					act(t, ns, a)
				}
			})
			if got := portsOf(r.Events(t, ns)); got != test.want {
				t.Errorf("recorded %q, want %q", got, test.want)
			}
			if got := portsOf(all.Events(t, ns)[seen:]); got != "7101 7102 7103" {
				t.Errorf("without rules: recorded %q", got)
			}
		})
	}
}

// Each end of a connection is its own process's: a rule by command means one of them,
// with all its events, and what listens for it.
func TestIncludeOfOneEnd(t *testing.T) {
	bpftest.RequireRoot(t)
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	all := bpftest.StartWith(t, connection.Monitor, idle)
	for _, test := range []struct {
		name, command string
		want          []bpftest.Event
		leftOut       int64
	}{
		{"server", strings.TrimSpace(string(command)), []bpftest.Event{
			{"state": "listening"}, {"state": "established", "direction": "inbound"}, {"state": "closed", "direction": "inbound", "bytes_received": "2"}, {"state": "stopped"},
		}, 2},
		{"client", "rule-client", []bpftest.Event{
			{"state": "established", "direction": "outbound"}, {"state": "closed", "direction": "outbound", "bytes_sent": "2"},
		}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := bpftest.StartWith(t, connection.Monitor, bpf.Options{Include: []bpf.Rule{{Commands: []string{test.command}}}, UDPIdle: idle.UDPIdle})
			ns := bpftest.NewNetNS(t, "end-"+test.name)
			checkLeftOut(t, ns, all, r, test.leftOut, func() {
				ns.Do(t, func() {
					l, err := net.Listen("tcp4", "127.0.0.1:7101")
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					act(t, ns, actor{"rule-client", 4711, "/", "/dev/tcp/127.0.0.1/7101"})
					served, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					defer served.Close()
					if n, err := served.Read(make([]byte, 10)); n != 2 || err != nil {
						t.Errorf("read %d, %v", n, err)
					}
				})
				all.WaitFor(t, ns, 2, bpftest.Event{"state": "closed"})
				all.WaitFor(t, ns, 1, bpftest.Event{"state": "stopped"})
			})
			for _, want := range test.want {
				want["command"] = test.command
				r.WaitFor(t, ns, 1, want)
			}
			r.WaitFor(t, ns, len(test.want), nil)
		})
	}
}

// Rules of drops: by who sent the packet, where that is known, by its port and by
// its interface alone.
func TestDropRulesOneByOne(t *testing.T) {
	all := bpftest.Start(t, packetdrop.Monitor)
	ns, _ := bpftest.Pair(t)
	ns.Run(t, "nft", "add table ip t; add chain ip t out { type filter hook output priority 0; }; add rule ip t out udp dport 7101-7103 drop")
	parent, child, other := newCgroups(t)
	actors := []actor{
		{"rule-one", 4711, child, "/dev/udp/127.0.0.1/7101"},
		{"rule-two", 4712, other, "/dev/udp/10.9.0.2/7102"},
		{"rule-one", 4712, parent, "/dev/udp/10.9.0.2/7103"},
		{"rule-two", 0, parent, "/dev/udp/127.0.0.1/7104"}, // nobody listens: when it is dropped it has no socket
	}
	for _, test := range []struct {
		name    string
		options bpf.Options
		want    string
	}{
		{"not uid", bpf.Options{Exclude: []bpf.Rule{{UIDs: []uint32{4712}}}}, "7101 7104"},
		{"not uid, which is not known", bpf.Options{Exclude: []bpf.Rule{{UIDs: []uint32{0}}}}, "7101 7102 7103 7104"},
		{"not cgroup", bpf.Options{Exclude: []bpf.Rule{{Cgroups: []string{parent}}}}, "7102 7104"},
		{"not port", bpf.Options{Exclude: []bpf.Rule{{Ports: [][2]uint16{{7102, 7103}}}}}, "7101 7104"},
		{"not interface", bpf.Options{Exclude: []bpf.Rule{{Interfaces: []string{"lo"}}}}, "7102 7103"},
		{"uid", bpf.Options{Include: []bpf.Rule{{UIDs: []uint32{0, 4711}}}}, "7101"},
		{"cgroup", bpf.Options{Include: []bpf.Rule{{Cgroups: []string{parent}}}}, "7101 7103"},
		{"port", bpf.Options{Include: []bpf.Rule{{Ports: [][2]uint16{{7104, 7104}, {7102, 7102}}}}}, "7102 7104"},
		{"interface", bpf.Options{Include: []bpf.Rule{{Interfaces: []string{"v-a"}}}}, "7102 7103"},
		{"begin of an interface", bpf.Options{Include: []bpf.Rule{{Interfaces: []string{"v-", "l"}}}}, ""},
		{"interface and port", bpf.Options{Include: []bpf.Rule{{Interfaces: []string{"lo"}, Ports: [][2]uint16{{7103, 7104}}}}}, "7104"},
		{"interface, not cgroup", bpf.Options{Include: []bpf.Rule{{Interfaces: []string{"v-a"}}}, Exclude: []bpf.Rule{{Cgroups: []string{parent}}}}, "7102"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := bpftest.StartWith(t, packetdrop.Monitor, test.options)
			seen := len(all.Events(t, ns))
			checkLeftOut(t, ns, all, r, int64(len(actors)-len(strings.Fields(test.want))), func() {
				for _, a := range actors {
					act(t, ns, a)
				}
			})
			if got := portsOf(r.Events(t, ns)); got != test.want {
				t.Errorf("recorded %q, want %q", got, test.want)
			}
			if got := portsOf(all.Events(t, ns)[seen:]); got != "7101 7102 7103 7104" {
				t.Errorf("without rules: recorded %q", got)
			}
		})
	}
}
