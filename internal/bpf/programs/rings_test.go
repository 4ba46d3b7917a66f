package programs_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
	"github.com/srodi/ebpf-server/internal/event"
)

// slowSink takes its time, like a store whose disk hangs.
type slowSink struct {
	*bpftest.Recorder
	held    chan struct{} // it has got something
	release chan struct{}
}

func newSlowSink() slowSink {
	return slowSink{bpftest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
}

func (s slowSink) Append(b *event.Batch) {
	select {
	case s.held <- struct{}{}:
	default:
	}
	<-s.release
	s.Recorder.Append(b)
}

// A flood on one small ring, or two, while the reader stands still: what was seen is
// what was handed over and what was lost, to the last event.
func TestFloodIsAccountedFor(t *testing.T) {
	bpftest.RequireRoot(t)
	for _, size := range []uint32{8 << 10, 128 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { floodIsAccountedFor(t, size) })
	}
}

func floodIsAccountedFor(t *testing.T, size uint32) {
	t.Helper()
	host, err := bpf.NewHost(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sink := newSlowSink()
	small := bpf.Options{Exclude: []bpf.Rule{{Ports: [][2]uint16{{7102, 7102}}}}, RingBuffer: size}
	program, err := bpf.Start(connection.Monitor, host, small, sink, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ns := bpftest.NewNetNS(t, "account")
	const n = 3000
	for range 10 {
		var addresses []string
		for range n / 10 {
			addresses = append(addresses, "127.0.0.1:7101", "127.0.0.1:7102")
		}
		refused(t, ns, addresses...)
		time.Sleep(10 * time.Millisecond)
	}
	close(sink.release)
	if err := program.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := program.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	s := program.Status()
	lost := s.Lost[bpf.LostRingBufferFull]
	if got := int64(len(sink.Recorded(ns))); lost == 0 || got == 0 || got > s.Events || sink.LostEvents()[bpf.LostRingBufferFull] != lost {
		t.Errorf("%d events recorded, status %+v, the sink was told of %v", got, s, sink.LostEvents())
	}
	if s.Filtered[bpf.FilteredExcluded] < n || s.Events+lost < n {
		t.Errorf("of %d to be recorded and as many to be left out: %+v", n, s)
	}
	sink.Account(t, s)
}

// onCPU lets this thread run on one CPU alone; the machine may have fewer.
func onCPU(t *testing.T, cpu int) {
	t.Helper()
	var set unix.CPUSet
	set.Set(cpu % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Error(err)
	}
}

// udpSocket connects a new UDP socket, or ends the test.
func udpSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7001})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// What one CPU has told of is handed over before what another CPU tells of later.
func TestOrderOfCPUs(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "order")
	const n = 2000
	ns.Do(t, func() {
		for i := range n {
			onCPU(t, i)
			fd := udpSocket(t)
			onCPU(t, i+1)
			unix.Close(fd)
		}
	})
	events, begun := r.WaitFor(t, ns, 2*n, nil), map[string]bool{}
	for _, e := range events {
		if id := e["connection_id"]; e["state"] == "established" {
			begun[id] = true
		} else if !begun[id] {
			t.Fatalf("%s is %s before it was established", id, e["state"])
		}
	}
}

// The same of a CPU that had nothing to tell when the reader looked, and then tells of
// something while the reader is busy with what another CPU told of.
func TestOrderWhileBusy(t *testing.T) {
	bpftest.RequireRoot(t)
	sink := newSlowSink()
	program, err := bpf.Start(connection.Monitor, bpftest.NewHost(t), bpf.Options{}, sink, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ns := bpftest.NewNetNS(t, "busy")
	ns.Do(t, func() {
		onCPU(t, 1)
		for range 4096 { // with their ends more than the reader hands over at once
			unix.Close(udpSocket(t))
		}
		<-sink.held
		onCPU(t, 0)
		fd := udpSocket(t)
		onCPU(t, 1)
		unix.Close(fd)
	})
	close(sink.release)
	if err := program.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := sink.Recorded(ns)
	if len(events) != 2*4097 {
		t.Fatalf("%d events", len(events))
	}
	last := events[len(events)-2:]
	if last[0]["state"] != "established" || last[1]["state"] != "closed" || last[0]["connection_id"] != last[1]["connection_id"] {
		t.Errorf("last of all: %v", last)
	}
}

// One CPU has the room of all rings.
func TestRoomForOneCPU(t *testing.T) {
	bpftest.RequireRoot(t)
	const size, n = 256 << 10, 2000
	sink := newSlowSink()
	program, err := bpf.Start(connection.Monitor, bpftest.NewHost(t), bpf.Options{RingBuffer: size}, sink, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ns := bpftest.NewNetNS(t, "room")
	ns.Do(t, func() {
		onCPU(t, 0)
		unix.Close(udpSocket(t))
		<-sink.held // so that nothing is read any more
		for range n {
			unix.Close(udpSocket(t))
		}
	})
	close(sink.release)
	if err := program.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	s := program.Status()
	sink.Account(t, s)
	const least = size / 200 // bytes of an event
	if got := len(sink.Recorded(ns)); got < least || s.Lost[bpf.LostRingBufferFull] == 0 {
		t.Errorf("%d events recorded in %d bytes, want %d; lost %v", got, size, least, s.Lost)
	}
}

// countingSink counts what is handed over.
type countingSink struct {
	*bpftest.Recorder
	batches, events int
}

func (s *countingSink) Append(b *event.Batch) {
	s.batches++
	s.events += b.Len()
	s.Recorder.Append(b)
}

// The reader is not woken for each event: of one thread that tells of one after the
// other, as quickly as it can, each batch has very many.
func TestFewWakeUps(t *testing.T) {
	bpftest.RequireRoot(t)
	const n, least = 8192, 32 // events that a batch has at least, on average
	sink := &countingSink{Recorder: bpftest.NewRecorder()}
	program, err := bpf.Start(connection.Monitor, bpftest.NewHost(t), bpf.Options{}, sink, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ns := bpftest.NewNetNS(t, "wake")
	ns.Do(t, func() {
		for range n {
			unix.Close(udpSocket(t))
		}
	})
	if err := program.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	sink.Account(t, program.Status())
	if got := len(sink.Recorded(ns)); got != 2*n {
		t.Errorf("%d events, want %d", got, 2*n)
	}
	t.Logf("%d events in %d batches", sink.events, sink.batches)
	if sink.batches*least > sink.events {
		t.Errorf("%d batches for %d events", sink.batches, sink.events)
	}
}
