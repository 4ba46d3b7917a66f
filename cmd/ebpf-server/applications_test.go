package main_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// Programs that others wrote, as Debian packages them, talk over a cable between
// two network namespaces. What is recorded of that is compared with what they
// and the kernel's own counters say; docs/connections.md has a table of it.

const (
	clientIP  = "10.9.0.1"
	serviceIP = "10.9.0.2"
)

func TestApplications(t *testing.T) {
	t.Setenv("EBPF_SERVER_PROGRAMS_CONNECTION_UDP_IDLE", "1s")
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	for _, test := range []struct {
		name string
		run  func(*hosts)
	}{
		{"nginx and wrk, connections that are kept", nginxKeepAlive},
		{"nginx and wrk, a connection for each request", nginxClose},
		{"nginx and curl", nginxCurl},
		{"nginx, curl and iperf3 where packets are lost", nginxLoss},
		{"PostgreSQL and pgbench", postgres},
		{"redis-server and redis-benchmark", redis},
		{"iperf3, TCP", iperfTCP},
		{"iperf3, UDP", iperfUDP},
		{"dnsmasq and dig", dns},
		{"Python asyncio", asyncio},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newHosts(t, s)) })
	}
	s.checkAccount()
}

// checkAccount compares what the monitor of connections has seen with what became
// of it; connections of others on this machine are among them.
func (s *server) checkAccount() {
	s.t.Helper()
	eventually(s.t, func() error {
		for _, p := range s.programs().Programs {
			sum, lost := p.Events, int64(0)
			for _, n := range p.Filtered {
				sum += n
			}
			for _, n := range p.Lost {
				lost += n
			}
			if p.Name == "connection" && (lost != 0 || p.Seen != sum) {
				return fmt.Errorf("%d were seen; %d recorded, filtered %v, lost %v", p.Seen, p.Events, p.Filtered, p.Lost)
			}
		}
		return nil
	})
}

// hosts are two network namespaces with a cable between them.
type hosts struct {
	*testing.T
	recorder        *server
	client, service *bpftest.NetNS
}

func newHosts(t *testing.T, s *server) *hosts {
	t.Helper()
	h := &hosts{t, s, bpftest.NewNetNS(t, "client"), bpftest.NewNetNS(t, "service")}
	bpftest.Run(t, "ip", "link", "add", "cable", "netns", h.client.Name, "type", "veth", "peer", "name", "cable", "netns", h.service.Name)
	for ns, ip := range map[*bpftest.NetNS]string{h.client: clientIP, h.service: serviceIP} {
		ns.Run(t, "ip", "addr", "add", ip+"/24", "dev", "cable")
		ns.Run(t, "ip", "link", "set", "cable", "up")
	}
	return h
}

// process is a program that runs in a namespace.
type process struct {
	*exec.Cmd
	input  io.Writer
	output output
	ended  chan struct{} // closed when it has
	err    error         // how it ended
}

// launch starts a program. It is told to end when the test ends, if it still runs.
func (h *hosts) launch(ns *bpftest.NetNS, name string, args ...string) *process {
	h.Helper()
	h.installed(name)
	p := &process{Cmd: ns.Command(name, args...), ended: make(chan struct{})}
	p.Stdout, p.Stderr = &p.output, &p.output
	var err error
	if p.input, err = p.StdinPipe(); err != nil {
		h.Fatal(err)
	}
	if err := p.Start(); err != nil {
		h.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.Wait()
	}()
	h.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM) // fails if it has ended
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			_ = p.Process.Kill()
			h.Errorf("%s does not end when it is told to", p)
		}
		if h.Failed() {
			h.Logf("%s:\n%s", p, &p.output)
		}
	})
	return p
}

// serve launches a program in the namespace of services and waits until it listens.
func (h *hosts) serve(port int, name string, args ...string) *process {
	h.Helper()
	p := h.launch(h.service, name, args...)
	eventually(h, func() error {
		if h.service.Run(h, "ss", "-tlnH", "sport", "=", strconv.Itoa(port)) == "" {
			return fmt.Errorf("%s does not listen\n%s", p, &p.output)
		}
		return nil
	})
	return p
}

// wait returns what a program printed, once it has ended by itself, and well.
func (h *hosts) wait(p *process) string {
	h.Helper()
	select {
	case <-p.ended:
		if p.err != nil {
			h.Fatalf("%s: %v\n%s", p, p.err, &p.output)
		}
	case <-time.After(30 * time.Second):
		h.Fatalf("%s does not end\n%s", p, &p.output)
	}
	return p.output.String()
}

// run runs a program in the namespace of clients to its end. It returns what the
// program printed, and the process.
func (h *hosts) run(name string, args ...string) (string, owner) {
	h.Helper()
	p := h.launch(h.client, name, args...)
	return h.wait(p), h.owner(p, name, "root")
}

// installed returns the executable of a command.
func (h *hosts) installed(name string) string {
	h.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		h.Fatalf("%v: make test installs what the tests need", err)
	}
	return path
}

// owner is a process as events tell of it.
type owner struct {
	PID                       int
	Command, Executable, User string
}

func (h *hosts) owner(p *process, program, account string) owner {
	h.Helper()
	return owner{p.Process.Pid, filepath.Base(program), h.installed(program), account}
}

// folder makes one that belongs to a user, and is gone after the test; those of
// testing.T are closed to all but root.
func (h *hosts) folder(account string) string {
	h.Helper()
	path, err := os.MkdirTemp("", "ebpf-server-test-")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { os.RemoveAll(path) })
	u, err := user.Lookup(account)
	if err != nil {
		h.Fatalf("%v: make test installs what the tests need", err)
	}
	if err := os.Chown(path, int(h.number(u.Uid)), int(h.number(u.Gid))); err != nil {
		h.Fatal(err)
	}
	return path
}

// write makes a file and returns its path.
func (h *hosts) write(folder, name, text string) string {
	h.Helper()
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.Fatal(err)
	}
	return path
}

func (h *hosts) read(path string) string {
	h.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		h.Fatal(err)
	}
	return string(text)
}

func (h *hosts) number(text string) int64 {
	h.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		h.Fatal(err)
	}
	return n
}

// scan reads values from text, as fmt.Sscan does.
func (h *hosts) scan(text string, values ...any) {
	h.Helper()
	if _, err := fmt.Sscan(text, values...); err != nil {
		h.Fatalf("%v\n%s", err, strings.TrimSpace(text))
	}
}
