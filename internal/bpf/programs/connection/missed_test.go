package connection_test

import (
	"log/slog"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

// Connections end while no program is attached, as when the kernel does not run
// one: what is remembered of them must not be told of those that get the memory
// of their sockets. (Monitors of one host share what is remembered.)
func TestEndMissed(t *testing.T) {
	bpftest.RequireRoot(t)
	t.Run("in slots", func(t *testing.T) { endMissed(t, connection.Monitor) })
	crowded := bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) { spec.Maps["connections"].MaxEntries = 1 })
	t.Run("in the hash map", func(t *testing.T) { endMissed(t, crowded) })
}

func endMissed(t *testing.T, m *bpf.Monitor) {
	t.Helper()
	const n = 50
	host := bpftest.NewHost(t)
	ns := bpftest.NewNetNS(t, "missed")
	var open []int
	connect := func(server int) {
		client, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		served, _, err := unix.Accept(server)
		if err != nil {
			t.Error(err)
		}
		open = append(open, client, served)
	}
	closeAll := func() {
		for _, fd := range open {
			unix.Close(fd)
		}
		open = nil
	}
	ns.Do(t, func() {
		// On one CPU, which is the first to get the memory that it freed itself.
		one := unix.CPUSet{}
		one.Set(allowedCPU(t))
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Error(err)
		}
		server := socketOf(t, 0)
		listenOn(t, server)
		first, err := bpf.Start(m, host, bpf.Options{}, bpftest.NewRecorder(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Error(err)
			return
		}
		for range n {
			connect(server)
		}
		if err := first.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		closeAll()
		r := bpftest.StartOn(t, m, host, bpf.Options{})
		for range 4 * n {
			connect(server)
		}
		closeAll()
		for _, direction := range []string{"outbound", "inbound"} {
			want := self(t, bpftest.Event{"direction": direction, "destination_port": "7001"})
			r.WaitFor(t, ns, 4*n, with(want, "state", "established"))
			r.WaitFor(t, ns, 4*n, with(want, "state", "closed"))
		}
		r.WaitFor(t, ns, 16*n, bpftest.Event{})
		if missed := r.Status().Lost[bpf.LostEndMissed]; missed == 0 {
			t.Error("no socket got the memory of one whose end was missed")
		} else {
			t.Logf("%d of %d ends were missed and found", missed, 2*n)
		}
	})
}

// allowedCPU returns a CPU that this thread may run on.
func allowedCPU(t *testing.T) int {
	t.Helper()
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Error(err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	return cpu
}

// A TCP connect() whose return was not seen, as when the kernel does not run the program:
// that of the thread's next connect(), which is by UDP, is not taken for it.
func TestReturnMissed(t *testing.T) {
	bpftest.RequireRoot(t)
	skipping, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer skipping.Close()
	r := bpftest.Start(t, bpftest.Changed(connection.Monitor, func(spec *ebpf.CollectionSpec) {
		program := spec.Programs["sys_exit_connect"]
		begin := asm.Mov.Reg(asm.R6, asm.R1)
		begin.Metadata = program.Instructions[0].Metadata
		program.Instructions[0].Metadata = asm.Metadata{}
		program.Instructions = append(asm.Instructions{
			begin,
			asm.LoadMapValue(asm.R1, skipping.FD(), 0),
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.JEq.Imm(asm.R2, 0, "see"),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
			program.Instructions[0].WithSymbol("see"),
		}, program.Instructions[1:]...)
	}))
	skip := func(yes uint64) {
		if err := skipping.Put(uint32(0), yes); err != nil {
			t.Error(err)
		}
	}
	ns := bpftest.NewNetNS(t, "return")
	ns.Do(t, func() {
		server := socketOf(t, 0)
		listenOn(t, server)
		skip(1)
		tcp, err := dial(t, unix.SOCK_STREAM, v4(127, 0, 0, 1, 7001), false)
		if err != nil {
			t.Error(err)
		}
		defer unix.Close(tcp)
		skip(0)
		for port := 7003; port < 7005; port++ {
			udp, err := dial(t, unix.SOCK_DGRAM, v4(127, 0, 0, 1, port), false)
			if err != nil {
				t.Error(err)
			}
			defer unix.Close(udp)
		}
	})
	want := self(t, bpftest.Event{"state": "established", "direction": "outbound"})
	r.WaitFor(t, ns, 1, with(want, "destination_port", "7003"))
	r.WaitFor(t, ns, 1, with(want, "destination_port", "7004"))
	r.WaitFor(t, ns, 1, with(want, "protocol", "tcp"))
}
