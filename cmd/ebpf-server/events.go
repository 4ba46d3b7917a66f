package main

import (
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/terminal"
)

// The parameters of GET /api/events beside the columns.
var eventFlags = map[string]string{
	"type":    "`type` of events (may be repeated; default all)",
	"since":   "beginning of the window: 2026-11-21 03:12 or 03:12 (local time), RFC 3339, Unix seconds, or relative such as -90m",
	"until":   "end of the window, written in the same ways",
	"limit":   "at most so many events (default 100)",
	"order":   "desc: newest first (default), or asc",
	"cursor":  "next_cursor or prev_cursor of the page before",
	"fields":  "`columns` to show, with commas between them",
	"absent":  "only events that have no value in these `columns`",
	"present": "only events that have a value in these `columns`",
	"total":   "also count the events of all pages, which may take longer than to find the first",
}

func eventsCommand() *cobra.Command {
	var q question
	var watch bool
	c := command("events [FILTER...]", "Show single events",
		`Shows events, newest first. Every column is a filter, as a flag or in the way of
the API: command=nginx, command=ng*, state!=closed, 'duration_ns>=1s', destination_ip=10.0.0.0/8.
Filters combine with AND, the values of a repeated one with OR.`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			values, err := q.values(args, time.Now())
			if err != nil {
				return err
			}
			if watch {
				if err := q.canWatch(values); err != nil {
					return usageError{err}
				}
			}
			server, end, err := q.ask()
			if err != nil {
				return err
			}
			defer end()
			if watch {
				return q.watch(cmd, server, values)
			}
			if q.output != "table" {
				values.Set("format", q.output)
				return copyAnswer(cmd, server, "/api/events", values)
			}
			var page terminal.EventPage
			if err := server.GetJSON(cmd.Context(), "/api/events", values, &page); err != nil {
				return err
			}
			q.screen(cmd).Page(daemon.Types(), &page, listOf(values, "fields"))
			return nil
		})
	c.Example = `  ebpf-server events --at '2026-11-21 03:12' --window 5m
  ebpf-server events --type packet_drop --since -1h destination_port=443
  ebpf-server events 'duration_ns>=10s' command=postgres --db copy.db
  ebpf-server events --watch state=failed`
	q.addFlags(c, eventFlags)
	q.addOutput(c, "table", "json", "ndjson", "csv", "parquet")
	c.Flags().Lookup("total").NoOptDefVal = "true"
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show events as they come, until interrupted")
	return c
}

// listOf takes a parameter's items one by one and as a list with commas.
func listOf(values url.Values, parameter string) []string {
	var items []string
	for _, list := range values[parameter] {
		for item := range strings.SplitSeq(list, ",") {
			items = append(items, strings.TrimSpace(item))
		}
	}
	return items
}
