package bpf

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/names"
)

var namesType = event.MustType(event.Type{
	Name: "named", Collection: "named", Summary: "Events with an owner.", Breakdown: "state",
	Columns: []event.Column{{Name: "state", Kind: event.KindString, Description: "State."}},
})

func told(length int, end uint8, names ...string) *kernelNamed {
	n := &kernelNamed{PathEnd: end}
	at := 0
	for _, name := range names {
		at += copy(raw(n.Path[at:]), name+"\x00")
	}
	n.PathLength = uint16(at + length)
	return n
}

func TestPathOf(t *testing.T) {
	for want, n := range map[string]*kernelNamed{
		"/usr/bin/curl": told(0, pathRoot, "curl", "bin", "usr"),
		"/init":         told(0, pathRoot, "init"),
		"memfd:x":       told(0, pathNowhere, "memfd:x"),
	} {
		if got := pathOf(n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, n := range []*kernelNamed{told(0, pathRoot), told(0, pathUnknown, "curl", "bin"), told(1000, pathRoot, "curl")} {
		if got := pathOf(n); got != "" {
			t.Errorf("%q is made up", got)
		}
	}
}

// A process is known by its number and its start and what it executes: another
// one that gets the number never has its names.
func TestProcessNumberIsUsedAgain(t *testing.T) {
	n := NewNames(names.NewHost(t.TempDir(), slog.New(slog.DiscardHandler)))
	first := ProcessID{PID: 42, StartNs: 1e9, ExecID: 3}
	n.processes.Add(first, process{executable: "/bin/old", parentPID: 7, parentCommand: "sh"})
	b := event.NewBatch(namesType, 4)
	for _, id := range []ProcessID{first, {PID: 42, StartNs: 2e9, ExecID: 3}, {PID: 42, StartNs: 1e9, ExecID: 4}} {
		b.Append(1)
		n.SetProcess(b, id)
		row := event.Row{Batch: b, Index: b.Len() - 1}
		executable, known := row.String(event.Executable)
		parent, _ := row.String(event.ParentCommand)
		if isFirst := id == first; known != isFirst || (isFirst && (executable != "/bin/old" || parent != "sh")) {
			t.Errorf("%+v: executable %q, parent %q", id, executable, parent)
		}
		if pid, _ := row.Int(event.PID); pid != 42 {
			t.Errorf("pid %d", pid)
		}
	}
}

func TestAlive(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	ticks := string(statField(stat, 22))
	n, err := strconv.ParseUint(ticks, 10, 64)
	if err != nil {
		t.Fatalf("start %q: %v", ticks, err)
	}
	self := ProcessID{PID: uint32(os.Getpid()), StartNs: n*1e7 + 5}
	if !self.Alive() {
		t.Error("this process is not there")
	}
	self.StartNs += 1e7
	if self.Alive() {
		t.Error("another process with this number is taken for this one")
	}
	if got := string(statField([]byte("7 (a) b) R 1 2"), 4)); got != "1" {
		t.Errorf("parent %q", got)
	}
	if got := statField([]byte("7 (a) R"), 22); got != nil {
		t.Errorf("field %q of half a line", got)
	}
}

// namesOfFew knows 8 processes and 8 cgroups, with all names that there are.
func namesOfFew(t testing.TB) *Names {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/:\nweb:x:1:0::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := NewNames(names.NewHost(root, slog.New(slog.DiscardHandler)))
	for i := range 8 {
		text := strconv.Itoa(i)
		n.processes.Add(ProcessID{PID: uint32(i)}, process{executable: "/usr/bin/program-" + text, parentPID: 1, parentCommand: "parent-" + text})
		n.cgroups.Add(uint64(i), names.Cgroup{
			Unit: "docker-a76eab2adb53166ddd11d18f512226dd54cafcaa7405952ec4823cb69aaac98" + text + ".scope", ContainerID: "a76eab2adb53166ddd11d18f512226dd54cafcaa7405952ec4823cb69aaac98" + text,
			Container: names.Container{Name: "web-" + text, Image: "registry.example/shop/web:1." + text, Pod: names.Pod{Name: "web-6d4cf56db6-x2x7" + text, Namespace: "shop", Container: "web"}},
		})
	}
	return n
}

// What is known is looked up without taking memory, and so is what is not known.
func TestNamesAllocateNothing(t *testing.T) {
	n := namesOfFew(t)
	const rounds, each = 100, 16 // more than are known
	batch := event.NewBatch(namesType, (rounds+2)*each)
	look := func() {
		for i := range each {
			batch.Append(int64(i))
			n.SetProcess(batch, ProcessID{PID: uint32(i)})
			n.SetUser(batch, uint32(i%3))
			n.SetCgroup(batch, uint64(i))
		}
	}
	look() // the batch has all texts now
	if got := testing.AllocsPerRun(rounds, look); got != 0 {
		t.Errorf("%v allocations for %d events", got, each)
	}
	for i, want := range map[int][4]string{7: {"/usr/bin/program-7", "web", "web-7", "web-6d4cf56db6-x2x77"}, each - 1: {"", "root", "", ""}} {
		row := event.Row{Batch: batch, Index: batch.Len() - each + i}
		for at, column := range []int{event.Executable, event.User, event.ContainerName, event.K8sPod} {
			if got, _ := row.String(column); got != want[at] {
				t.Errorf("event %d: %q, want %q", i, got, want[at])
			}
		}
	}
}

// BenchmarkNames gives events all names; it must not allocate for each.
func BenchmarkNames(b *testing.B) {
	n := namesOfFew(b)
	var batch *event.Batch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%8192 == 0 {
			batch = event.NewBatch(namesType, 8192)
		}
		batch.Append(int64(i))
		n.SetProcess(batch, ProcessID{PID: uint32(i % 8)})
		n.SetUser(batch, uint32(i%2))
		n.SetCgroup(batch, uint64(i%4))
	}
}
