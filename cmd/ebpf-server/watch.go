package main

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/terminal"
)

// watch shows events as they come, until it is interrupted or the server ends.
func (q *question) watch(cmd *cobra.Command, server *client.Client, values url.Values) error {
	screen := q.screen(cmd)
	live := screen.Live(daemon.Types(), listOf(values, "fields"))
	values.Del("fields") // all of them come; what is shown is chosen here
	err := server.Stream(cmd.Context(), "/api/events/stream", values, func(name, data string) error {
		switch {
		case name == "missed":
			return live.Missed(data)
		case q.output == "ndjson" || q.output == "json":
			_, err := cmd.OutOrStdout().Write([]byte(data + "\n"))
			return err
		}
		var e terminal.Object
		decoder := json.NewDecoder(strings.NewReader(data))
		decoder.UseNumber()
		if err := decoder.Decode(&e); err != nil {
			return err
		}
		return live.Event(e)
	})
	if cmd.Context().Err() != nil { // interrupted, as it should be
		return nil
	}
	return err
}
