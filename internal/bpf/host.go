package bpf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/names"
)

// Host is what the decoders ask about this machine.
type Host struct {
	Boot    string // scope of connection ids: the first 8 digits of the boot id
	BootID  string // the kernel's boot id
	Kernel  string // release, as by uname -r
	Name    string // host name
	Clock   *Clock
	Names   *Names
	Symbols *Symbols

	shared sharedMaps
}

// NewHost reads the facts that do not change while the machine runs.
func NewHost(log *slog.Logger) (*Host, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	boot := strings.TrimSpace(string(raw))
	if len(boot) < 8 {
		return nil, fmt.Errorf("read boot id: %q is too short", boot)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read kernel release: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read host name: %w", err)
	}
	return &Host{
		Boot:    boot[:8],
		BootID:  boot,
		Kernel:  unix.ByteSliceToString(uts.Release[:]),
		Name:    name,
		Clock:   NewClock(),
		Names:   NewNames(names.NewHost("/", log)),
		Symbols: NewSymbols("/proc/kallsyms"),
	}, nil
}

// EnumNames returns the values of an enum of the running kernel by its BTF;
// nothing if the kernel has no such enum.
func (h *Host) EnumNames(enum string) (map[uint64]string, error) {
	kernel, err := kernelBTF()
	if err != nil {
		return nil, err
	}
	var found *btf.Enum
	if err := kernel.TypeByName(enum, &found); errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("find enum %s in the kernel's BTF: %w", enum, err)
	}
	names := make(map[uint64]string, len(found.Values))
	for _, v := range found.Values {
		names[v.Value] = v.Name
	}
	return names, nil
}

// HasField tells whether a struct of the running kernel has a field, by its BTF.
func (h *Host) HasField(name, field string) bool {
	kernel, err := kernelBTF()
	if err != nil {
		return false
	}
	var found *btf.Struct
	if err := kernel.TypeByName(name, &found); err != nil {
		return false
	}
	return slices.ContainsFunc(found.Members, func(m btf.Member) bool { return m.Name == field })
}

// TracepointArguments returns how many arguments a tracepoint of the running
// kernel has, by its BTF.
func (h *Host) TracepointArguments(name string) (int, error) {
	kernel, err := kernelBTF()
	if err != nil {
		return 0, err
	}
	var found *btf.Typedef
	if err := kernel.TypeByName("btf_trace_"+name, &found); err != nil {
		return 0, fmt.Errorf("find tracepoint %s in the kernel's BTF: %w", name, err)
	}
	if pointer, ok := found.Type.(*btf.Pointer); ok {
		if function, ok := pointer.Target.(*btf.FuncProto); ok {
			return len(function.Params) - 1, nil // the first is not of the tracepoint but of who listens
		}
	}
	return 0, fmt.Errorf("tracepoint %s in the kernel's BTF is a %v", name, found.Type)
}

// mountPoint returns where a file system of this type is mounted, or "".
func mountPoint(fsType string) string {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		// ... ID ID MAJ:MIN ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE OPTIONS
		before, after, ok := bytes.Cut(lines.Bytes(), []byte(" - "))
		fields := bytes.Fields(before)
		if ok && len(fields) > 4 && bytes.HasPrefix(after, []byte(fsType+" ")) {
			return string(fields[4])
		}
	}
	return ""
}

// CgroupRoot returns where the cgroup2 file system is mounted, or "".
func CgroupRoot() string { return mountPoint("cgroup2") }

// mountTracefs makes sure that tracepoints can be found by name. Systems with
// systemd have tracefs; small ones often do not.
func mountTracefs() error {
	if mountPoint("tracefs") != "" || mountPoint("debugfs") != "" {
		return nil
	}
	const point = "/sys/kernel/tracing"
	if err := unix.Mount("nodev", point, "tracefs", 0, ""); err != nil {
		return fmt.Errorf("mount tracefs: %w (tracepoints need it: mount -t tracefs nodev %s)", err, point)
	}
	return nil
}
