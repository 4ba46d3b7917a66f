package programs_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	packetdrop "github.com/srodi/ebpf-server/internal/bpf/programs/packet_drop"
)

// refused is what a connect to a port where nobody listens makes: one event.
func refused(t *testing.T, ns *bpftest.NetNS, addresses ...string) {
	t.Helper()
	ns.Do(t, func() {
		for _, address := range addresses {
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				t.Errorf("somebody listens on %s", address)
			}
		}
	})
}

func network(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }

// Each of these leaves out the connection to port 7102 on ::1 or 127.0.0.2, and
// no other.
func TestRules(t *testing.T) {
	bpftest.RequireRoot(t)
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	self := strings.TrimSpace(string(command))
	v4, v6 := network("127.0.0.2/32"), network("::1/128")
	tests := map[string]struct {
		options bpf.Options
		want    []string // destination and port of what is recorded
	}{
		"no rule":            {bpf.Options{}, []string{"127.0.0.1:7101", "127.0.0.2:7102", "[::1]:7102"}},
		"port":               {bpf.Options{Exclude: []bpf.Rule{{Ports: [][2]uint16{{7102, 7110}}}}}, []string{"127.0.0.1:7101"}},
		"IPv4 network":       {bpf.Options{Exclude: []bpf.Rule{{Networks: v4}}}, []string{"127.0.0.1:7101", "[::1]:7102"}},
		"IPv6 network":       {bpf.Options{Exclude: []bpf.Rule{{Networks: v6}}}, []string{"127.0.0.1:7101", "127.0.0.2:7102"}},
		"wide network":       {bpf.Options{Exclude: []bpf.Rule{{Networks: network("127.0.0.0/8")}}}, []string{"[::1]:7102"}},
		"all conditions":     {bpf.Options{Exclude: []bpf.Rule{{Networks: v4, Ports: [][2]uint16{{7101, 7101}}}}}, []string{"127.0.0.1:7101", "127.0.0.2:7102", "[::1]:7102"}},
		"two rules":          {bpf.Options{Exclude: []bpf.Rule{{Networks: v4}, {Ports: [][2]uint16{{7101, 7101}}}}}, []string{"[::1]:7102"}},
		"command":            {bpf.Options{Exclude: []bpf.Rule{{Commands: []string{self}}}}, nil},
		"other command":      {bpf.Options{Exclude: []bpf.Rule{{Commands: []string{self[:3], "curl"}}}}, []string{"127.0.0.1:7101", "127.0.0.2:7102", "[::1]:7102"}},
		"uid":                {bpf.Options{Exclude: []bpf.Rule{{UIDs: []uint32{0}}}}, nil},
		"other uid":          {bpf.Options{Exclude: []bpf.Rule{{UIDs: []uint32{1, 65534}}}}, []string{"127.0.0.1:7101", "127.0.0.2:7102", "[::1]:7102"}},
		"include":            {bpf.Options{Include: []bpf.Rule{{Networks: v4}, {Networks: v6}}}, []string{"127.0.0.2:7102", "[::1]:7102"}},
		"include and not":    {bpf.Options{Include: []bpf.Rule{{Ports: [][2]uint16{{7102, 7102}}}}, Exclude: []bpf.Rule{{Networks: v6}}}, []string{"127.0.0.2:7102"}},
		"include, none such": {bpf.Options{Include: []bpf.Rule{{UIDs: []uint32{1}}}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := bpftest.StartWith(t, connection.Monitor, test.options)
			ns := bpftest.NewNetNS(t, "rules")
			refused(t, ns, "127.0.0.1:7101", "127.0.0.2:7102", "[::1]:7102")
			var got []string
			for _, e := range r.Events(t, ns) {
				// The namespace's number may have been that of one that is just going.
				if port := e["destination_port"]; port == "7101" || port == "7102" {
					got = append(got, net.JoinHostPort(e["destination_ip"], port))
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("recorded %v, want %v", got, test.want)
			}
			// Other traffic of this machine may be left out too.
			if excluded := r.Status().Filtered[bpf.FilteredExcluded]; excluded < int64(3-len(test.want)) {
				t.Errorf("%d were counted as left out", excluded)
			}
		})
	}
}

// A cgroup's rule means what is below it too.
func TestCgroupRule(t *testing.T) {
	bpftest.RequireRoot(t)
	mount := "/sys/fs/cgroup"
	if _, err := os.Stat(mount + "/cgroup.procs"); err != nil {
		mount += "/unified"
	}
	parent := filepath.Join("/", fmt.Sprintf("ebpfsrv-rule-%d", os.Getpid()))
	for _, path := range []string{parent, parent + "/child", parent + "-other"} {
		if err := os.Mkdir(mount+path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(mount + path) })
	}
	r := bpftest.StartWith(t, connection.Monitor, bpf.Options{Exclude: []bpf.Rule{{Cgroups: []string{parent}}}})
	ns := bpftest.NewNetNS(t, "cgroup")
	for port, cgroup := range map[string]string{"7101": parent, "7102": parent + "/child", "7103": parent + "-other"} {
		script := `echo 0 > "$1/cgroup.procs" && exec nsenter --net="$2" bash -c "exec 3<>/dev/tcp/127.0.0.1/$3"`
		out, err := exec.Command("bash", "-c", script, "-", mount+cgroup, "/run/netns/"+ns.Name, port).CombinedOutput()
		if !strings.Contains(string(out), "refused") {
			t.Fatalf("connect: %v\n%s", err, out)
		}
	}
	got := r.Events(t, ns)
	if len(got) != 1 || got[0]["destination_port"] != "7103" {
		t.Errorf("recorded %v", got)
	}
}

func TestDropRules(t *testing.T) {
	r := bpftest.StartWith(t, packetdrop.Monitor, bpf.Options{Exclude: []bpf.Rule{
		{Interfaces: []string{"lo"}, Ports: [][2]uint16{{7101, 7101}}},
		{Networks: network("::1/128")},
	}})
	ns := bpftest.NewNetNS(t, "droprules")
	ns.Do(t, func() {
		for _, address := range []string{"127.0.0.1:7101", "127.0.0.1:7102", "[::1]:7103"} {
			c, err := net.Dial("udp", address)
			if err != nil {
				t.Error(err)
				continue
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	})
	for _, e := range r.Events(t, ns) {
		if e["protocol"] == "udp" && e["destination_port"] != "7102" {
			t.Errorf("recorded %v", e)
		}
	}
	r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": "7102", "protocol": "udp"})
}

// Rules are for sockets that listen, too: their address and port are an end.
func TestRulesOfListeners(t *testing.T) {
	r := bpftest.StartWith(t, connection.Monitor, bpf.Options{Exclude: []bpf.Rule{{Ports: [][2]uint16{{7102, 7102}}}, {Networks: network("127.0.0.2/32")}}})
	ns := bpftest.NewNetNS(t, "listenrules")
	ns.Do(t, func() {
		for _, address := range []string{"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.2:7103", "[::]:7104"} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Error(err)
				continue
			}
			l.Close()
		}
	})
	for _, address := range []string{"127.0.0.1:7101", ":::7104"} {
		at := strings.LastIndexByte(address, ':')
		for _, state := range []string{"listening", "stopped"} {
			r.WaitFor(t, ns, 1, bpftest.Event{"state": state, "destination_ip": address[:at], "destination_port": address[at+1:]})
		}
	}
	r.WaitFor(t, ns, 4, nil)
}

// The program's own API is left out on both sides of a connection, and nothing
// else on that port is: that it listens is told.
func TestOwnAPI(t *testing.T) {
	bpftest.RequireRoot(t)
	for i, listen := range []string{"127.0.0.1:0", "[::]:0"} {
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		own := listener.Addr().(*net.TCPAddr).AddrPort()
		host := &bpftest.NetNS{Inode: inodeOfNetNS(t), Made: time.Now()}
		r := bpftest.StartWith(t, connection.Monitor, bpf.Options{OwnAPI: own})
		port := fmt.Sprint(own.Port())
		target := net.JoinHostPort("127.0.0.1", port)
		client, err := net.Dial("tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
		server.Close()
		listener.Close()
		if _, err := net.Dial("tcp", "127.0.0.3:"+port); err == nil {
			t.Error("somebody listens on 127.0.0.3")
		}
		if _, err := net.Dial("udp", target); err != nil { // another protocol
			t.Fatal(err)
		}
		r.WaitFor(t, host, 1, bpftest.Event{"destination_port": port, "protocol": "udp", "state": "established"})
		ns := bpftest.NewNetNS(t, fmt.Sprint("ownapi", i))
		refused(t, ns, target) // the same address, but another host
		other := r.WaitFor(t, ns, 1, bpftest.Event{"destination_port": port})
		if other[0]["state"] != "failed" {
			t.Errorf("recorded %v", other)
		}
		for _, state := range []string{"listening", "stopped"} {
			r.WaitFor(t, host, 1, bpftest.Event{"destination_port": port, "state": state, "attribution": "existing"})
		}
		for _, e := range r.Events(t, host) {
			if e["destination_port"] == port && e["protocol"] == "tcp" && e["destination_ip"] != "127.0.0.3" && e["direction"] != "" {
				t.Errorf("listening on %s: recorded %v", listen, e)
			}
		}
		if n := r.Status().Filtered[bpf.FilteredExcluded]; n < 4 {
			t.Errorf("listening on %s: %d events were left out, want 4: %v", listen, n, r.Events(t, host))
		}
	}
}

func inodeOfNetNS(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(strings.TrimPrefix(link, "net:"), "[]")
}

func TestRulesThatCannotBe(t *testing.T) {
	bpftest.RequireRoot(t)
	host, err := bpf.NewHost(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ports := make([][2]uint16, 65)
	for name, rule := range map[string]bpf.Rule{"room for 64": {Ports: ports}, "no such file": {Cgroups: []string{"/no/such"}}} {
		_, err := bpf.Start(connection.Monitor, host, bpf.Options{Include: []bpf.Rule{{}, rule}}, bpftest.NewRecorder(), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "include: rule 2: ") || !strings.Contains(err.Error(), name) {
			t.Errorf("error is %v, want one with %q", err, name)
		}
	}
}

// As many rules as there is room for, of all conditions, pass the verifier.
func TestManyRules(t *testing.T) {
	var rules bpf.Options
	for i := range uint16(32) {
		r := bpf.Rule{
			Networks: network("10.0.0.0/8"), Ports: [][2]uint16{{i, i + 5}}, UIDs: []uint32{5}, Cgroups: []string{"/"},
			Commands: []string{"abcdefghijklmno"}, Interfaces: []string{"abcdefghijklmno"},
		}
		rules.Exclude, rules.Include = append(rules.Exclude, r), append(rules.Include, r)
	}
	bpftest.StartWith(t, connection.Monitor, rules)
	bpftest.StartWith(t, packetdrop.Monitor, rules)
}
