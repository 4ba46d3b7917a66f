package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/terminal"
)

// canWatch refuses what asks for events that there are, not for those that come.
func (q *question) canWatch(values url.Values) error {
	if q.db != "" {
		return errors.New("--watch shows what a running server records, so it does not go with --db")
	}
	for _, name := range []string{"since", "until", "limit", "order", "cursor", "total"} {
		if values.Has(name) {
			return fmt.Errorf("--watch shows what comes from now on, so it does not go with %s", name)
		}
	}
	if q.output != "table" && q.output != "json" && q.output != "ndjson" {
		return fmt.Errorf("--watch goes with --output table or ndjson, not with %s", q.output)
	}
	return nil
}

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
