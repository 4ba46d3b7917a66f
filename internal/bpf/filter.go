package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// Options are what the user may want of a monitor.
type Options struct {
	Exclude []Rule         // events that one of these means are left out
	Include []Rule         // if there are any, events that none of these means are left out
	OwnAPI  netip.AddrPort // connections to it are left out; zero: they are not
	UDPIdle time.Duration  // a UDP flow without a datagram for so long is closed; 0: what the eBPF object says
	// RingBuffer is the size of all rings together in bytes, a power of two and whole
	// pages; zero: that of the eBPF object.
	RingBuffer uint32
}

// Rule means the events that have one of the values of each condition that is
// there. A monitor that does not know a value of an event takes it as another.
type Rule struct {
	Commands   []string
	UIDs       []uint32
	Cgroups    []string // paths below the cgroup2 mount; what is below them counts
	Networks   []netip.Prefix
	Ports      [][2]uint16 // first and last of ranges
	Interfaces []string
}

// The sizes in bpf/include/filter.h and owner.h.
const (
	maxRules       = 64
	maxRuleCgroups = 32
)

// kernelRule is struct rule of bpf/include/filter.h: a rule with one value of
// each condition.
type kernelRule struct {
	Network, Mask      [16]byte
	Conditions         uint32
	UID                uint32
	Cgroup             uint32
	PortFirst          uint16
	PortLast           uint16
	Command, Interface [16]byte
}

const (
	ruleCommand = 1 << iota
	ruleUID
	ruleCgroup
	ruleNetwork
	rulePort
	ruleInterface
)

// kernelCgroup is struct filter_cgroup of bpf/include/owner.h.
type kernelCgroup struct{ ID, Level uint64 }

// kernelRules are rules as the kernel gets them.
type kernelRules struct {
	rules   [maxRules]kernelRule
	len     int
	cgroups []kernelCgroup
	paths   []string // of cgroups
}

// set puts the options into an object before it is loaded.
func (o Options) set(spec *ebpf.CollectionSpec) error {
	if o.RingBuffer > 0 {
		spec.Maps["events"].MaxEntries = o.RingBuffer
	}
	if err := shareOut(spec); err != nil {
		return err
	}
	var k kernelRules
	for i, r := range o.Exclude {
		if err := k.add(r); err != nil {
			return fmt.Errorf("exclude: rule %d: %w", i+1, err)
		}
	}
	excludes := k.len
	for i, r := range o.Include {
		if err := k.add(r); err != nil {
			return fmt.Errorf("include: rule %d: %w", i+1, err)
		}
	}
	if k.len > 0 {
		var cgroups [maxRuleCgroups]kernelCgroup
		copy(cgroups[:], k.cgroups)
		for name, value := range map[string]any{
			"rules": k.rules, "excludes": uint32(excludes), "includes": uint32(k.len - excludes),
			"filter_cgroups": cgroups, "filter_cgroups_len": uint32(len(k.cgroups)),
		} {
			if err := setVariable(spec, name, value); err != nil {
				return err
			}
		}
	}
	if o.UDPIdle > 0 {
		if err := setVariable(spec, "udp_idle_ns", uint64(o.UDPIdle)); err != nil {
			return err
		}
	}
	if !o.OwnAPI.IsValid() {
		return nil
	}
	own := struct {
		IP    [16]byte
		NetNS uint32
		Port  uint16
		_     [2]byte
	}{Port: o.OwnAPI.Port()}
	if ip := o.OwnAPI.Addr(); !ip.IsUnspecified() {
		own.IP = ip.As16()
	}
	var stat syscall.Stat_t
	if err := syscall.Stat("/proc/thread-self/ns/net", &stat); err != nil {
		return fmt.Errorf("find the program's own network namespace: %w", err)
	}
	own.NetNS = uint32(stat.Ino)
	return setVariable(spec, "own_api", own)
}

func setVariable(spec *ebpf.CollectionSpec, name string, value any) error {
	variable, ok := spec.Variables[name]
	if !ok {
		return fmt.Errorf("its eBPF object has no %s: it does not use bpf/include/filter.h", name)
	}
	if err := variable.Set(value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// add makes a rule for each combination of values.
func (k *kernelRules) add(r Rule) error {
	rules := []kernelRule{{}}
	combine(&rules, ruleCommand, r.Commands, func(to *kernelRule, name string) { copy(to.Command[:15], name) })
	combine(&rules, ruleInterface, r.Interfaces, func(to *kernelRule, name string) { copy(to.Interface[:15], name) })
	combine(&rules, ruleUID, r.UIDs, func(to *kernelRule, uid uint32) { to.UID = uid })
	combine(&rules, rulePort, r.Ports, func(to *kernelRule, ports [2]uint16) { to.PortFirst, to.PortLast = ports[0], ports[1] })
	combine(&rules, ruleNetwork, r.Networks, func(to *kernelRule, network netip.Prefix) {
		to.Network, to.Mask = network.Addr().As16(), maskOf(network)
	})
	var bits []uint32
	for _, path := range r.Cgroups {
		bit, err := k.cgroup(path)
		if err != nil {
			return err
		}
		bits = append(bits, bit)
	}
	combine(&rules, ruleCgroup, bits, func(to *kernelRule, bit uint32) { to.Cgroup = bit })
	if k.len+len(rules) > maxRules {
		return fmt.Errorf("with this one there are %d combinations of values, and room for %d; use networks and ranges of ports", k.len+len(rules), maxRules)
	}
	k.len += copy(k.rules[k.len:], rules)
	return nil
}

func combine[T any](rules *[]kernelRule, condition uint32, values []T, set func(to *kernelRule, value T)) {
	if len(values) == 0 {
		return
	}
	var combined []kernelRule
	for _, rule := range *rules {
		for _, value := range values {
			rule.Conditions |= condition
			set(&rule, value)
			combined = append(combined, rule)
		}
	}
	*rules = combined
}

// maskOf returns the mask of a network as addresses are held: IPv4 mapped to IPv6.
func maskOf(network netip.Prefix) (mask [16]byte) {
	bits := network.Bits()
	if network.Addr().Is4() {
		bits += 96
	}
	high, low := ^uint64(0), ^uint64(0)<<(128-max(bits, 64))
	if bits < 64 {
		high, low = ^uint64(0)<<(64-bits), 0
	}
	binary.BigEndian.PutUint64(mask[:8], high)
	binary.BigEndian.PutUint64(mask[8:], low)
	return mask
}

// cgroup returns the bit of a cgroup in struct owner.
func (k *kernelRules) cgroup(path string) (uint32, error) {
	path = filepath.Clean(path)
	at := slices.Index(k.paths, path)
	if at >= 0 {
		return 1 << at, nil
	}
	root := CgroupRoot()
	if root == "" {
		return 0, fmt.Errorf("cgroup %s: %w", path, errNoCgroups)
	}
	info, err := os.Stat(filepath.Join(root, path))
	if err != nil {
		if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
			err = pathError.Err
		}
		return 0, fmt.Errorf("cgroup %s: %w (looked for in %s when the program starts)", path, err, root)
	}
	if len(k.cgroups) == maxRuleCgroups {
		return 0, fmt.Errorf("cgroup %s: there is room for %d cgroups in the rules of a program", path, maxRuleCgroups)
	}
	level := 0
	if path != "/" {
		level = strings.Count(path, "/")
	}
	k.paths = append(k.paths, path)
	k.cgroups = append(k.cgroups, kernelCgroup{info.Sys().(*syscall.Stat_t).Ino, uint64(level)})
	return 1 << (len(k.cgroups) - 1), nil
}
