package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/terminal"
)

// The parameters of GET /api/connections/at and of /api/connections/{connection_id}
// beside the columns.
var lifeFlags = map[string]string{
	"time":  "`moment` that is asked about: 2026-11-21 03:12 or 03:12 (local time), RFC 3339, Unix seconds, or relative such as -2h (default now)",
	"since": "with an id: its events are not before; to look in less time is quicker",
	"until": "with an id: its events are before that time",
	"limit": "at most so many (default 100, of one connection 1000)",
	"order": "desc: the youngest first (default), or asc",
}

func connectionsCommand() *cobra.Command {
	var q question
	c := command("connections [CONNECTION_ID | FILTER...]", "Show what was open at a moment, or the story of one connection",
		`Shows the connections that were open at a moment, also those that had been open for
days, and the TCP sockets that listened (state=listening), with their owner and age;
filters are as for events. With the connection_id of
an event it tells the story of that one: its events, and the drops of its packets.`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			t := daemon.Lives()
			path := "/api/" + t.Collection + "/at"
			if len(args) == 1 && !isFilter(args[0]) {
				if _, _, err := event.ParseID(args[0]); err != nil {
					return usageError{fmt.Errorf("%q is neither a connection_id, as events have it, nor a filter such as command=nginx", args[0])}
				}
				path, args = "/api/"+t.Collection+"/"+args[0], nil
			}
			if q.around != "" { // a moment has no window
				*q.parameters["time"], q.around = []string{q.around}, ""
			}
			values, err := q.values(args, time.Now())
			if err != nil {
				return err
			}
			server, end, err := q.ask()
			if err != nil {
				return err
			}
			defer end()
			if q.output == "json" {
				return copyAnswer(cmd, server, path, values)
			}
			var answer terminal.Lives
			if err := server.GetJSON(cmd.Context(), path, values, &answer); err != nil {
				return err
			}
			q.screen(cmd).Lives(daemon.Types(), &answer)
			return nil
		})
	c.Example = `  ebpf-server connections --time 03:12 destination_port=5432
  ebpf-server connections --time -2d state=listening
  ebpf-server connections 6f1c2a90-1a2b --since -1d`
	q.addFlags(c, lifeFlags)
	q.addOutput(c, "table", "json")
	return c
}
