package programs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/programs"
)

// Every C program has its Go side and its line in the list, and the other way
// round; names are unique.
func TestList(t *testing.T) {
	sources, err := filepath.Glob("../../../bpf/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("find eBPF programs: %v, %v", sources, err)
	}
	missing := map[string]bool{}
	for _, source := range sources {
		missing[strings.TrimSuffix(filepath.Base(source), ".c")] = true
	}
	delete(missing, "names") // no monitor: what all of them share
	collections := map[string]bool{}
	for _, m := range programs.All {
		name := m.Type.Name
		if !missing[name] {
			t.Errorf("monitor %s: no bpf/%s.c, or it is in the list twice", name, name)
		}
		delete(missing, name)
		if info, err := os.Stat(name); err != nil || !info.IsDir() {
			t.Errorf("monitor %s: no folder of this name", name)
		}
		if collections[m.Type.Collection] {
			t.Errorf("collection %s is declared twice", m.Type.Collection)
		}
		collections[m.Type.Collection] = true
		if m.Needs == "" || m.Type.Summary == "" {
			t.Errorf("monitor %s: says too little about itself", name)
		}
	}
	for name := range missing {
		t.Errorf("bpf/%s.c is not in the list", name)
	}
}
