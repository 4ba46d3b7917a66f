package main

import (
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/terminal"
)

// command is a verb: cobra prints neither errors nor usage, main does.
func command(use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: usage(args), RunE: run, SilenceUsage: true, SilenceErrors: true}
}

// usage makes wrong arguments mistakes of the user.
func usage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// usageError is a mistake of the user in asking: the exit status is 2.
type usageError struct{ error }

func (q *question) screen(cmd *cobra.Command) *terminal.Screen {
	zone := time.Local
	if q.utc {
		zone = time.UTC
	}
	return terminal.New(cmd.OutOrStdout(), zone)
}

// copyAnswer prints an answer as it comes.
func copyAnswer(cmd *cobra.Command, c *client.Client, path string, values url.Values) error {
	body, err := c.Get(cmd.Context(), path, values)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(cmd.OutOrStdout(), body)
	return err
}
