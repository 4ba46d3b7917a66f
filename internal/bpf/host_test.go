package bpf

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestClock(t *testing.T) {
	c := NewClock()
	before := time.Now().UnixNano()
	wall := c.Wall(uint64(readClock(unix.CLOCK_BOOTTIME)))
	after := time.Now().UnixNano()
	// Within the reading error of the offset.
	if wall < before-stepNs || wall > after+stepNs {
		t.Errorf("wall time %d is not between %d and %d", wall, before, after)
	}
	c.offset.Add(-int64(time.Hour)) // as if the wall clock had been put forward
	c.Follow()
	if wall := c.Wall(uint64(readClock(unix.CLOCK_BOOTTIME))); wall < before {
		t.Errorf("did not follow the step: %v", time.Unix(0, wall))
	}
}

func TestSymbols(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	const text = `ffffffff81000200 T second
ffffffff81000100 T first
ffffffff81000080 t first.cold
ffffffff81000180 d data
ffffffffa0000000 t in_module	[mod]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewSymbols(path)
	for address, want := range map[uint64]string{
		0xffffffff81000100: "first", 0xffffffff810001ff: "first", 0xffffffff81000200: "second",
		0xffffffffa0000010: "in_module", 0xffffffff810000ff: "first", 0xffffffff8100007f: "",
	} {
		if got := s.Name(address); got != want {
			t.Errorf("%x: %q, want %q", address, got, want)
		}
	}
	want := []Range{{0xffffffff81000080, 0xffffffff81000100}, {0xffffffff81000100, 0xffffffff81000200}}
	if got := s.Ranges("first"); !slices.Equal(got, want) {
		t.Errorf("ranges %x, want %x", got, want)
	}
	if got := s.Ranges("none"); got != nil {
		t.Errorf("ranges of an unknown function: %x", got)
	}
}

// With kernel.kptr_restrict all addresses read as 0.
func TestHiddenSymbols(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	if err := os.WriteFile(path, []byte("0000000000000000 T first\n0000000000000000 T second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := NewSymbols(path).Name(0xffffffff81000100); got != "" {
		t.Errorf("%q is made up", got)
	}
}
