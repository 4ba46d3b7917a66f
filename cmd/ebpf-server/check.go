package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var db string
	c := command("check --db FILE", "Verify a db file",
		`Verifies pages, checksums and counts of a db file that no server holds, and that its
rollups are what its events add up to. Take a snapshot to check the file of a
running server.`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			s, err := openFile(db)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Check(progressOf("checking")); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: no faults\n", db)
			return err
		})
	c.Flags().StringVar(&db, "db", "", "db `file` to check")
	_ = c.MarkFlagRequired("db") // fails only for a flag that is not there
	return c
}

// progressOf returns a function that shows how far something has come.
func progressOf(what string) func(done, total int64) {
	bar := newProgress(-1, what, false)
	return func(done, total int64) {
		bar.ChangeMax64(total)
		_ = bar.Set64(done)
	}
}
