package main

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/daemon"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// whom holds the flags that say who is asked: a running server, or a file.
type whom struct {
	server, tokenFile, db string
}

func (w *whom) addServerFlags(flags *pflag.FlagSet) {
	flags.StringVar(&w.server, "server", "http://127.0.0.1:8080", "`URL` of the running server to ask")
	flags.StringVar(&w.tokenFile, "token-file", "", "`file` with the token that the server asks for")
}

func (w *whom) addFlags(flags *pflag.FlagSet) {
	w.addServerFlags(flags)
	flags.StringVar(&w.db, "db", "", "ask this db `file` instead, such as a copy made by snapshot")
}

func (w *whom) client() (*client.Client, error) { return client.New(w.server, w.tokenFile) }

// openFile opens a db file that is only read.
func openFile(path string) (*store.Store, error) {
	return store.Open(store.Options{Path: path, Types: daemon.Types(), ReadOnly: true})
}

// which holds the flags that say which events are asked for: the parameters of
// GET /api/events.
type which struct {
	types        []string
	since, until string
	columns      map[string]*[]string
	filters      map[string][]string // those that came as arguments
}

// takeFilters reads the arguments that are filters, and returns the others: at most
// one.
func (w *which) takeFilters(args []string) (rest []string, err error) {
	w.filters = map[string][]string{}
	for _, arg := range args {
		if !strings.ContainsAny(arg, "=<>") {
			rest = append(rest, arg)
			continue
		}
		key, value, err := query.SplitFilter(arg)
		if err != nil {
			return nil, usageError{err}
		}
		w.filters[key] = append(w.filters[key], value)
	}
	if len(rest) > 1 {
		return nil, usageError{fmt.Errorf("%q is no filter, and one file is named already: %s", rest[1], rest[0])}
	}
	return rest, nil
}

func (w *which) addFlags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&w.types, "type", nil, "`type` of events (may be repeated; default all)")
	flags.StringVar(&w.since, "since", "", "beginning of the window: RFC 3339, Unix seconds, or relative such as -90m")
	flags.StringVar(&w.until, "until", "", "end of the window, written in the same ways")
	w.columns = map[string]*[]string{}
	for _, t := range daemon.Types() {
		for _, c := range t.Shown() {
			if c.Kind != event.KindTime && w.columns[c.Name] == nil {
				w.columns[c.Name] = flags.StringArray(c.Name, nil, c.Description)
			}
		}
	}
}

// named returns those of all types that are asked for.
func (w *which) named(all []*event.Type) ([]*event.Type, error) {
	if len(w.types) == 0 {
		return all, nil
	}
	var types []*event.Type
	for _, name := range w.types {
		i := slices.IndexFunc(all, func(t *event.Type) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("--type: %q is not a type of events (there are %s)", name, nameList(all))
		}
		types = append(types, all[i])
	}
	return types, nil
}

func nameList(types []*event.Type) string {
	var names []string
	for _, t := range types {
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}

// parameters are the flags as the API takes them.
func (w *which) parameters() url.Values {
	p := url.Values{}
	for _, name := range w.types {
		p.Add("type", name)
	}
	if w.since != "" {
		p.Set("since", w.since)
	}
	if w.until != "" {
		p.Set("until", w.until)
	}
	for name, values := range w.wanted() {
		p[name] = values
	}
	return p
}

// wanted are the filters, from flags and arguments.
func (w *which) wanted() map[string][]string {
	wanted := maps.Clone(w.filters)
	for name, values := range w.columns {
		if len(*values) > 0 {
			wanted[name] = append(wanted[name], *values...)
		}
	}
	return wanted
}

// query is the same for a file.
func (w *which) query(types []*event.Type) (q query.Events, err error) {
	q.Types = types
	for _, end := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", w.since, &q.Window.Since}, {"--until", w.until, &q.Window.Until}} {
		if end.text == "" {
			continue
		}
		if *end.to, err = query.ParseTime(end.text, time.Now()); err != nil {
			return q, fmt.Errorf("%s: %w", end.flag, err)
		}
	}
	q.Filters, err = query.ParseFilters(types, w.wanted())
	return q, err
}

// command is a verb: cobra prints neither errors nor usage, main does.
func command(use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: usage(args), RunE: run, SilenceUsage: true, SilenceErrors: true}
}

// usage makes wrong arguments mistakes of the user.
func usage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return usageError{err}
		}
		return nil
	}
}
