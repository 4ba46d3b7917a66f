package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Counters of a monitor. All but the last are kept by its eBPF side, in the
// order of enum counter in bpf/include/monitor.h.
const (
	counterRingBufferFull = iota
	counterMapFull
	counterFiltered
	counterExcluded
	counterRecorded
	counterEndMissed
	counterNamesFull // events that are recorded, but without names
	counterSkipped   // kept by the kernel, see LostSkipped
	countersLen
)

// Places where an event can be lost before it reaches the Sink.
const (
	LostRingBufferFull = "ring_buffer_full" // the reader was too slow
	LostMapFull        = "map_full"         // more sockets at once than the map holds
	// The kernel did not run the program when a connection ended, and does not say
	// so. It is found when another socket gets the same memory.
	LostEndMissed    = "end_missed"
	LostDecodeFailed = "decode_failed" // a record that this program cannot read
	// The kernel skips an eBPF program that is interrupted on its CPU by
	// something that would run it again ("recursion misses"). Not every run
	// would have made an event, so this is an upper bound.
	LostSkipped = "program_skipped"
)

// Why something that was seen is no event.
const (
	FilteredRule     = "rule"     // a rule of the monitor: nothing is lost with it
	FilteredExcluded = "excluded" // the configuration (Options) leaves it out
)

// What the counters mean to who is told of them.
var (
	lossCounters   = map[string]int{LostRingBufferFull: counterRingBufferFull, LostMapFull: counterMapFull, LostEndMissed: counterEndMissed, LostSkipped: counterSkipped}
	filterCounters = map[string]int{FilteredRule: counterFiltered, FilteredExcluded: counterExcluded}
)

type counters [countersLen]uint64

// since calls do with what each of some counters has grown by.
func (c counters) since(earlier counters, some map[string]int, do func(name string, n int64)) {
	for name, counter := range some {
		if n := c[counter] - earlier[counter]; n > 0 {
			do(name, int64(n))
		}
	}
}

// all returns some counters by name.
func (c counters) all(some map[string]int) map[string]int64 {
	named := make(map[string]int64, len(some))
	for name, counter := range some {
		named[name] = int64(c[counter])
	}
	return named
}

// readCounters adds the counters of all CPUs and hooks.
func readCounters(m *ebpf.Map, hooks []*Hook) (counters, error) {
	var sum counters
	var perCPU []uint64
	for i := range counterSkipped {
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return sum, fmt.Errorf("read counter %d: %w", i, err)
		}
		for _, n := range perCPU {
			sum[i] += n
		}
	}
	for _, hook := range hooks {
		if !hook.Attached {
			continue
		}
		stats, err := hook.program.Stats()
		if err != nil {
			return sum, fmt.Errorf("read statistics of %s: %w", hook.Name, err)
		}
		sum[counterSkipped] += stats.RecursionMisses
	}
	return sum, nil
}
