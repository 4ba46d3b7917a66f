package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/terminal"
)

func programsCommand() *cobra.Command {
	var from whom
	var hooks bool
	var output string
	c := command("programs", "Show the monitors of the running server: state, events, losses, cost", "",
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			server, err := from.client()
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return copyAnswer(cmd, server, "/api/programs", nil)
			case "table":
			default:
				return usageError{fmt.Errorf("--output: %q is not known (known are table, json)", output)}
			}
			var answer terminal.ProgramList
			if err := server.GetJSON(cmd.Context(), "/api/programs", nil, &answer); err != nil {
				return err
			}
			terminal.New(cmd.OutOrStdout(), nil).Programs(answer.Programs, hooks)
			return nil
		})
	from.addServerFlags(c.Flags())
	c.Flags().BoolVar(&hooks, "hooks", false, "also every place in the kernel, and what it costs")
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}
