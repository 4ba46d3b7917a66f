package bpf

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

const (
	// maxRings is MAX_RINGS of bpf/include/monitor.h. With more CPUs, several share
	// one ring.
	maxRings = 16
	// minRing is how small a ring is made, in bytes, to have one more of them.
	minRing = 64 << 10
	// ringFills is which part of a ring wakes the reader: what comes until it runs has
	// the rest.
	ringFills = 4
)

// rings are those that a monitor's eBPF side writes events to. One goroutine reads
// them.
type rings struct {
	maps   []*ebpf.Map // all but the first, which belongs to the collection
	heads  []head
	until  uint64 // CLOCK_BOOTTIME, before rings that are empty were looked at
	waiter *waiter
}

// head is the next record of a ring.
type head struct {
	reader *ringbuf.Reader
	record ringbuf.Record
	there  bool // the record is to be read
	empty  bool // there was none when the ring was looked at
}

// shareOut shares the memory of the ring "events" of an object among as many rings as
// there are CPUs, where they get large enough.
func shareOut(spec *ebpf.CollectionSpec) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	all := spec.Maps["events"].MaxEntries
	n := min(uint32(1)<<bits.Len(uint(cpus-1)), maxRings, max(1, all/minRing))
	spec.Maps["events"].MaxEntries = all / n
	spec.Maps["rings"].InnerMap.MaxEntries = all / n
	spec.Maps["rings"].MaxEntries = n
	return errors.Join(setVariable(spec, "last_ring", n-1), setVariable(spec, "wake_up_bytes", uint64(all/n/ringFills)))
}

// openRings makes the rings that shareOut has made room for.
func openRings(collection *ebpf.Collection) (r *rings, err error) {
	r = &rings{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	first, all := collection.Maps["events"], collection.Maps["rings"]
	if err := r.add(first); err != nil {
		return r, err
	}
	for i := uint32(1); i < all.MaxEntries(); i++ {
		ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "events", Type: ebpf.RingBuf, MaxEntries: first.MaxEntries()})
		if err != nil {
			return r, err
		}
		r.maps = append(r.maps, ring)
		if err := r.add(ring); err != nil {
			return r, err
		}
		if err := all.Put(i, ring); err != nil {
			return r, err
		}
	}
	r.waiter, err = newWaiter(append(r.maps, first))
	return r, err
}

func (r *rings) add(ring *ebpf.Map) error {
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return err
	}
	reader.SetDeadline(time.Now()) // it never waits
	r.heads = append(r.heads, head{reader: reader})
	return nil
}

// next returns the earliest record of all rings, which is there until the next call,
// and nil when there is none.
//
// What tells of the end of a connection may be in another ring than what told of its
// begin, and rings are looked at one after the other. So all are looked at after the
// clock was read, and what they have of before that time is in order.
func (r *rings) next() ([]byte, error) {
	first, err := r.first(false)
	if err == nil && first == nil {
		first, err = r.look()
	}
	if err == nil && first != nil && first.timeNs() > r.until {
		first, err = r.look()
	}
	if first == nil || err != nil {
		return nil, err
	}
	first.there = false
	return first.record.RawSample, nil
}

// look reads the clock, and then looks at all rings. (Records are never of a time that
// is still to come.)
func (r *rings) look() (*head, error) {
	r.until = uint64(readClock(unix.CLOCK_BOOTTIME))
	return r.first(true)
}

// first returns the head with the earliest record, or nil. Rings that were empty are
// looked at again if all are to be.
func (r *rings) first(all bool) (first *head, err error) {
	for i := range r.heads {
		h := &r.heads[i]
		if !h.there && (all || !h.empty) {
			if err := h.fill(); err != nil {
				return nil, err
			}
		}
		if h.there && (first == nil || h.timeNs() < first.timeNs()) {
			first = h
		}
	}
	return first, nil
}

func (h *head) fill() error {
	h.empty = h.reader.AvailableBytes() == 0
	if h.empty { // without a system call
		return nil
	}
	err := h.reader.ReadInto(&h.record)
	h.there, h.empty = err == nil, err != nil
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// timeNs is what every record begins with; see room_for in bpf/include/monitor.h.
func (h *head) timeNs() uint64 {
	if len(h.record.RawSample) < int(unsafe.Sizeof(uint64(0))) {
		return 0
	}
	return *(*uint64)(unsafe.Pointer(unsafe.SliceData(h.record.RawSample))) // the reader's buffer is aligned
}

// close frees the rings that the collection does not have.
func (r *rings) close() {
	if r.waiter != nil {
		r.waiter.close()
	}
	for _, h := range r.heads {
		_ = h.reader.Close()
	}
	for _, ring := range r.maps {
		_ = ring.Close()
	}
}
