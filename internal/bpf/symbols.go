package bpf

import (
	"bufio"
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Symbols names kernel addresses. It is read when it is first asked. Ask while
// a monitor is loaded (Monitor.Features, Monitor.Prepare): the program gives up
// CAP_SYSLOG then, without which all addresses read as 0. It is safe for
// concurrent use.
type Symbols struct {
	path string

	mu     sync.Mutex // guards what follows
	read   bool
	start  []uint64 // sorted
	names  []string // as start
	lookup map[uint64]string
}

// NewSymbols returns the symbols of a file like /proc/kallsyms.
func NewSymbols(path string) *Symbols {
	return &Symbols{path: path, lookup: map[uint64]string{}}
}

// Name returns the function that an address is in, or "" if it is not known:
// no permission, or hidden by kernel.kptr_restrict.
func (s *Symbols) Name(address uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, known := s.lookup[address]; known {
		return name
	}
	s.load()
	name := ""
	if i, exact := slices.BinarySearch(s.start, address); exact {
		name = s.names[i]
	} else if i > 0 {
		name = s.names[i-1]
	}
	s.lookup[address] = name
	return name
}

// Range is where a part of a function stands: until is the address after it.
type Range struct{ From, Until uint64 }

// Ranges returns where a function stands. The compiler may have put parts of it
// elsewhere (name.cold).
func (s *Symbols) Ranges(function string) (parts []Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load()
	for i, name := range s.names[:max(len(s.names)-1, 0)] {
		if name == function {
			parts = append(parts, Range{s.start[i], s.start[i+1]})
		}
	}
	return parts
}

func (s *Symbols) load() {
	if s.read {
		return
	}
	s.read = true
	file, err := os.Open(s.path)
	if err != nil {
		return
	}
	defer file.Close()
	type symbol struct {
		address uint64
		name    string
	}
	var symbols []symbol
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes()) // address, kind, name, [module]
		if len(fields) < 3 || !strings.ContainsRune("tTwW", rune(fields[1][0])) {
			continue
		}
		address, err := strconv.ParseUint(string(fields[0]), 16, 64)
		if err != nil || address == 0 { // 0: hidden
			continue
		}
		// The compiler's copies of a function carry a suffix: name.cold, name.isra.0
		name, _, _ := strings.Cut(string(fields[2]), ".")
		symbols = append(symbols, symbol{address, name})
	}
	slices.SortStableFunc(symbols, func(a, b symbol) int { return int(min(max(int64(a.address-b.address), -1), 1)) })
	for _, sym := range symbols {
		s.start, s.names = append(s.start, sym.address), append(s.names, sym.name)
	}
}
