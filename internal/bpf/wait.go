package bpf

import (
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// waiter waits for rings in the poller of Go's runtime. ringbuf.Reader would wait in
// a system call of its own, which keeps one of the few processors of the runtime until
// that takes it away, and looks for such all the time: during a flood that was a
// seventh of the program's CPU time.
type waiter struct {
	file *os.File
	conn syscall.RawConn
}

// newWaiter makes one file of all rings, by an epoll of their own that nobody waits
// in: the runtime's poller takes that as it takes any other.
func newWaiter(rings []*ebpf.Map) (*waiter, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	for _, ring := range rings {
		if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, ring.FD(), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.File does not poll it
		_ = unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "rings")
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
// over, after wake or close, or at once if it is not to wait.
func (w *waiter) wait(atMost time.Duration, not func() bool) {
	if w.file.SetReadDeadline(time.Now().Add(atMost)) != nil {
		return // closed
	}
	waited := false
	_ = w.conn.Read(func(uintptr) bool { // any error means that it waits no longer
		defer func() { waited = true }()
		return waited || not() // who changes that wakes it then, which ends the time that was set above
	})
}

func (w *waiter) wake() { _ = w.file.SetReadDeadline(time.Now()) }

func (w *waiter) close() { _ = w.file.Close() }
