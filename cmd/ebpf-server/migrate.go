package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/store"
)

func migrateCommand() *cobra.Command {
	var db string
	c := command("migrate --db FILE", "Bring an older db file to the present format",
		`Brings a db file that no server holds to the format that this program writes, and
its events into blocks. A server does the same to its own file when it starts. It can
be broken off at any moment and started again.`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) (err error) {
			if _, err := os.Stat(db); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			s, err := store.Open(store.Options{Path: db, Types: daemon.Types()})
			if err != nil {
				return err
			}
			defer func() {
				if closing := s.Close(); err == nil {
					err = closing
				}
			}()
			if err := s.Seal(cmd.Context(), false, progressOf("migrating")); err != nil {
				return err
			}
			storage, err := s.Storage(false)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: format %d\n", db, storage.Format)
			return err
		})
	c.Flags().StringVar(&db, "db", "", "db `file` to migrate")
	_ = c.MarkFlagRequired("db") // fails only for a flag that is not there
	return c
}
