package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// The tests here run the built binary, as root, on real traffic, through its
// public interface.

// built holds the binaries; TestMain makes and removes it.
var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if built, err = os.MkdirTemp("", "ebpf-server-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(built)
	for name, pkg := range map[string]string{"ebpf-server": ".", "tserver": "./testdata/traffic", "tclient": "./testdata/traffic"} {
		if err := build(".", filepath.Join(built, name), pkg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

func build(dir, to, pkg string) error {
	command := exec.Command("go", "build", "-trimpath", "-o", to, pkg)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// server is a running ebpf-server.
type server struct {
	t       testing.TB
	url     string
	command *exec.Cmd
	log     *output
	ended   chan error
}

// output keeps what a process prints; it is written and read at the same time.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the binary on a db file and waits until it records. It is stopped
// when the test ends, if the test did not do so.
func start(t testing.TB, binary, db string, args ...string) *server {
	t.Helper()
	bpftest.RequireRoot(t)
	address := freeAddress(t)
	s := &server{t: t, url: "http://" + address, log: &output{}, ended: make(chan error, 1)}
	s.command = exec.Command(binary, append([]string{"--address", address, "--db", db, "--config", emptyConfig(t)}, args...)...)
	s.command.Stdout, s.command.Stderr = s.log, s.log
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.command.Wait() }()
	t.Cleanup(func() {
		if s.command.ProcessState == nil {
			s.stop()
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log)
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		answer, err := http.Get(s.url + "/health")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return s
			}
		}
		select {
		case err := <-s.ended:
			t.Fatalf("ended at once: %v\n%s", err, s.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("does not record after 30 s: %v\n%s", err, s.log)
		}
	}
}

// emptyConfig keeps the test from reading a configuration of the machine.
func emptyConfig(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// stop ends the server as systemd would, and checks that it ends well.
func (s *server) stop() {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatalf("end server: %v", err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("server ended with %v\n%s", err, s.log)
		}
	case <-time.After(30 * time.Second):
		_ = s.command.Process.Kill()
		s.t.Errorf("server did not end within 30 s\n%s", s.log)
	}
}

// get asks the API and decodes its JSON answer.
func (s *server) get(path string, query url.Values, answer any) {
	s.t.Helper()
	response, err := http.Get(s.url + path + "?" + query.Encode())
	if err != nil {
		s.t.Fatal(err)
	}
	s.decode(response, answer)
}

func (s *server) post(path, body string, answer any) {
	s.t.Helper()
	// As curl -d does it: no JSON content type.
	response, err := http.Post(s.url+path, "application/x-www-form-urlencoded", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	s.decode(response, answer)
}

func (s *server) decode(response *http.Response, answer any) {
	s.t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s\n%s", response.Request.URL, response.Status, body)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		s.t.Fatalf("%s: %v\n%s", response.Request.URL, err, body)
	}
}

type coverage struct {
	Complete bool
	Gaps     []struct {
		Reason string
		From   time.Time
	}
	Lost     map[string]int64
	Filtered map[string]map[string]int64
}

type program struct {
	Name, Collection    string
	State, Error, Needs string
	Seen, Events        int64
	Lost, Filtered      map[string]int64
	Hooks               []struct {
		Name     string
		Runs     int64 `json:"measured_runs"`
		NSPerRun int64 `json:"ns_per_run"`
	}
}

type programList struct{ Programs []program }

func (s *server) programs() programList {
	s.t.Helper()
	var list programList
	s.get("/api/programs", nil, &list)
	return list
}

type events struct {
	Events     []map[string]any
	Count      int
	NextCursor string `json:"next_cursor"`
	Coverage   coverage
}

func (s *server) events(query url.Values) events {
	s.t.Helper()
	var answer events
	s.get("/api/events", query, &answer)
	return answer
}

type summary struct {
	Count    int64
	Counts   map[string]int64
	Sums     map[string]int64
	Top      map[string][]map[string]any
	Groups   []map[string]any
	Coverage coverage
}

func (s *server) summary(collection string, query url.Values) summary {
	s.t.Helper()
	var answer summary
	s.get("/api/"+collection+"/summary", query, &answer)
	return answer
}

// storedEvents returns how many events there are, and whether all are in the file.
func (s *server) storedEvents() (int64, bool) {
	s.t.Helper()
	var health struct {
		Store struct{ Events, Pending int64 }
	}
	s.get("/health", nil, &health)
	return health.Store.Events, health.Store.Pending == 0
}

// eventually repeats a check until it is content; the kernel ends connections
// in its own time.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Error(err)
}
