package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/terminal"
)

// The parameters of a summary beside the columns.
var summaryFlags = map[string]string{
	"type":       "`type` of events (may be repeated; default all that have the columns)",
	"since":      "beginning of the window: 2026-11-21 03:12 or 03:12 (local time), RFC 3339, Unix seconds, or relative such as -90m",
	"until":      "end of the window, written in the same ways (default now)",
	"duration":   "length of the window before --until: seconds or a time span such as 90m (default 1h)",
	"group_by":   "`columns` to group by, at most 3, with commas between them",
	"distinct":   "`columns` whose different values are counted",
	"top":        "at most so many groups in a list (default 10)",
	"interval":   "adds a series with one point per interval, such as 5m",
	"absent":     "only events that have no value in these `columns`",
	"present":    "only events that have a value in these `columns`",
	"order_by":   "`figure` that groups are ordered by, such as bytes_sent or p95(duration_ns) (default count)",
	"order":      "desc: greatest first (default), or asc",
	"sums":       "`columns` that are added up, or none (default all that can be)",
	"stats":      "numeric `columns` of which to tell least, greatest, average and percentiles",
	"compare":    "compare with a window that was so long before, such as -1d",
	"first_seen": "`columns` whose values are shown that were never seen before the window",
}

func summaryCommand() *cobra.Command {
	var q question
	var watch time.Duration
	c := command("summary [FILTER...]", "Count events, add up sizes, list who and where",
		`Counts the events of a window (the last hour), adds up their sizes, and lists the
most frequent values, or the groups that are asked for. Filters are as for events.`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			server, end, err := q.ask()
			if err != nil {
				return err
			}
			defer end()
			for {
				if err := q.summarize(cmd, server, args, watch > 0); err != nil || watch == 0 {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(watch):
				}
			}
		})
	c.Example = `  ebpf-server summary --since -1h --group-by command
  ebpf-server summary --type packet_drop --since -7d --group-by drop_reason --interval 1h
  ebpf-server summary state=failed --at 03:12 --window 5m --group-by command,destination_ip`
	q.addFlags(c, summaryFlags)
	q.addOutput(c, "table", "json")
	c.Flags().DurationVarP(&watch, "watch", "w", 0, "show it again and again, once in so `long` a time (2s without one)")
	c.Flags().Lookup("watch").NoOptDefVal = "2s"
	return c
}

func (q *question) summarize(cmd *cobra.Command, server *client.Client, args []string, again bool) error {
	values, err := q.values(args, time.Now())
	if err != nil {
		return err
	}
	types, err := typesFor(values)
	if err != nil {
		return err
	}
	values.Del("type")
	screen := q.screen(cmd)
	if again {
		screen.Clear()
	}
	for i, t := range types {
		path := "/api/" + t.Collection + "/summary"
		if q.output == "json" {
			err = copyAnswer(cmd, server, path, values)
		} else {
			err = showSummary(cmd, server, screen, t, path, values, i > 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func showSummary(cmd *cobra.Command, server *client.Client, screen *terminal.Screen, t *event.Type, path string, values url.Values, another bool) error {
	var answer terminal.Summary
	if err := server.GetJSON(cmd.Context(), path, values, &answer); err != nil {
		return err
	}
	if another {
		fmt.Fprintln(cmd.OutOrStdout())
	}
	screen.Summary(t, &answer, append(listOf(values, "group_by"), listOf(values, "first_seen")...))
	return nil
}

// typesFor returns the types that are named, or else all that have every column
// that the summary names.
func typesFor(values url.Values) ([]*event.Type, error) {
	if names := values["type"]; len(names) > 0 {
		return typesNamed(names, daemon.Types())
	}
	var types []*event.Type
	columns := columnsOf(values)
	for _, t := range daemon.Types() {
		if len(t.Fields(columns)) == len(columns) {
			types = append(types, t)
		}
	}
	if types == nil {
		return nil, usageError{fmt.Errorf("no type of events has all of %s", strings.Join(columns, ", "))}
	}
	return types, nil
}

// columnsOf returns the columns that a summary names: types without them cannot
// answer.
func columnsOf(values url.Values) []string {
	var columns []string
	for _, name := range []string{"group_by", "distinct", "sums", "stats", "first_seen", "absent", "present"} {
		columns = append(columns, listOf(values, name)...)
	}
	if values.Get("sums") == "none" {
		columns = slices.DeleteFunc(columns, func(name string) bool { return name == "none" })
	}
	for name := range values {
		if _, isParameter := summaryFlags[name]; !isParameter {
			if at := strings.IndexAny(name, "!<>="); at >= 0 { // an operator
				name = name[:at]
			}
			columns = append(columns, name)
		}
	}
	if figure := values.Get("order_by"); figure != "count" && figure != "" {
		columns = append(columns, figure)
	}
	for i, name := range columns {
		name, _, _ = strings.Cut(name, "/") // a network: destination_ip/24
		if _, of, isFigure := strings.Cut(strings.TrimSuffix(name, ")"), "("); isFigure {
			name = of // p95(duration_ns)
		}
		columns[i] = name
	}
	return columns
}
