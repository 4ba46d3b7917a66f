package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// lockedDown tells whether the kernel keeps its memory confidential: a program
// that reads some is refused then, while one that does nothing is not.
func lockedDown() bool {
	loads, err := Accepts(nil)
	if err != nil || !loads {
		return false
	}
	reads, err := Accepts(asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R10),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnProbeReadKernel.Call(),
	})
	return err == nil && !reads
}

// Accepts tells whether this kernel accepts these instructions in a tp_btf
// program of inet_sock_set_state, which gets a struct sock as its first argument.
func Accepts(instructions asm.Instructions) (bool, error) {
	probe, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"probe": {
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceRawTp,
		AttachTo:     "inet_sock_set_state",
		License:      "GPL",
		Instructions: append(instructions, asm.Mov.Imm(asm.R0, 0), asm.Return()),
	}}}, ebpf.CollectionOptions{Cache: typesOfKernel()})
	var refused *ebpf.VerifierError
	switch {
	case err == nil:
		probe.Close()
		return true, nil
	case errors.As(err, &refused):
		return false, nil
	}
	return false, fmt.Errorf("probe the kernel: %w", explain(err))
}
