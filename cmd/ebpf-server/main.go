// Command ebpf-server records what a Linux host's network does and answers
// questions about it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/memory"
)

// version is set by the build (-ldflags "-X main.version=...").
var version = "dev"

func main() {
	memory.Bound()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// After the first signal the second one ends the program at once.
	context.AfterFunc(ctx, stop)
	if err := serveCommand().ExecuteContext(ctx); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(os.Stderr, "ebpf-server: %s\n", strings.TrimSuffix(line, "\n"))
		}
		os.Exit(status(err))
	}
}

// status is 2 where the question was wrong, and 1 for everything else that fails.
func status(err error) int {
	var usage usageError
	var refusal client.Refusal
	if errors.As(err, &usage) || errors.As(err, &refusal) {
		return 2
	}
	return 1
}
