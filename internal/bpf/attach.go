package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// Hook is one eBPF program of a monitor and where it is attached.
type Hook struct {
	Name     string // of the eBPF program
	Kind     string // "tp_btf", "tracepoint", "cgroup", "iter"
	Target   string // what it is attached to
	Optional bool
	Attached bool
	Err      error         // why it is not attached
	Runs     uint64        // measured ones, by the kernel's run statistics
	RunTime  time.Duration // of all these together

	program *ebpf.Program
	link    link.Link
}

// newHook reads where a program belongs from its section: "tp_btf/NAME",
// "tracepoint/CATEGORY/NAME", "cgroup/NAME", "iter/NAME".
func newHook(spec *ebpf.ProgramSpec, optional bool) *Hook {
	kind, target, _ := strings.Cut(spec.SectionName, "/")
	return &Hook{Name: spec.Name, Kind: kind, Target: target, Optional: optional}
}

// available tells whether this kernel has what the hook is attached to.
func (h *Hook) available() error {
	switch h.Kind {
	case "tp_btf":
		kernel, err := kernelBTF()
		if err != nil {
			return err
		}
		var tracepoint *btf.Typedef
		if err := kernel.TypeByName("btf_trace_"+h.Target, &tracepoint); err != nil {
			return fmt.Errorf("this kernel has no tracepoint %s", h.Target)
		}
	case "iter":
		kernel, err := kernelBTF()
		if err != nil {
			return err
		}
		var iterator *btf.Func
		if err := kernel.TypeByName("bpf_iter_"+h.Target, &iterator); err != nil {
			return fmt.Errorf("this kernel has no iterator %s", h.Target)
		}
	case "tracepoint":
		return mountTracefs()
	case "cgroup":
		if CgroupRoot() == "" {
			return errNoCgroups
		}
	}
	return nil
}

var errNoCgroups = errors.New("no cgroup2 file system is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")

// attach attaches it; sweeps is the map that an iterator over bpf_map_elem goes
// through, nil for all else.
func (h *Hook) attach(sweeps *ebpf.Map) (err error) {
	switch h.Kind {
	case "tp_btf":
		h.link, err = link.AttachTracing(link.TracingOptions{Program: h.program})
	case "tracepoint":
		category, name, _ := strings.Cut(h.Target, "/")
		h.link, err = link.Tracepoint(category, name, h.program, nil)
	case "cgroup":
		h.link, err = link.AttachCgroup(link.CgroupOptions{Path: CgroupRoot(), Attach: cgroupAttachTypes[h.Target], Program: h.program})
	case "iter":
		h.link, err = link.AttachIter(link.IterOptions{Program: h.program, Map: sweeps})
	default:
		return fmt.Errorf("section %s/%s is of no kind that the runtime attaches", h.Kind, h.Target)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (%s)", err, h.remedy())
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w (this kernel has no %s %s)", err, h.Kind, h.Target)
	}
	h.Attached = err == nil
	return err
}

// remedy says what is needed of who was not permitted to attach it.
func (h *Hook) remedy() string {
	if h.Kind != "tracepoint" {
		return "needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
	}
	if _, err := os.ReadDir(cmp.Or(mountPoint("tracefs"), mountPoint("debugfs"))); errors.Is(err, fs.ErrPermission) {
		return "tracefs belongs to root: needs root, or CAP_DAC_READ_SEARCH beside CAP_BPF and CAP_PERFMON"
	}
	text, _ := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	// A patch of Debian, security-perf-allow-further-restriction-of-perf_event_open.
	if level, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && level > 2 {
		return fmt.Sprintf("kernel.perf_event_paranoid is %d: needs CAP_SYS_ADMIN until it is attached, or kernel.perf_event_paranoid=2", level)
	}
	return "needs root, or CAP_BPF and CAP_PERFMON"
}

// iterate runs an attached iterator from its begin to its end. It is run for
// what it does, and writes nothing.
func (h *Hook) iterate() error {
	iterator, ok := h.link.(*link.Iter)
	if !ok {
		return fmt.Errorf("section %s/%s is no iterator", h.Kind, h.Target)
	}
	output, err := iterator.Open()
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	defer output.Close()
	for {
		// The kernel ends a read with EAGAIN after a million objects; the next
		// read goes on.
		_, err := io.Copy(io.Discard, output)
		if !errors.Is(err, syscall.EAGAIN) {
			return err
		}
	}
}

var cgroupAttachTypes = map[string]ebpf.AttachType{
	"connect4":     ebpf.AttachCGroupInet4Connect,
	"connect6":     ebpf.AttachCGroupInet6Connect,
	"recvmsg4":     ebpf.AttachCGroupUDP4Recvmsg,
	"recvmsg6":     ebpf.AttachCGroupUDP6Recvmsg,
	"sendmsg4":     ebpf.AttachCGroupUDP4Sendmsg,
	"sendmsg6":     ebpf.AttachCGroupUDP6Sendmsg,
	"sock_release": ebpf.AttachCgroupInetSockRelease,
}
