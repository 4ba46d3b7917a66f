// Package config reads the settings of the program and hands them out as a
// plain struct. It is the only package that knows viper.
//
// A setting comes from the first of: a flag, an environment variable, the
// YAML file, the built-in default. Every wrong key or value is an error that
// names it and says where it stands, so that a typing mistake never goes
// unnoticed.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/srodi/ebpf-server/internal/suggest"
)

// Config holds all settings, checked.
type Config struct {
	File      string // the file that was read; empty when there was none
	Server    Server
	Storage   Storage
	Retention Retention
	Programs  map[string]Program // one entry for every known program
	Log       Log
}

// Server says where and how the API listens.
type Server struct {
	Address       string // host:port; not loopback only with a token
	AuthTokenFile string
	AuthToken     string // read from AuthTokenFile, trimmed; empty: none is asked for. Not to be logged.
	TLS           TLS
	QueryTimeout  time.Duration // 0: none
}

// TLS names the files of a certificate; both are set or none.
type TLS struct {
	CertFile string
	KeyFile  string
}

// Storage says where events are kept.
type Storage struct {
	Path          string
	FlushInterval time.Duration
}

// Retention says how long events are kept.
type Retention struct {
	Limits                   // for the file as a whole
	Types  map[string]Limits // one entry for every known type, with what it follows from Limits filled in
}

// Limits are the age and the size from which on the oldest events are removed;
// 0 means no limit.
type Limits struct {
	MaxAge  time.Duration
	MaxSize int64 // bytes
}

// Program is about one monitor.
type Program struct {
	Enabled bool
	Exclude []Rule        // events that one of these means are left out
	Include []Rule        // if there are any, events that none of these means are left out
	OwnAPI  bool          // connections to this program's own API are recorded too
	UDPIdle time.Duration // a UDP flow without a datagram for so long is closed
	// RingBuffer is how many bytes may wait to be read: a power of two, and whole
	// pages on every machine.
	RingBuffer uint32
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Known are the names that the monitors bring with them. Any other name in the
// configuration is a mistake.
type Known struct {
	Types    []string                // event types
	Programs map[string]KnownProgram // monitors
	Limits   map[string]DefaultLimits
}

// KnownProgram is what a monitor's settings follow from.
type KnownProgram struct {
	Enabled    bool     // by default
	Conditions []string // that its events can be excluded and included by
	HasOwnAPI  bool     // it can tell the program's own API traffic from other
	HasUDPIdle bool     // it closes UDP flows
}

// DefaultLimits are the limits of a type for which the general ones do not do,
// written as in the file; empty: it follows the general ones.
type DefaultLimits struct{ MaxAge, MaxSize string }

// Load reads the configuration. The flags are those of AddFlags, parsed. All
// mistakes are reported together, one a line.
func Load(flags *pflag.FlagSet, known Known) (Config, error) {
	var c Config
	table := settings(&c, known)
	file, err := readFile(flags, table)
	if err != nil {
		return Config{}, err
	}
	c.File = file.path

	src := sources{flags: flags, file: file, table: table}
	v := viper.New()
	if err := src.bind(v); err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	problems := slices.Concat(file.problems, src.unknownVariables(os.Environ()))
	for _, s := range table {
		text := v.GetString(s.key)
		if s.follows != "" && !src.isSet(s.key) && src.isSet(s.follows) {
			text = ""
		}
		if err := s.set(text); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", src.origin(s.key), err))
		}
	}
	if len(problems) == 0 {
		problems = c.finish(src)
	}
	if len(problems) > 0 {
		return Config{}, errors.Join(problems...)
	}
	return c, nil
}

// finish reads the token and checks the settings that depend on each other.
func (c *Config) finish(src sources) []error {
	var problems []error
	report := func(key string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", src.origin(key), err))
		}
	}
	var err error
	if c.Server.AuthTokenFile != "" {
		c.Server.AuthToken, err = readToken(c.Server.AuthTokenFile)
		report("server.auth_token_file", err)
	}
	if c.Server.AuthTokenFile == "" {
		report("server.address", checkLoopback(c.Server.Address))
	}
	switch tls := c.Server.TLS; {
	case tls.CertFile != "" && tls.KeyFile == "":
		report("server.tls.cert_file", errors.New("needs server.tls.key_file beside it"))
	case tls.CertFile == "" && tls.KeyFile != "":
		report("server.tls.key_file", errors.New("needs server.tls.cert_file beside it"))
	}
	return problems
}

// sources knows where the value of each setting comes from.
type sources struct {
	flags *pflag.FlagSet
	file  *file
	table []setting
}

// bind gives viper everything it chooses from.
func (src sources) bind(v *viper.Viper) error {
	for _, s := range src.table {
		v.SetDefault(s.key, s.value)
		if err := v.BindEnv(s.key, variable(s.key)); err != nil {
			return err
		}
		if s.flag == "" {
			continue
		}
		if err := v.BindPFlag(s.key, src.flags.Lookup(s.flag)); err != nil {
			return err
		}
	}
	return v.MergeConfigMap(src.file.values)
}

// origin says where a setting was made, the way it is shown in errors. The
// order is that of viper.
func (src sources) origin(key string) string {
	i := slices.IndexFunc(src.table, func(s setting) bool { return s.key == key })
	if name := src.table[i].flag; name != "" && src.flags.Changed(name) {
		return "--" + name
	}
	if os.Getenv(variable(key)) != "" {
		return variable(key)
	}
	if _, ok := src.file.values[key]; ok {
		return src.file.at(src.file.lines[key]) + key
	}
	return key
}

// isSet tells whether anything but the built-in default gives the value.
func (src sources) isSet(key string) bool {
	return src.origin(key) != key
}

// unknownVariables reports the variables that carry the program's prefix but
// belong to no setting.
func (src sources) unknownVariables(environ []string) []error {
	var known []string
	for _, s := range src.table {
		known = append(known, variable(s.key))
	}
	var problems []error
	for _, name := range prefixed(environ) {
		if !slices.Contains(known, name) {
			problems = append(problems, fmt.Errorf("%s: unknown environment variable%s", name, suggest.Among(name, known)))
		}
	}
	return problems
}
