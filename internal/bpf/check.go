package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"unsafe"
	"weak"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Check returns an error that says what to do when no monitor can run: this
// process may not load eBPF programs, or this kernel does not let them see what
// they are to tell of.
func Check() error {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	defer status.Close()
	effective, err := capabilities(status)
	if err != nil {
		return err
	}
	var missing []string
	for _, need := range []struct {
		name string
		bit  int
	}{{"CAP_BPF", unix.CAP_BPF}, {"CAP_PERFMON", unix.CAP_PERFMON}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		if effective&(1<<need.bit|1<<unix.CAP_SYS_ADMIN) == 0 {
			missing = append(missing, need.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("not permitted to load eBPF programs: start as root (sudo), or give it %s", strings.Join(missing, ", "))
	}
	if _, err := kernelBTF(); err != nil {
		return err
	}
	if lockedDown() {
		return errors.New("the kernel is locked down: eBPF programs may not read its memory (boot it without lockdown=confidentiality; lockdown=integrity will do)")
	}
	return nil
}

func capabilities(status io.Reader) (uint64, error) {
	lines := bufio.NewScanner(status)
	for lines.Scan() {
		if set, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			var bits uint64
			_, err := fmt.Sscanf(strings.TrimSpace(set), "%x", &bits)
			return bits, err
		}
	}
	return 0, errors.New("read own capabilities: no CapEff in /proc/self/status")
}

// kernelTypes is the BTF that was read last, if it is still there.
var kernelTypes struct {
	mu    sync.Mutex
	cache weak.Pointer[btf.Cache]
}

// typesOfKernel returns a cache of the running kernel's BTF. To read that takes
// longer than all else that is asked of it, and some MB: who asks several times
// holds on to the cache meanwhile. When nobody does, it goes.
func typesOfKernel() *btf.Cache {
	kernelTypes.mu.Lock()
	defer kernelTypes.mu.Unlock()
	cache := kernelTypes.cache.Value()
	if cache == nil {
		cache = btf.NewCache()
		kernelTypes.cache = weak.Make(cache)
	}
	return cache
}

// kernelBTF describes the running kernel's types, tracepoints and iterators.
func kernelBTF() (*btf.Spec, error) {
	kernel, err := typesOfKernel().Kernel()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's BTF from /sys/kernel/btf/vmlinux: %w (take a kernel with CONFIG_DEBUG_INFO_BTF, as those of all current distributions; in a container, mount the host's /sys)", err)
	}
	return kernel, nil
}

// ReadOpenMap asks the kernel as for a map that is open already. It returns an
// error if this takes a capability, CAP_BPF: so it does before Linux 5.19 where
// kernel.unprivileged_bpf_disabled is set. Later kernels want it only from who
// loads programs or makes maps.
func ReadOpenMap() error {
	lookup := struct {
		fd, _             uint32
		key, value, flags uint64
	}{fd: math.MaxUint32} // no map: rights are looked at first
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_LOOKUP_ELEM, uintptr(unsafe.Pointer(&lookup)), unsafe.Sizeof(lookup))
	if errno == unix.EPERM {
		return errno
	}
	return nil
}
