package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

var commandForm = regexp.MustCompile("(?ms)^```(sh|python)\n(.*?)^```")

// TestOfflineAnalysisPage runs all that docs/offline-analysis.md says, in its
// order. The server is asked at the address that it has here; DuckDB's shell is
// the real DuckDB with a shell of our own around it.
func TestOfflineAnalysisPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "offline-analysis.md"))
	if err != nil {
		t.Fatal(err)
	}
	tools, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(filepath.Join(built, "ebpf-server"), filepath.Join(tools, "ebpf-server")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(buildDuckDB(t), filepath.Join(tools, "duckdb")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	recorded(t, s)

	ran := 0
	for _, block := range commandForm.FindAllStringSubmatch(string(page), -1) {
		language, text := block[1], block[2]
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		t.Run(first, func(t *testing.T) {
			command := exec.Command("bash", "-euo", "pipefail", "-c", strings.ReplaceAll(text, "ebpf-server snapshot ", "ebpf-server snapshot --server "+s.url+" "))
			if language == "python" {
				mustImport(t, text)
				command = exec.Command("python3", "-c", text)
			}
			command.Dir = dir
			out, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, text, out)
			}
			ran++
			if want := expected(text); !want.Match(out) {
				t.Errorf("%s\nprints no %s:\n%s", text, want, out)
			}
		})
	}
	if ran < 9 {
		t.Errorf("%d blocks were run", ran)
	}
}

// recorded makes connections, one that fails, and a dropped packet of another.
func recorded(t *testing.T, s *server) {
	t.Helper()
	ns := bpftest.NewNetNS(t, "page")
	traffic(t, ns, 50)
	ns.Do(t, func() {
		if c, err := net.Dial("tcp", "127.0.0.1:7009"); err == nil {
			c.Close()
			t.Error("connected to a closed port")
		}
		c, err := net.Dial("udp", "127.0.0.1:7010")
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = c.Write([]byte("dropped"))
		c.Close()
	})
	eventually(t, func() error {
		drops, ends := s.summary("packet_drops", in(ns, "destination_port", "7010")).Count, s.summary("connections", in(ns)).Counts
		if drops != 1 || ends["closed"] < 101 || ends["failed"] != 1 {
			return fmt.Errorf("%d drops, connections %v", drops, ends)
		}
		return nil
	})
}

// mustImport skips a block whose modules this machine does not have: the
// registry that has them is out of reach of the project's machines.
func mustImport(t *testing.T, text string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^import (\w+)`).FindAllStringSubmatch(text, -1) {
		if out, err := exec.Command("python3", "-c", "import "+m[1]).CombinedOutput(); err != nil {
			t.Skipf("Python has no module %s here: %s", m[1], out)
		}
	}
}

// expected is what the output of a block must have, by what it asks for: the
// program that made the connections, the place of the drop, and so on.
func expected(text string) *regexp.Regexp {
	for _, e := range []struct{ asks, want string }{
		{"snapshot", "."}, // check prints what it found
		{"ebpf-server summary", `(?s)tclient.*"bytes_sent": ?\d+`},
		{"ebpf-server export", `^(exporting.*)?$`},
		{"USING (community_id)", `\t127\.0\.0\.1\t7010\tNO_SOCKET\t1\n`},
		{"drop_reason, location", `NO_SOCKET\t__udp4_lib_rcv\t\d+\t\d+\n`},
		{"FILTER (state = 'failed')", `\t[1-9]\d*\t0\.\d+\n`},
		{"read_csv('conn.log'", `(?s)tcp\tSF\t\d+\t\d+\n.*tcp\tREJ\t1\t`},
		{"destination_port, count(*)", `tclient\t127\.0\.0\.1\t7000\t50\t7500\n`},
		{"json.loads", `(?m)^tclient 5000$`},
	} {
		if strings.Contains(text, e.asks) {
			return regexp.MustCompile(e.want)
		}
	}
	return regexp.MustCompile("tclient")
}
