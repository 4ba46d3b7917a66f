package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/privilege"
)

// SampleVerb is the verb by which the program starts SampleRunTimes.
const SampleVerb = "sample-run-times"

// SampleRunTimes is a process of its own, because it takes CAP_SYS_ADMIN to
// switch the kernel's run statistics on: it has this capability and nothing to
// do with what comes from outside. It ends with the program that started it,
// whose end closes its standard input.
func SampleRunTimes(ctx context.Context) error {
	signal.Ignore(syscall.SIGHUP) // which may be sent to all processes of a unit
	if _, err := privilege.Keep(cap.SYS_ADMIN); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return bpf.SampleRunTimes(ctx)
}

// startSampling starts that process.
func startSampling(log *slog.Logger) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	var said bytes.Buffer
	process := exec.Command(self, SampleVerb)
	process.Dir, process.Env, process.Stderr = "/", []string{}, &said
	// Nothing is written: that this end is closed when the program ends, however
	// it does, is what the other one waits for.
	if _, err := process.StdinPipe(); err != nil {
		return fmt.Errorf("open pipe: %w", err)
	}
	if err := process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", SampleVerb, err)
	}
	go func() {
		if err := process.Wait(); err != nil {
			log.Info("run times of eBPF programs are not measured", "error", err, "output", strings.TrimSpace(said.String()))
		}
	}()
	return nil
}
