package bpf

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// stepNs is the smallest change of the offset that counts as a step of the
// wall clock. NTP slews both clocks alike, so anything smaller is the time that
// passes between two readings.
const stepNs = 1e6

// Clock turns the boot clock of eBPF programs into wall time. The offset
// follows steps of the wall clock (settimeofday, NTP after a resume).
type Clock struct {
	offset atomic.Int64
}

// NewClock returns a clock that is set.
func NewClock() *Clock {
	c := &Clock{}
	c.offset.Store(readOffset())
	return c
}

// Wall returns nanoseconds since the Unix epoch for a reading of CLOCK_BOOTTIME.
func (c *Clock) Wall(bootNs uint64) int64 { return int64(bootNs) + c.offset.Load() }

// Follow takes over a step of the wall clock, if there was one.
func (c *Clock) Follow() {
	if now, was := readOffset(), c.offset.Load(); now-was > stepNs || was-now > stepNs {
		c.offset.Store(now)
	}
}

// readOffset reads the wall clock between two readings of the boot clock. The
// closest of a few tries wins, because the process may be interrupted.
func readOffset() int64 {
	var best, offset int64
	for try := range 5 {
		before, wall, after := readClock(unix.CLOCK_BOOTTIME), readClock(unix.CLOCK_REALTIME), readClock(unix.CLOCK_BOOTTIME)
		if took := after - before; try == 0 || took < best {
			best, offset = took, wall-(before+took/2)
		}
	}
	return offset
}

func readClock(id int32) int64 {
	var t unix.Timespec
	// It cannot fail: both clocks exist since Linux 2.6.39.
	_ = unix.ClockGettime(id, &t)
	return t.Nano()
}
