// Package bpf runs monitors: it loads their eBPF programs, attaches them,
// reads the ring buffer, decodes it into batches of events and counts what was
// lost on the way. What a monitor is, is data: see Monitor. How one is added is
// in docs/program-development.md.
//
// The life of a monitor:
//
//  1. Start reads its eBPF object, leaves out optional hooks that this kernel
//     lacks, sets constants (Prepare), loads and attaches.
//  2. One goroutine reads the ring buffer and hands batches to the Sink. Start
//     returns when the iterators have run.
//  3. Drain hands over what is in the ring buffer at that moment.
//  4. Stop detaches, hands over the rest and frees everything.
package bpf

import (
	"time"

	"github.com/cilium/ebpf"

	"github.com/srodi/ebpf-server/internal/event"
)

// Monitor declares one monitor. Its eBPF object includes bpf/include/monitor.h
// and so has the maps "events" and "counters".
type Monitor struct {
	// Type declares the events: name, columns, descriptions.
	Type *event.Type
	// Enabled says whether it runs when the configuration does not say.
	Enabled bool
	// MaxAge and MaxSize are how long and how much is kept when the configuration
	// does not say, written as there ("3d", "500MiB"); empty: like everything else.
	MaxAge, MaxSize string
	// Needs says, for people, what the kernel must have.
	Needs string
	// Load returns the eBPF object; bpf2go generates the function.
	Load func() (*ebpf.CollectionSpec, error)
	// Optional names eBPF programs that the monitor can do without, and the
	// feature that is missing then. A hook that is not here is required.
	Optional map[string]string
	// Prerequisites names, by feature of Optional, another one without which it is
	// worth nothing: its hooks are left out with those of the other.
	Prerequisites map[string]string
	// Spared names eBPF programs that this kernel makes unnecessary: they are left
	// out, and nothing is missing. May be nil.
	Spared func(*Host) ([]string, error)
	// Conditions are those of Options' rules that its eBPF side looks at, see
	// bpf/include/filter.h: "command", "uid", "cgroup", "ip", "loopback", "port",
	// "interface".
	Conditions []string
	// HasOwnAPI says that its eBPF side looks at Options.OwnAPI, HasUDPIdle that it
	// looks at Options.UDPIdle.
	HasOwnAPI, HasUDPIdle bool
	// Features looks for what else this kernel may lack, by name; may be nil.
	Features func(*Host) (map[string]bool, error)
	// Prepare sets constants of the object for this host; may be nil.
	Prepare func(*ebpf.CollectionSpec, *Host) error
	// Iterators names eBPF programs of kind "iter" that run once, in this order,
	// when all else is attached: for what was there before the monitor.
	Iterators []string
	// Shares names maps of its object that are one with those of the same name in
	// other monitors' objects; these declare them as well.
	Shares []string
	// Sweeps names eBPF programs of kind "iter" (over bpf_map_elem) that run once a
	// second, and the map that each goes through.
	Sweeps map[string]string
	// NewDecoder returns what turns records into events.
	NewDecoder func(*Host) Decoder
}

// Decoder turns one record of the ring buffer into one event of the batch.
// On an error the batch must be as before. It is called by one goroutine.
type Decoder interface {
	Decode(record []byte, to *event.Batch) error
}

// Collector is a Decoder of a monitor that adds up events in maps of its eBPF
// object, beside those that it sends through the ring buffer.
type Collector interface {
	Decoder
	// Collect appends what is due, and with all what has happened until the call.
	// It is called several times a second, by the goroutine that calls Decode.
	// After an error it is called again; what was appended stays.
	Collect(from *ebpf.Collection, all bool, to *event.Batch) error
}

// Sink takes what the monitors record.
type Sink interface {
	// Append takes over the batch; it must not block for long.
	Append(*event.Batch)
	// Lost counts events of a type that were lost between since and now.
	Lost(typeName, place string, since time.Time, n int64)
	// Filtered counts events of a type that a kind of rule left out in that time.
	Filtered(typeName, kind string, since time.Time, n int64)
}
