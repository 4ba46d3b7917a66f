package connection

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/bpf"
)

// features looks for what the object finds out by CO-RE as it is loaded; see
// cookie_of_file and io_uring_complete in the eBPF code.
func features(host *bpf.Host) (map[string]bool, error) {
	givesCookies, err := hasHelper(host, "BPF_FUNC_check_mtu")
	if err != nil {
		return nil, err
	}
	tellsAccept := host.HasField("io_kiocb", "cqe")
	arguments, err := host.TracepointArguments("io_uring_complete")
	return map[string]bool{
		featureExistingUDP: givesCookies,
		featureURing:       tellsAccept && err == nil,
		featureMultishot:   tellsAccept && err == nil && arguments == 3, // the ring, the request and the completion
	}, nil
}

func hasHelper(host *bpf.Host, name string) (bool, error) {
	helpers, err := host.EnumNames("bpf_func_id")
	for _, helper := range helpers {
		if helper == name {
			return true, err
		}
	}
	return false, err
}

// spared is sys_enter_connect where the arguments of a system call can be read when
// it returns. It would be a run for each connect() and some work for every system
// call of the host.
func spared(host *bpf.Host) ([]string, error) {
	found, err := hasHelper(host, "BPF_FUNC_task_pt_regs")
	if err != nil || !found || !host.HasField("pt_regs", "orig_ax") && !host.HasField("pt_regs", "orig_x0") {
		return nil, err
	}
	return []string{connectionProgSysEnterConnect}, nil
}

// prepare tells the object whether the bytes of UDP sockets are counted, where the
// arguments of connect() are, and what it may use of eBPF.
func prepare(spec *ebpf.CollectionSpec, _ *bpf.Host) error {
	_, sends := spec.Programs[connectionProgSockSendLength]
	_, receives := spec.Programs[connectionProgSockRecvLength]
	if err := spec.Variables[connectionVarCountsUdpBytes].Set(sends && receives); err != nil {
		return err
	}
	if _, flows := spec.Programs[connectionProgSendmsg4]; !flows {
		spec.Maps[connectionMapFlows].MaxEntries = 1 // nobody fills it
	}
	_, noted := spec.Programs[connectionProgSysEnterConnect]
	if err := spec.Variables[connectionVarReadsRegisters].Set(!noted); err != nil {
		return err
	}
	if err := spec.Variables[connectionVarConnectNumber].Set(uint32(unix.SYS_CONNECT)); err != nil {
		return err
	}
	hasCookie, err := bpf.Accepts(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord),
		asm.FnGetSocketCookie.Call(),
	})
	if err != nil {
		return err
	}
	exchange := asm.Xchg.Mem(asm.R10, asm.R0, asm.DWord, -8)
	exchange.Constant = int64(asm.Xchg >> 8) // cilium/ebpf 0.22 leaves it out, which makes an addition
	hasExchange, err := bpf.Accepts(asm.Instructions{
		asm.Mov.Imm(asm.R0, 1),
		asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
		exchange,
	})
	if err != nil {
		return err
	}
	if !hasExchange {
		removeExchange(spec)
	}
	if err := spec.Variables[connectionVarHasCookieHelper].Set(hasCookie); err != nil {
		return err
	}
	return spec.Variables[connectionVarHasExchange].Set(hasExchange)
}

// removeExchange puts an instruction that does nothing in the place of every
// atomic exchange. None of them would run, but the verifier of Linux 5.10
// refuses an object that has one.
func removeExchange(spec *ebpf.CollectionSpec) {
	exchanges := []asm.OpCode{asm.Xchg.OpCode(asm.Word), asm.Xchg.OpCode(asm.DWord), asm.CmpXchg.OpCode(asm.DWord)}
	for _, program := range spec.Programs {
		for i, instruction := range program.Instructions {
			if slices.Contains(exchanges, instruction.OpCode) {
				nothing := asm.Mov.Reg(instruction.Src, instruction.Src)
				nothing.Metadata = instruction.Metadata
				program.Instructions[i] = nothing
			}
		}
	}
}
