package bpf

import (
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// waiter waits for a ring buffer in the poller of Go's runtime. ringbuf.Reader
// would wait in a system call of its own, which keeps one of the few processors of
// the runtime until that takes it away, and looks for such all the time: during a
// flood that was a seventh of the program's CPU time.
type waiter struct {
	file *os.File
	conn syscall.RawConn
}

func newWaiter(ringBuffer *ebpf.Map) (*waiter, error) {
	fd, err := unix.FcntlInt(uintptr(ringBuffer.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.File does not poll it
		_ = unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "ring buffer")
	conn, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // fails if it cannot be polled: wait would not wait
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &waiter{file, conn}, nil
}

// wait returns when the kernel says that there is much to read, when the time is
// over, or after wake or close.
func (w *waiter) wait(atMost time.Duration) {
	if w.file.SetReadDeadline(time.Now().Add(atMost)) != nil {
		return // closed
	}
	asked := false
	_ = w.conn.Read(func(uintptr) bool { // any error means that it waits no longer
		defer func() { asked = true }()
		return asked
	})
}

func (w *waiter) wake() { _ = w.file.SetReadDeadline(time.Now()) }

func (w *waiter) close() { _ = w.file.Close() }
