package main

import (
	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/config"
	"github.com/srodi/ebpf-server/internal/daemon"
)

// serveCommand is the program without a verb: it records and serves.
func serveCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ebpf-server",
		Short: "Record connections and packet drops of this host, and answer questions about them",
		Long: `ebpf-server watches the host's network through eBPF, keeps every event in one
file and answers questions about any window of time over a REST API.

Without a verb it records and serves; that needs root to start.`,
		Args:          usage(cobra.NoArgs),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load := func() (config.Config, error) { return config.Load(cmd.Flags(), daemon.Known()) }
			return daemon.Run(cmd.Context(), load, version)
		},
	}
	config.AddFlags(root.Flags())
	root.AddCommand(checkCommand(), connectionsCommand(), eventsCommand(), exportCommand(), importCommand(), manCommand(root), migrateCommand(), programsCommand(),
		sampleCommand(), snapshotCommand(), storageCommand(), summaryCommand(), versionCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	return root
}
