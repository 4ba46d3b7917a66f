package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/transfer"
)

// The parameters of GET /api/events that make sense for an export.
var exportFlags = map[string]string{
	"type":    eventFlags["type"],
	"since":   eventFlags["since"],
	"until":   eventFlags["until"],
	"absent":  eventFlags["absent"],
	"present": eventFlags["present"],
}

func exportCommand() *cobra.Command {
	var q question
	var name string
	c := command("export [FILE] [FILTER...]", "Write events as NDJSON, CSV, Parquet or Zeek's conn.log",
		`Writes events, oldest first, to a file or to standard output (also as "-"). The format
is that of --output, or what the file's name ends in, or NDJSON if there is no ending. A row group of Parquet has
events of one type only; those of a type are oldest first. With zeek, it is a line for
each connection that failed or ended. Filters are as for events.`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			file, filters, err := fileAmong(args)
			if err != nil {
				return err
			}
			values, err := q.values(filters, time.Now())
			if err != nil {
				return err
			}
			if name, err = formatOf(name, file); err != nil {
				return err
			}
			if name == format.Zeek {
				if types := values["type"]; len(types) > 0 && !slices.Equal(types, []string{format.ZeekType}) {
					return usageError{fmt.Errorf("--output zeek is for events of type %s, not %s", format.ZeekType, strings.Join(types, ", "))}
				}
				values.Set("type", format.ZeekType)
			}
			source, types, done, err := q.events(cmd, values)
			if err != nil {
				return err
			}
			defer done()
			bar := newProgress(-1, "exporting", false)
			export := func(to io.Writer) error {
				return transfer.Export(cmd.Context(), source, to, name, types, func(n int64) { _ = bar.Set64(n) })
			}
			if file == "" || file == standardOutput {
				return export(cmd.OutOrStdout())
			}
			return writeWhole(file, export)
		})
	q.addFlags(c, exportFlags)
	c.Flags().StringVarP(&name, "output", "o", "", "format: "+strings.Join(format.Names, ", ")+" or "+format.Zeek+" (--format is the same)")
	c.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "format" {
			name = "output"
		}
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	return c
}

// tellDamage says what is missing from an export.
func tellDamage(cmd *cobra.Command, gaps []query.Gap) {
	for _, gap := range gaps {
		cmd.PrintErrf("%s events from %s to %s are left out: a block of the file is damaged (see ebpf-server check)\n",
			gap.Type, gap.From.Format(time.RFC3339), gap.Until.Format(time.RFC3339))
	}
}

// fileAmong tells the file that is to be written, if there is one, from filters.
func fileAmong(args []string) (file string, filters []string, err error) {
	for _, arg := range args {
		switch {
		case isFilter(arg):
			filters = append(filters, arg)
		case file != "":
			return "", nil, usageError{fmt.Errorf("%q is no filter, and one file is named already: %s", arg, file)}
		default:
			file = arg
		}
	}
	return file, filters, nil
}

// events returns what hands out the events, their types, and a function to be
// called after. A file may have types that this program does not record.
func (q *question) events(cmd *cobra.Command, values url.Values) (transfer.Source, []*event.Type, func(), error) {
	if q.db == "" {
		types, err := typesNamed(values["type"], daemon.Types())
		if err != nil {
			return nil, nil, nil, err
		}
		c, err := q.client()
		return transfer.Server{Client: c, Types: types, Parameters: values}, types, func() {}, err
	}
	s, err := openFile(q.db)
	if err != nil {
		return nil, nil, nil, err
	}
	types, err := typesNamed(values["type"], s.Types())
	var asked query.Events
	if err == nil {
		asked, err = query.Params(values).Events(s.Types(), true, time.Now())
	}
	if err != nil {
		_ = s.Close()
		return nil, nil, nil, usageError{err}
	}
	asked.Limit = 0
	return transfer.File{Store: s, Query: asked}, types, func() {
		tellDamage(cmd, s.Damaged())
		_ = s.Close()
	}, nil
}

// standardOutput is what a file is called that is none.
const standardOutput = "-"

func formatOf(name, file string) (string, error) {
	ending := strings.TrimPrefix(filepath.Ext(file), ".")
	switch {
	case name != "":
		return name, nil
	case ending == "":
		return format.NDJSON, nil
	case slices.Contains(format.Names, ending):
		return ending, nil
	}
	return "", usageError{fmt.Errorf("%s: what it ends in is no format (want %s); name one with --output", file, strings.Join(format.Names, ", "))}
}

func mustNotExist(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already: name another file, or remove it", path)
	}
	return nil
}

// writeWhole makes a file that is there whole or not at all, and never in the
// place of another.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	if err := mustNotExist(path); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = part.Close()
			_ = os.Remove(part.Name())
		}
	}()
	if err := write(part); err != nil {
		return err
	}
	if err := part.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := part.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(part.Name(), path)
}
