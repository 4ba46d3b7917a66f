package main

import (
	"fmt"
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

// ask returns a client of the server, or of the file, and what is to be called
// after.
func (w *whom) ask() (*client.Client, func(), error) {
	if w.db == "" {
		c, err := w.client()
		return c, func() {}, err
	}
	c, end, err := daemon.Offline(w.db, version)
	return c, func() { _ = end() }, err // it was only read: nothing is lost
}

// question holds what a verb asks for: the parameters of the API as flags, and
// filters such as command=ng* as arguments.
type question struct {
	whom
	flags      *pflag.FlagSet
	parameters map[string]*[]string
	around     string // a time
	window     string
	output     string
	outputs    []string // that there are; none: it is not shown to people
	utc        bool
}

// addFlags adds a flag for each parameter of the API, and for each field of the
// types: those that say the same thing have the same name.
func (q *question) addFlags(c *cobra.Command, parameters map[string]string) {
	flags := c.Flags()
	q.flags = flags
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	q.whom.addFlags(flags)
	q.parameters = map[string]*[]string{}
	for name, usage := range parameters {
		q.parameters[name] = flags.StringArray(name, nil, usage)
	}
	for _, t := range daemon.Types() {
		for _, f := range t.Shown() {
			if f.Kind != event.KindTime && q.parameters[f.Name] == nil {
				q.parameters[f.Name] = flags.StringArray(f.Name, nil, "filter: "+f.Description)
			}
		}
	}
	flags.StringVar(&q.around, "at", "", "`time` around which is asked, with --window: 2026-11-21 03:12 or 03:12 (local time), or as for --since")
	flags.StringVar(&q.window, "window", "1m", "how `long` the window around --at is")
	q.complete(c)
}

// addOutput adds the flags of those who show answers to people too.
func (q *question) addOutput(c *cobra.Command, formats ...string) {
	q.outputs = formats
	c.Flags().StringVarP(&q.output, "output", "o", "table", "`format`: "+strings.Join(formats, ", "))
	c.Flags().BoolVar(&q.utc, "utc", false, "show times in UTC instead of local time")
	completeFlag(c, "output", formats)
}

// complete tells shells which values there are.
func (q *question) complete(c *cobra.Command) {
	values := map[string][]string{"order": {"desc", "asc"}, "sums": {"none"}}
	for _, t := range daemon.Types() {
		values["type"] = append(values["type"], t.Name)
		for _, column := range t.Shown() {
			for _, of := range []string{"group_by", "distinct", "fields", "absent", "present", "stats", "first_seen"} {
				if !slices.Contains(values[of], column.Name) {
					values[of] = append(values[of], column.Name)
				}
			}
			if column.Sum {
				values["sums"] = append(values["sums"], column.Name)
			}
			if column.Values != nil {
				values[column.Name] = column.Values
			}
		}
	}
	for name, list := range values {
		completeFlag(c, name, list)
	}
}

func completeFlag(c *cobra.Command, name string, values []string) {
	// It fails for a flag that this verb does not have.
	_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// values are the parameters as the API takes them.
func (q *question) values(args []string, now time.Time) (url.Values, error) {
	if q.outputs != nil && !slices.Contains(q.outputs, q.output) {
		return nil, usageError{fmt.Errorf("--output: %q is not known (known are %s)", q.output, strings.Join(q.outputs, ", "))}
	}
	values := url.Values{}
	for name, given := range q.parameters {
		for _, text := range *given {
			values.Add(name, text)
		}
	}
	for _, arg := range args {
		key, value, err := query.SplitFilter(arg)
		if err != nil {
			return nil, usageError{err}
		}
		values.Add(key, value)
	}
	for _, name := range []string{"since", "until", "time"} {
		if text := values.Get(name); text != "" {
			values.Set(name, localTime(text, now))
		}
	}
	if q.around == "" {
		if q.flags.Changed("window") {
			return nil, usageError{fmt.Errorf("--window goes with --at")}
		}
		return values, nil
	}
	if values.Has("since") || values.Has("until") || values.Has("duration") {
		return nil, usageError{fmt.Errorf("--at goes with --window, not with --since, --until and --duration")}
	}
	middle, err := query.ParseTime(localTime(q.around, now), now)
	if err != nil {
		return nil, usageError{fmt.Errorf("--at %w; or in local time 2026-11-21 03:12, or 03:12", err)}
	}
	length, err := query.ParseDuration(q.window)
	if err != nil {
		return nil, usageError{fmt.Errorf("--window %q is no time span such as 5m", q.window)}
	}
	values.Set("since", middle.Add(-length/2).Format(time.RFC3339Nano))
	values.Set("until", middle.Add(length-length/2).Format(time.RFC3339Nano))
	return values, nil
}

// localTime turns what people write into what the API takes: a day and a time, or
// only one of them, in the zone of the machine. The last 03:12 is meant, not one
// that is still to come.
func localTime(text string, now time.Time) string {
	for _, form := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t.Format(time.RFC3339)
		}
	}
	for _, form := range []string{"15:04:05", "15:04"} {
		clock, err := time.Parse(form, text)
		if err != nil {
			continue
		}
		t := time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, time.Local)
		if t.After(now) {
			t = t.AddDate(0, 0, -1)
		}
		return t.Format(time.RFC3339)
	}
	return text
}

// isFilter tells an argument that is a filter from a file or an id.
func isFilter(arg string) bool { return strings.ContainsAny(arg, "=<>") }

// typesNamed returns those of all types that have these names, or all of them if
// there are no names.
func typesNamed(names []string, all []*event.Type) ([]*event.Type, error) {
	if len(names) == 0 {
		return all, nil
	}
	var types []*event.Type
	for _, name := range names {
		i := slices.IndexFunc(all, func(t *event.Type) bool { return t.Name == name })
		if i < 0 {
			return nil, usageError{fmt.Errorf("--type: %q is not a type of events (there are %s)", name, nameList(all))}
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
