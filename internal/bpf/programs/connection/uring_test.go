package connection_test

import (
	"net"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// What io_uring's header (linux/io_uring.h) says of the layout.
const (
	opAccept        = 13
	opConnect       = 16
	opListen        = 57
	acceptMultishot = 1
	enterGetEvents  = 1
	offsetSQEs      = 0x10000000
	sqeSize         = 64
)

type ringParams struct {
	entries, cqEntries, flags, cpu, idle, features, wq, resv0, resv1, resv2 uint32
	sqHead, sqTail, sqMask, sqEntries, sqFlags, sqDropped, sqArray, sqResv  uint32
	sqUser                                                                  uint64
	cqHead, cqTail, cqMask, cqCount, cqOverflow, cqes, cqFlags, cqResv      uint32
	cqUser                                                                  uint64
}

// ring is just enough of io_uring for one request at a time.
type ring struct {
	t            *testing.T
	fd           int
	params       ringParams
	queues, sqes []byte
}

func newRing(t *testing.T) *ring {
	t.Helper()
	r := &ring{t: t}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		t.Skipf("this kernel or its settings do not have io_uring: %v", errno)
	}
	r.fd = int(fd)
	t.Cleanup(func() { unix.Close(r.fd) })
	for offset, mapped := range map[int64]*[]byte{0: &r.queues, offsetSQEs: &r.sqes} {
		size := int(max(r.params.sqArray+r.params.entries*4, r.params.cqes+r.params.cqEntries*16))
		if offset == offsetSQEs {
			size = int(r.params.entries) * sqeSize
		}
		var err error
		if *mapped, err = unix.Mmap(r.fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[offset])) }

// submit hands over a request: struct io_uring_sqe.
func (r *ring) submit(opcode uint8, priority uint16, fd int, offset, address uint64) {
	r.t.Helper()
	sqe := r.sqes[:sqeSize]
	clear(sqe)
	sqe[0] = opcode
	*(*uint16)(unsafe.Pointer(&sqe[2])) = priority
	*(*int32)(unsafe.Pointer(&sqe[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&sqe[8])) = offset
	*(*uint64)(unsafe.Pointer(&sqe[16])) = address
	tail := r.word(r.params.sqTail)
	*r.word(r.params.sqArray + 4*(*tail&(r.params.sqEntries-1))) = 0
	atomic.AddUint32(tail, 1)
	r.enter(1, 0)
}

// wait returns the result of the next completion.
func (r *ring) wait() int32 {
	r.t.Helper()
	head, tail := r.word(r.params.cqHead), r.word(r.params.cqTail)
	for atomic.LoadUint32(tail) == *head {
		r.enter(0, 1)
	}
	result := int32(*r.word(r.params.cqes + 16*(*head&(r.params.cqEntries-1)) + 8))
	atomic.AddUint32(head, 1)
	return result
}

func (r *ring) enter(submit, wait uintptr) {
	r.t.Helper()
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, wait, enterGetEvents, 0, 0)
		if errno == 0 {
			return
		}
		if errno != unix.EINTR {
			r.t.Fatal(errno)
		}
	}
}

// Accepts by io_uring, one by one and by a request that goes on accepting.
func TestIOUringAccept(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	for name, priority := range map[string]uint16{"one": 0, "multishot": acceptMultishot} {
		t.Run(name, func(t *testing.T) {
			feature := map[string]string{"one": "io_uring_accept", "multishot": "io_uring_multishot"}[name]
			if r.Lacks(t, feature) { // then these are told as if nobody accepted
				return
			}
			ns := bpftest.NewNetNS(t, "uring")
			ns.Do(t, func() {
				l := listen(t, "127.0.0.1:7001")
				ring := newRing(t)
				ring.submit(opAccept, priority, int(file(t, l).Fd()), 0, 0)
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				write(t, c)
				c.Close()
				fd := int(ring.wait())
				if n, err := unix.Read(fd, make([]byte, 100)); n != 10 || err != nil {
					t.Errorf("read %d, %v", n, err)
				}
				want := self(t, bpftest.Event{"direction": "inbound", "attribution": "accept"})
				r.WaitFor(t, ns, 1, with(want, "state", "established"))
				unix.Close(fd)
				r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "closed", "bytes_received": "10"}))
			})
		})
	}
}

func TestIOUringConnect(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "uring")
	ns.Do(t, func() {
		listen(t, "127.0.0.1:7001")
		ring := newRing(t)
		if err := ring.connect(unix.SOCK_STREAM, [4]byte{127, 0, 0, 1}, 7001); err != 0 {
			t.Errorf("connect: %v", err)
		}
	})
	want := self(t, bpftest.Event{"direction": "outbound", "attribution": "connect", "destination_port": "7001"})
	r.WaitFor(t, ns, 1, with(want, "state", "established"))
	r.WaitFor(t, ns, 1, with(want, "state", "closed"))
}

// connect connects a new socket, which it closes then.
func (r *ring) connect(kind int, ip [4]byte, port uint16) unix.Errno {
	r.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer unix.Close(fd)
	address := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port>>8 | port<<8, Addr: ip}
	r.submit(opConnect, 0, fd, unix.SizeofSockaddrInet4, uint64(uintptr(unsafe.Pointer(&address))))
	return unix.Errno(-r.wait())
}

// Connects by io_uring that do not change the state of a TCP socket, or that one way only.
func TestIOUringOutcomes(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	if r.Lacks(t, "io_uring_accept") {
		return
	}
	ns := bpftest.NewNetNS(t, "outcomes")
	ns.Do(t, func() {
		ring := newRing(t)
		for _, c := range []struct {
			kind  int
			ip    [4]byte
			port  uint16
			errno unix.Errno
		}{
			{unix.SOCK_STREAM, [4]byte{192, 0, 2, 1}, 7002, unix.ENETUNREACH},
			{unix.SOCK_STREAM, [4]byte{127, 0, 0, 1}, 7003, unix.ECONNREFUSED}, // nobody is there
			{unix.SOCK_DGRAM, [4]byte{192, 0, 2, 1}, 7004, unix.ENETUNREACH},
			{unix.SOCK_DGRAM, [4]byte{127, 0, 0, 1}, 7005, 0},
		} {
			if errno := ring.connect(c.kind, c.ip, c.port); errno != c.errno {
				t.Errorf("connect to port %d: %v, want %v", c.port, errno, c.errno)
			}
		}
	})
	want := self(t, bpftest.Event{"direction": "outbound", "attribution": "connect"})
	failed := with(want, "state", "failed")
	r.WaitFor(t, ns, 1, merge(failed, bpftest.Event{"destination_ip": "192.0.2.1", "destination_port": "7002", "error": "ENETUNREACH", "protocol": "tcp"}))
	r.WaitFor(t, ns, 1, merge(failed, bpftest.Event{"destination_port": "7003", "error": "ECONNREFUSED"}))
	r.WaitFor(t, ns, 1, merge(failed, bpftest.Event{"destination_ip": "192.0.2.1", "destination_port": "7004", "error": "ENETUNREACH", "protocol": "udp"}))
	r.WaitFor(t, ns, 3, failed)
	r.WaitFor(t, ns, 1, merge(want, bpftest.Event{"state": "established", "destination_port": "7005", "protocol": "udp"}))
}

func TestIOUringListen(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "uring")
	ns.Do(t, func() {
		fd := socketOf(t, 0)
		if err := unix.Bind(fd, v4(127, 0, 0, 1, 7001)); err != nil {
			t.Fatal(err)
		}
		ring := newRing(t)
		ring.submit(opListen, 0, fd, 0, 0)
		if result := ring.wait(); result == -int32(unix.EINVAL) {
			t.Log("listen() by io_uring came with Linux 6.11")
			unix.Close(fd)
			return
		} else if result != 0 {
			t.Fatalf("listen: %d", result)
		}
		checkListening(t, r, ns)
		ring.submit(opListen, 0, fd, 0, 0)
		if result := ring.wait(); result != 0 {
			t.Errorf("listen again: %d", result)
		}
		want := self(t, bpftest.Event{"attribution": "listener", "destination_ip": "127.0.0.1", "destination_port": "7001"})
		r.WaitFor(t, ns, 1, with(want, "state", "listening"))
		unix.Close(fd)
		r.WaitFor(t, ns, 1, with(want, "state", "stopped"))
	})
}
