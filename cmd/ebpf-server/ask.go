package main

import (
	"fmt"
	"io"
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
	"github.com/srodi/ebpf-server/internal/terminal"
)

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
	utc        bool
}

// addFlags adds a flag for each parameter of the API, and for each column of the
// types: those that say the same thing have the same name.
func (q *question) addFlags(c *cobra.Command, parameters map[string]string, formats ...string) {
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
		for _, c := range t.Shown() {
			if c.Kind != event.KindTime && q.parameters[c.Name] == nil {
				q.parameters[c.Name] = flags.StringArray(c.Name, nil, "filter: "+c.Description)
			}
		}
	}
	flags.StringVar(&q.around, "at", "", "`time` around which is asked, with --window: 2026-11-21 03:12 or 03:12 (local time), or as for --since")
	flags.StringVar(&q.window, "window", "1m", "how `long` the window around --at is")
	flags.StringVarP(&q.output, "output", "o", "table", "`format`: "+strings.Join(formats, ", "))
	flags.BoolVar(&q.utc, "utc", false, "show times in UTC instead of local time")
	q.complete(c, formats...)
}

// complete tells shells which values there are.
func (q *question) complete(c *cobra.Command, formats ...string) {
	values := map[string][]string{"output": formats, "order": {"desc", "asc"}}
	for _, t := range daemon.Types() {
		values["type"] = append(values["type"], t.Name)
		for _, column := range t.Shown() {
			for _, of := range []string{"group_by", "distinct", "fields", "absent", "present", "stats", "first_seen"} {
				if !slices.Contains(values[of], column.Name) {
					values[of] = append(values[of], column.Name)
				}
			}
			if column.Values != nil {
				values[column.Name] = column.Values
			}
		}
	}
	for name, list := range values {
		// It fails for a flag that this verb does not have.
		_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
	}
}

// usageError is a mistake of the user in asking: the exit status is 2.
type usageError struct{ error }

// values are the parameters as the API takes them.
func (q *question) values(args []string, now time.Time) (url.Values, error) {
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
		return nil, usageError{fmt.Errorf("--at %w", err)}
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

func (q *question) screen(cmd *cobra.Command) *terminal.Screen {
	zone := time.Local
	if q.utc {
		zone = time.UTC
	}
	return terminal.New(cmd.OutOrStdout(), zone)
}

// types returns those that an answer can be about: the ones named, or else all
// that have every column that the flags name.
func (q *question) types(columns ...string) ([]*event.Type, error) {
	named := *q.parameters["type"]
	var types []*event.Type
	for _, t := range daemon.Types() {
		lacks := func(name string) bool { _, ok := t.Column(name); return !ok }
		if len(named) == 0 && !slices.ContainsFunc(columns, lacks) || slices.Contains(named, t.Name) {
			types = append(types, t)
		}
	}
	if len(types) == 0 {
		return nil, usageError{fmt.Errorf("there is no such type of events (there are %s)", nameList(daemon.Types()))}
	}
	return types, nil
}

// copyAnswer prints an answer as it comes.
func copyAnswer(cmd *cobra.Command, c *client.Client, path string, values url.Values) error {
	body, err := c.Get(cmd.Context(), path, values)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(cmd.OutOrStdout(), body)
	return err
}
