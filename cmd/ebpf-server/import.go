package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/store"
	"github.com/srodi/ebpf-server/internal/transfer"
)

func importCommand() *cobra.Command {
	var db string
	var skipBad bool
	c := command("import --db FILE [INPUT...]", "Add events from NDJSON or Parquet files to a db file",
		`Adds events to a db file that no server holds; the file is made if it is missing.
Inputs are NDJSON or Parquet with the fields that export writes; without one, or
for "-", standard input is read. An input with a record that is no event is not
imported at all, unless --skip-bad leaves such records out. Events are added as
they are: the same input imported twice is there twice.`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) (err error) {
			if len(args) == 0 {
				args = []string{"-"}
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
			bar := newProgress(-1, "importing", true)
			im := &transfer.Import{Store: s, Types: daemon.Types(), SkipBad: skipBad, Passed: func(n int64) { _ = bar.Add64(n) }}
			for _, name := range args {
				result, err := importOne(cmd, im, name, filepath.Dir(db))
				if err != nil {
					return err
				}
				cmd.PrintErrf("%s: %d events imported, %d bad records left out\n", name, result.Events, result.Skipped)
			}
			return nil
		})
	c.Flags().StringVar(&db, "db", "", "db `file` to add to")
	c.Flags().BoolVar(&skipBad, "skip-bad", false, "leave out records that are no events, and count them")
	_ = c.MarkFlagRequired("db") // fails only for a flag that is not there
	return c
}

func importOne(cmd *cobra.Command, im *transfer.Import, name, dir string) (transfer.Result, error) {
	if name == "-" {
		file, remove, err := transfer.Spool(cmd.InOrStdin(), dir)
		if err != nil {
			return transfer.Result{}, err
		}
		defer remove()
		return im.File(cmd.Context(), file)
	}
	file, err := os.Open(name)
	if err != nil {
		return transfer.Result{}, fmt.Errorf("import: %w", err)
	}
	defer file.Close()
	return im.File(cmd.Context(), file)
}
