package main

import (
	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/daemon"
)

// sampleCommand is for the program itself, which starts it beside the server.
func sampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:    daemon.SampleVerb,
		Short:  "Let the kernel measure run times of eBPF programs until the standard input ends",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return daemon.SampleRunTimes(cmd.Context()) },
	}
}
