package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

const (
	day        = 24 * time.Hour
	ringBuffer = 16 << 20 // by default
)

// known is what the program brings with it; a third monitor is off by default.
var known = Known{
	Types: []string{"connection", "packet_drop", "dns"},
	Programs: map[string]KnownProgram{
		"connection":  {Enabled: true, Conditions: allConditions, HasOwnAPI: true, HasUDPIdle: true},
		"packet_drop": {Enabled: true, Conditions: []string{"uid", "ip", "loopback", "port", "interface"}},
		"dns":         {},
	},
	Limits: map[string]DefaultLimits{"packet_drop": {MaxAge: "3d", MaxSize: "500MiB"}},
}

var allConditions = []string{"command", "uid", "cgroup", "ip", "loopback", "port", "interface"}

// defaults are written out here once more, so that a change of one is noticed.
func defaults() Config {
	week := Limits{MaxAge: 7 * day}
	return Config{
		Server:  Server{Address: "127.0.0.1:8080", QueryTimeout: 30 * time.Second},
		Storage: Storage{Path: "/var/lib/ebpf-server/events.db", FlushInterval: 5 * time.Second},
		Retention: Retention{
			Limits: Limits{MaxAge: 7 * day, MaxSize: 2 << 30},
			Types:  map[string]Limits{"connection": week, "dns": week, "packet_drop": {MaxAge: 3 * day, MaxSize: 500 << 20}},
		},
		Programs: map[string]Program{
			"connection":  {Enabled: true, UDPIdle: time.Minute, RingBuffer: ringBuffer},
			"packet_drop": {Enabled: true, RingBuffer: ringBuffer},
			"dns":         {RingBuffer: ringBuffer},
		},
		Log: Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// load runs Load as the program does, with these command line arguments.
func load(t *testing.T, args ...string) (Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("ebpf-server", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags, known)
}

// write makes a file with mode 600 and returns its path.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantError checks that an error has exactly these lines. PATH in them stands
// for the path.
func wantError(t *testing.T, err error, path string, want ...string) {
	t.Helper()
	expected := strings.ReplaceAll(strings.Join(want, "\n"), "PATH", path)
	if err == nil {
		t.Fatalf("no error, want:\n%s", expected)
	}
	if err.Error() != expected {
		t.Fatalf("got error:\n%v\nwant:\n%s", err, expected)
	}
}

func TestDefaults(t *testing.T) {
	got, err := load(t, "--config", "/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.File = "/dev/null"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// The file that is shipped must parse, be the defaults, and show every key.
func TestShippedFileIsTheDefaults(t *testing.T) {
	t.Chdir("../..")
	shipped := "configs/ebpf-server.yaml"
	got, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.File = shipped
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	shown := Known{Types: []string{"packet_drop"}, Programs: map[string]KnownProgram{
		"connection":  {Enabled: true, Conditions: []string{"command", "ip"}, HasOwnAPI: true, HasUDPIdle: true},
		"packet_drop": {Enabled: true, Conditions: []string{"ip", "interface"}},
	}, Limits: known.Limits}
	table := settings(new(Config), shown)
	f := newFile(table)
	f.path = shipped
	data, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.parse(data); err != nil {
		t.Fatal(err)
	}
	for _, s := range table {
		if f.values[s.key] != s.value {
			t.Errorf("%s: shows %v, default is %q", s.key, f.values[s.key], s.value)
		}
	}
}

func TestEveryKeyFromTheFile(t *testing.T) {
	token := write(t, "  0123456789abcdef\n")
	path := write(t, `
server:
  address: "[::]:9000"
  auth_token_file: `+token+`
  tls: {cert_file: /c.pem, key_file: /k.pem}
  query_timeout: 2m
storage:
  path: data/x.db
  flush_interval: 1.5s
retention:
  max_age: 1w1d12h
  max_size: 10 GB
  types:
    connection: {max_age: 0, max_size: 1TiB}
    dns: {max_age: 30m}
programs:
  connection: {enabled: false, udp_idle: 5m}
  packet_drop: {ring_buffer: 64KiB}
  dns: {enabled: true, ring_buffer: 1GiB}
log: {level: warn, format: json}
`)
	got, err := load(t, "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		File:    path,
		Server:  Server{Address: "[::]:9000", AuthTokenFile: token, AuthToken: "0123456789abcdef", TLS: TLS{CertFile: "/c.pem", KeyFile: "/k.pem"}, QueryTimeout: 2 * time.Minute},
		Storage: Storage{Path: "data/x.db", FlushInterval: 1500 * time.Millisecond},
		Retention: Retention{
			Limits: Limits{MaxAge: 8*day + 12*time.Hour, MaxSize: 10e9},
			Types: map[string]Limits{
				"connection":  {MaxAge: 0, MaxSize: 1 << 40},
				"dns":         {MaxAge: 30 * time.Minute},
				"packet_drop": {MaxAge: 8*day + 12*time.Hour},
			},
		},
		Programs: map[string]Program{
			"connection":  {UDPIdle: 5 * time.Minute, RingBuffer: ringBuffer},
			"packet_drop": {Enabled: true, RingBuffer: 64 << 10},
			"dns":         {Enabled: true, RingBuffer: 1 << 30},
		},
		Log: Log{Level: slog.LevelWarn, Format: "json"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Limits that are built in for a type must not outlive a general limit that
// the user sets.
func TestTypeLimitsFollowGeneralOnes(t *testing.T) {
	builtIn := Limits{MaxAge: 3 * day, MaxSize: 500 << 20}
	for name, c := range map[string]struct {
		yaml             string
		connection, drop Limits
	}{
		"nothing set":      {"", Limits{MaxAge: 7 * day}, builtIn},
		"general age":      {"retention: {max_age: 1d}", Limits{MaxAge: day}, Limits{MaxAge: day, MaxSize: builtIn.MaxSize}},
		"no general limit": {"retention: {max_age: 0, max_size: 0}", Limits{}, Limits{}},
		"both ages":        {"retention: {max_age: 1d, types: {packet_drop: {max_age: 2d}}}", Limits{MaxAge: day}, Limits{MaxAge: 2 * day, MaxSize: builtIn.MaxSize}},
		"only the type's":  {"retention: {types: {packet_drop: {max_size: 1GB}}}", Limits{MaxAge: 7 * day}, Limits{MaxAge: 3 * day, MaxSize: 1e9}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, "--config", write(t, c.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if types := got.Retention.Types; types["connection"] != c.connection || types["packet_drop"] != c.drop {
				t.Errorf("got %+v, want connection %+v and packet_drop %+v", types, c.connection, c.drop)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	path := write(t, "server: {address: '127.0.0.1:1'}\nstorage: {path: file.db}\nlog: {level: warn, format: json}")
	t.Setenv("EBPF_SERVER_STORAGE_PATH", "env.db")
	t.Setenv("EBPF_SERVER_LOG_LEVEL", "error")
	t.Setenv("EBPF_SERVER_LOG_FORMAT", "") // empty counts as not set
	t.Setenv("EBPF_SERVER_PROGRAMS_PACKET_DROP_ENABLED", "false")
	t.Setenv("EBPF_SERVER_RETENTION_TYPES_DNS_MAX_AGE", "2d")
	got, err := load(t, "--config", path, "--log-level", "debug", "--address", "localhost:2")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.File = path
	want.Server.Address = "localhost:2"                            // flag over file
	want.Log.Level = slog.LevelDebug                               // flag over environment over file
	want.Storage.Path = "env.db"                                   // environment over file
	want.Log.Format = "json"                                       // file over default
	want.Programs["packet_drop"] = Program{RingBuffer: ringBuffer} // environment over default
	want.Retention.Types["dns"] = Limits{MaxAge: 2 * day}          //
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSearchOrder(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	etc := filepath.Join(folder, "etc.yaml")
	saved := searchPath
	searchPath = []string{searchPath[0], etc}
	t.Cleanup(func() { searchPath = saved })

	file := func(args ...string) string {
		c, err := load(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		return c.File
	}
	put := func(path string) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := file(); got != "" {
		t.Errorf("without any file: read %q", got)
	}
	put(etc)
	if got := file(); got != etc {
		t.Errorf("with the one in /etc: read %q", got)
	}
	if err := os.Mkdir("configs", 0o750); err != nil {
		t.Fatal(err)
	}
	put("configs/ebpf-server.yaml")
	if got := file(); got != "configs/ebpf-server.yaml" {
		t.Errorf("with the one in ./configs: read %q", got)
	}
	put("mine.yaml")
	if got := file("--config", "mine.yaml"); got != "mine.yaml" {
		t.Errorf("with --config: read %q", got)
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	folder := t.TempDir()
	_, err := load(t, "--config", "nowhere.yaml")
	wantError(t, err, "", `read configuration "nowhere.yaml": no such file or directory`)
	_, err = load(t, "--config", folder)
	wantError(t, err, folder, `read configuration "PATH": is a directory`)
	_, err = load(t, "--config", "")
	wantError(t, err, "", `read configuration "": no such file or directory`)
	_, err = load(t, "--config", "/dev/zero")
	wantError(t, err, "", `read configuration "/dev/zero": longer than 1 MiB, is this the right file?`)
}

func TestFlagHelp(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	usage := flags.FlagUsages()
	for _, want := range []string{
		"--config file", "--address host:port", `(default "127.0.0.1:8080")`, "--db file", "--log-level level", "--log-format format",
	} {
		if !strings.Contains(usage, want) {
			t.Errorf("usage has no %q:\n%s", want, usage)
		}
	}
}
