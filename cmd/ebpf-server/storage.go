package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

func storageCommand() *cobra.Command {
	var from whom
	var hours bool
	var output string
	c := command("storage", "Show what the db file holds and how long it is kept", "",
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			s, err := from.storage(cmd, hours)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			case "table":
				return showStorage(cmd.OutOrStdout(), s)
			}
			return fmt.Errorf("--output: %q is not known (known are table, json)", output)
		})
	from.addFlags(c.Flags())
	c.Flags().BoolVar(&hours, "hours", false, "also every hour that the file holds")
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	c.AddCommand(compactCommand())
	return c
}

func (w *whom) storage(cmd *cobra.Command, hours bool) (s query.Storage, err error) {
	if w.db == "" {
		server, err := w.client()
		if err != nil {
			return s, err
		}
		return s, server.GetJSON(cmd.Context(), "/api/storage", url.Values{"detail": {fmt.Sprint(hours)}}, &s)
	}
	file, err := openFile(w.db)
	if err != nil {
		return s, err
	}
	defer file.Close()
	return file.Storage(hours)
}

func showStorage(out io.Writer, s query.Storage) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "%s: %s, of which %s are free for new events; format %d\n\n", s.Path, size(s.FileBytes), size(s.FreeBytes), s.Format)
	fmt.Fprintln(w, "type\tevents\tbytes\tper event\toldest\tnewest\tkept for\tlimits\t")
	for _, t := range s.Types {
		perEvent := ""
		if t.Events > 0 {
			perEvent = fmt.Sprintf("%.1f B", float64(t.Bytes.Total())/float64(t.Events))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", t.Name, humanize.Comma(t.Events), size(t.Bytes.Total()), perEvent,
			at(t.Oldest), at(t.Newest), span(t.Retention.Actual), limits(t.Retention))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, t := range s.Types {
		if len(t.Hours) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\thours\tevents\tbytes\tblocks\tsealed\t\n", t.Name)
		for _, h := range t.Hours {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%v\t\n", at(h.Start), h.Hours, humanize.Comma(h.Events), size(h.Bytes), h.Blocks, h.Sealed)
		}
	}
	return w.Flush()
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func span(seconds float64) string {
	if seconds <= 0 {
		return "-"
	}
	if days := seconds / 86400; days >= 2 {
		return fmt.Sprintf("%.1fd", days)
	}
	return time.Duration(seconds * 1e9).Round(time.Second).String()
}

func limits(r query.Retention) string {
	text := "none"
	if r.MaxAge > 0 {
		text = span(r.MaxAge)
	}
	if r.MaxBytes > 0 {
		text += ", " + size(r.MaxBytes)
		if r.Projected > 0 {
			text += " (about " + span(r.Projected) + ")"
		}
	}
	return text
}

func compactCommand() *cobra.Command {
	var db, to string
	c := command("compact --db FILE", "Write a db file anew at its smallest",
		`Writes a db file that no server holds anew, without free pages, and puts it in the
place of the old one, or beside it with --to.`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			target := to
			if target == "" {
				target = db + ".compact"
			}
			before, err := os.Stat(db)
			if err != nil {
				return fmt.Errorf("compact: %w", err)
			}
			if err := store.Compact(cmd.Context(), db, target, progressOf("compacting")); err != nil {
				return err
			}
			after, err := os.Stat(target)
			if err != nil {
				return fmt.Errorf("compact: %w", err)
			}
			if to == "" {
				if err := os.Rename(target, db); err != nil {
					return fmt.Errorf("compact: %w", err)
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s before, %s after\n", db, size(before.Size()), size(after.Size()))
			return err
		})
	c.Flags().StringVar(&db, "db", "", "db `file` to compact")
	c.Flags().StringVar(&to, "to", "", "`file` to write, instead of replacing the old one")
	_ = c.MarkFlagRequired("db") // fails only for a flag that is not there
	return c
}
