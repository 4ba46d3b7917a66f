package config

import (
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The prefix of all environment variables.
const prefix = "EBPF_SERVER_"

// Flushes more frequent than this cost more than they save, and less frequent
// ones put too much at risk when the power fails.
const (
	minFlushInterval = 100 * time.Millisecond
	maxFlushInterval = 10 * time.Minute
)

// A question over days of a busy host takes some seconds where the disk is slow;
// after a day nobody waits for an answer.
const (
	minQueryTimeout = time.Second
	maxQueryTimeout = 24 * time.Hour
)

// Idle UDP flows are looked for once a second; what waits longer than an hour
// comes when nobody expects it any more.
const (
	minUDPIdle = time.Second
	maxUDPIdle = time.Hour
)

// A ring buffer is a power of two; the smallest is a page on machines with large
// ones, the largest far more memory than is well spent on it.
const (
	minRingBuffer = 64 << 10
	maxRingBuffer = 1 << 30
)

// setting is everything there is to know about one key.
type setting struct {
	key     string                  // as in the file, sections joined by dots
	value   string                  // default, as one would write it
	flag    string                  // flag that sets it; empty: none
	usage   string                  // of the flag
	follows string                  // if that key is set and this one is not, this one's default does not hold: set gets ""
	isList  bool                    // in the file it is a list; set gets its entries as lines
	set     func(text string) error // checks a value and puts it into the Config
}

// settings lists every setting, each bound to its place in c.
func settings(c *Config, known Known) []setting {
	list := []setting{
		{key: "server.address", value: "127.0.0.1:8080", flag: "address", usage: "`host:port` to listen on", set: into(&c.Server.Address, parseAddress)},
		{key: "server.auth_token_file", set: into(&c.Server.AuthTokenFile, parseText)},
		{key: "server.tls.cert_file", set: into(&c.Server.TLS.CertFile, parseText)},
		{key: "server.tls.key_file", set: into(&c.Server.TLS.KeyFile, parseText)},
		{key: "server.query_timeout", value: "30s", set: into(&c.Server.QueryTimeout, parseQueryTimeout)},
		{key: "storage.path", value: "/var/lib/ebpf-server/events.db", flag: "db", usage: "`file` that events are kept in", set: into(&c.Storage.Path, parsePath)},
		{key: "storage.flush_interval", value: "5s", set: into(&c.Storage.FlushInterval, parseFlushInterval)},
		{key: "retention.max_age", value: "7d", set: into(&c.Retention.MaxAge, parseDuration)},
		{key: "retention.max_size", value: "2GiB", set: into(&c.Retention.MaxSize, parseSize)},
		{key: "log.level", value: "info", flag: "log-level", usage: "`level`: debug, info, warn or error", set: into(&c.Log.Level, parseLevel)},
		{key: "log.format", value: "text", flag: "log-format", usage: "`format`: text or json", set: into(&c.Log.Format, parseFormat)},
	}
	c.Retention.Types = make(map[string]Limits, len(known.Types))
	for _, name := range slices.Sorted(slices.Values(known.Types)) {
		list = append(list, typeSettings(c, name, known.Limits[name])...)
	}
	c.Programs = make(map[string]Program, len(known.Programs))
	for _, name := range slices.Sorted(maps.Keys(known.Programs)) {
		list = append(list, programSettings(c, name, known.Programs[name])...)
	}
	return list
}

func programSettings(c *Config, name string, known KnownProgram) []setting {
	section := "programs." + name + "."
	change := func(do func(p *Program) error) error {
		p := c.Programs[name]
		err := do(&p)
		c.Programs[name] = p
		return err
	}
	list := []setting{{key: section + "enabled", value: fmt.Sprint(known.Enabled), set: func(text string) error {
		return change(func(p *Program) (err error) { p.Enabled, err = parseBool(text); return err })
	}}, {key: section + "ring_buffer", value: "16MiB", set: func(text string) error {
		return change(func(p *Program) (err error) { p.RingBuffer, err = parseRingBuffer(text); return err })
	}}}
	if len(known.Conditions) > 0 {
		list = append(list, setting{key: section + "exclude", isList: true, set: func(text string) error {
			return change(func(p *Program) (err error) { p.Exclude, err = parseRules(text, known.Conditions); return err })
		}}, setting{key: section + "include", isList: true, set: func(text string) error {
			return change(func(p *Program) (err error) { p.Include, err = parseRules(text, known.Conditions); return err })
		}})
	}
	if known.HasOwnAPI {
		list = append(list, setting{key: section + "own_api", value: "false", set: func(text string) error {
			return change(func(p *Program) (err error) { p.OwnAPI, err = parseBool(text); return err })
		}})
	}
	if known.HasUDPIdle {
		list = append(list, setting{key: section + "udp_idle", value: "1m", set: func(text string) error {
			return change(func(p *Program) (err error) { p.UDPIdle, err = parseUDPIdle(text); return err })
		}})
	}
	return list
}

// typeSettings are the limits of one type. Where it has none of its own, it
// follows the general age and has no limit of size but the general one.
func typeSettings(c *Config, name string, builtIn DefaultLimits) []setting {
	section := "retention.types." + name + "."
	return []setting{
		{key: section + "max_age", value: builtIn.MaxAge, follows: "retention.max_age", set: func(text string) (err error) {
			limits := Limits{MaxAge: c.Retention.MaxAge}
			if text != "" {
				limits.MaxAge, err = parseDuration(text)
			}
			c.Retention.Types[name] = limits
			return err
		}},
		{key: section + "max_size", value: builtIn.MaxSize, follows: "retention.max_size", set: func(text string) (err error) {
			limits := c.Retention.Types[name]
			if text != "" {
				limits.MaxSize, err = parseSize(text)
			}
			c.Retention.Types[name] = limits
			return err
		}},
	}
}

// into makes a set function of a parser and the place for its result.
func into[T any](place *T, parse func(string) (T, error)) func(string) error {
	return func(text string) (err error) {
		*place, err = parse(text)
		return err
	}
}

// AddFlags declares --config and the flags that override single settings.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "`file` with the configuration (default "+strings.Join(searchPath, " or ")+", if there)")
	for _, s := range settings(new(Config), Known{}) {
		if s.flag != "" {
			flags.String(s.flag, s.value, s.usage)
		}
	}
}

// variable is the name of the environment variable of a key.
func variable(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// prefixed returns the names of the variables that begin with the prefix.
func prefixed(environ []string) []string {
	var names []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func parseText(text string) (string, error) { return text, nil }

func parsePath(text string) (string, error) {
	if text == "" || strings.HasSuffix(text, "/") {
		return "", fmt.Errorf("%q does not name a file", text)
	}
	return text, nil
}

func parseBool(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, fmt.Errorf("%q is neither true nor false", text)
	}
	return text == "true", nil
}

func parseFlushInterval(text string) (time.Duration, error) {
	interval, err := parseDuration(text)
	if err == nil && (interval < minFlushInterval || interval > maxFlushInterval) {
		return 0, fmt.Errorf("%q is not between 100ms and 10m", text)
	}
	return interval, err
}

func parseQueryTimeout(text string) (time.Duration, error) {
	timeout, err := parseDuration(text)
	if err == nil && timeout != 0 && (timeout < minQueryTimeout || timeout > maxQueryTimeout) {
		return 0, fmt.Errorf("%q is not between 1s and 1d (0 means no limit)", text)
	}
	return timeout, err
}

func parseUDPIdle(text string) (time.Duration, error) {
	idle, err := parseDuration(text)
	if err == nil && (idle < minUDPIdle || idle > maxUDPIdle) {
		return 0, fmt.Errorf("%q is not between 1s and 1h", text)
	}
	return idle, err
}

func parseRingBuffer(text string) (uint32, error) {
	size, err := parseSize(text)
	if err == nil && (size < minRingBuffer || size > maxRingBuffer || bits.OnesCount64(uint64(size)) != 1) {
		return 0, fmt.Errorf("%q is not a power of two from 64KiB to 1GiB, such as 16MiB or 32MiB", text)
	}
	return uint32(size), err
}

func parseLevel(text string) (slog.Level, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[text]
	if !ok {
		return 0, fmt.Errorf("%q is not a level (want debug, info, warn or error)", text)
	}
	return level, nil
}

func parseFormat(text string) (string, error) {
	if text != "text" && text != "json" {
		return "", fmt.Errorf("%q is not a format (want text or json)", text)
	}
	return text, nil
}
