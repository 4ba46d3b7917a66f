package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func snapshotCommand() *cobra.Command {
	var from whom
	c := command("snapshot FILE", "Copy the db file of the running server",
		`Asks the running server for a consistent copy of its db file. The copy can be taken
to another machine and asked there with --db. (A copy made with cp while the server
runs can be torn.)`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			if err := mustNotExist(args[0]); err != nil {
				return err
			}
			server, err := from.client()
			if err != nil {
				return err
			}
			body, err := server.Get(cmd.Context(), "/api/storage/snapshot", nil)
			if err != nil {
				return err
			}
			defer body.Close()
			bar := newProgress(-1, "copying", true)
			return writeWhole(args[0], func(to io.Writer) error {
				if _, err := io.Copy(io.MultiWriter(to, bar), body); err != nil {
					return fmt.Errorf("copy the db file: %w", err)
				}
				return nil
			})
		})
	from.addServerFlags(c.Flags())
	return c
}
