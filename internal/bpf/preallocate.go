package bpf

import (
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// notPreallocated is how many entries fewer a map has whose entries are made ahead. Of
// connections 65,536 are left, some 17 MB in each of two maps, and of their ends as many
// more as there are elsewhere (SOCKETS_AT_HAND in bpf/include/open_connections.h).
const notPreallocated = 3 << 16

// preallocate makes the memory of all entries ahead where the kernel has no allocator of
// its own for eBPF (before Linux 6.1). There, a program on a tracepoint may have
// interrupted the allocator that it then calls: the kernel says so in a warning of its
// log, which ends a system with panic_on_warn, and refuses it if it is built for real time.
func preallocate(spec *ebpf.CollectionSpec, host *Host) {
	if host.HasField("bpf_htab", "ma") {
		return
	}
	for _, m := range spec.Maps {
		if m.Flags&unix.BPF_F_NO_PREALLOC != 0 && m.Type == ebpf.Hash {
			m.Flags &^= unix.BPF_F_NO_PREALLOC
			if m.MaxEntries > notPreallocated {
				m.MaxEntries -= notPreallocated
			}
		}
	}
}
