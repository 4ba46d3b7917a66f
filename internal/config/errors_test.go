package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each mistake is one line that names the place, the key and the value.
func TestMistakesInTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		want []string // lines
	}{
		"mistyped key":         {"retention:\n  max_agee: 7d", []string{"PATH:2: retention.max_agee: unknown key (did you mean max_age?)"}},
		"mistyped section":     {"\nsrever: {}", []string{"PATH:2: srever: unknown key (did you mean server?)"}},
		"upper case":           {"Server: {}", []string{"PATH:1: Server: unknown key (did you mean server?)"}},
		"unlike any key":       {"log: {colour: red}", []string{"PATH:1: log.colour: unknown key (known are format, level)"}},
		"mistyped program":     {"programs:\n  conection: {enabled: true}", []string{"PATH:2: programs.conection: unknown key (did you mean connection?)"}},
		"mistyped type":        {"retention: {types: {packet_drops: {max_age: 1d}}}", []string{"PATH:1: retention.types.packet_drops: unknown key (did you mean packet_drop?)"}},
		"key of a program":     {"programs: {dns: {enable: true}}", []string{"PATH:1: programs.dns.enable: unknown key (did you mean enabled?)"}},
		"dotted key":           {"log.level: debug", []string{"PATH:1: log.level: unknown key (known are log, programs, retention, server, storage)"}},
		"key that is no word":  {"[a, b]: 1", []string{"PATH:1: : unknown key (known are log, programs, retention, server, storage)"}},
		"merge key":            {"log: &l {level: info}\nserver: {<<: *l}", []string{"PATH:2: server.<<: unknown key (known are address, auth_token_file, query_timeout, tls)"}},
		"key twice":            {"log:\n  level: info\n  format: text\n  level: warn", []string{"PATH:4: log.level: set twice, first on line 2"}},
		"section twice":        {"log: {}\nlog: {}", []string{"PATH:2: log: set twice, first on line 1"}},
		"all mistakes at once": {"log: {levle: info}\nstorage:\n  flush_interval: 1", []string{"PATH:1: log.levle: unknown key (did you mean level?)", `PATH:3: storage.flush_interval: "1" has no unit (want 1s, 1m, 1h or 1d)`}},

		// Wrong shapes.
		"list as document":    {"- a\n- b", []string{"PATH:1: the file: a list where a section is wanted (with the keys log, programs, retention, server, storage)"}},
		"text as document":    {"hello", []string{`PATH:1: the file: "hello" where a section is wanted (with the keys log, programs, retention, server, storage)`}},
		"value for a section": {"programs:\n  connection: true", []string{`PATH:2: programs.connection: "true" where a section is wanted (with the keys enabled, exclude, include, own_api, ring_buffer, udp_idle)`}},
		"list for a section":  {"programs: [connection]", []string{"PATH:1: programs: a list where a section is wanted (with the keys connection, dns, packet_drop)"}},
		"section for a value": {"log: {level: {a: b}}", []string{"PATH:1: log.level: a section where one value is wanted"}},
		"list for a value":    {"log:\n  level:\n    - info", []string{"PATH:3: log.level: a list where one value is wanted"}},
		"nothing for a value": {"log:\n  level:", []string{`PATH:2: log.level: "" is not a level (want debug, info, warn or error)`}},
		"second document":     {"log: {}\n---\nlog: {}", []string{"PATH:2: a second document begins here, only one is read"}},

		// Not YAML.
		"tab":                  {"log:\n\tlevel: info", []string{"PATH:2: indented with a tab, YAML wants spaces"}},
		"unclosed bracket":     {"log: {level: info\nserver:", []string{"PATH:1: not valid YAML: did not find expected ',' or '}'"}},
		"value beside section": {"log: x\n  level: info", []string{"PATH:2: not valid YAML: mapping values are not allowed in this context"}},
		"binary":               {"\x00\x01", []string{"PATH: not valid YAML: control characters are not allowed"}},
		"unknown anchor":       {"log: *x", []string{"PATH: not valid YAML: unknown anchor 'x' referenced"}},

		// Bad values.
		"no duration":            {"storage:\n  # comment\n  flush_interval: 5 bananas", []string{`PATH:3: storage.flush_interval: "5 bananas" is not a duration (want 5s, 10m, 12h or 7d)`}},
		"no time for answers":    {"server: {query_timeout: 10ms}", []string{`PATH:1: server.query_timeout: "10ms" is not between 1s and 1d (0 means no limit)`}},
		"flush too often":        {"storage: {flush_interval: 99ms}", []string{`PATH:1: storage.flush_interval: "99ms" is not between 100ms and 10m`}},
		"flush never":            {"storage: {flush_interval: 0}", []string{`PATH:1: storage.flush_interval: "0" is not between 100ms and 10m`}},
		"flush too rarely":       {"storage: {flush_interval: 601s}", []string{`PATH:1: storage.flush_interval: "601s" is not between 100ms and 10m`}},
		"negative age":           {"retention: {max_age: -1d}", []string{`PATH:1: retention.max_age: "-1d" is negative (want 5s, 10m, 12h or 7d)`}},
		"age without unit":       {"retention: {max_age: 7}", []string{`PATH:1: retention.max_age: "7" has no unit (want 7s, 7m, 7h or 7d)`}},
		"age of a type":          {"retention: {types: {dns: {max_age: soon}}}", []string{`PATH:1: retention.types.dns.max_age: "soon" is not a duration (want 5s, 10m, 12h or 7d)`}},
		"size without unit":      {"retention: {max_size: 500}", []string{`PATH:1: retention.max_size: "500" has no unit (want 500B, 500MB or 500MiB)`}},
		"size of a type":         {"retention: {types: {dns: {max_size: 5gb}}}", []string{`PATH:1: retention.types.dns.max_size: "5gb" is not a size (want 500MB, 512MiB or 2GiB)`}},
		"neither true nor false": {"programs: {dns: {enabled: yes}}", []string{`PATH:1: programs.dns.enabled: "yes" is neither true nor false`}},
		"udp idle":               {"programs: {connection: {udp_idle: 100ms}}", []string{`PATH:1: programs.connection.udp_idle: "100ms" is not between 1s and 1h`}},
		"no udp idle":            {"programs: {connection: {udp_idle: 0}}", []string{`PATH:1: programs.connection.udp_idle: "0" is not between 1s and 1h`}},
		"ring buffer":            {"programs: {dns: {ring_buffer: 20MiB}}", []string{`PATH:1: programs.dns.ring_buffer: "20MiB" is not a power of two from 64KiB to 1GiB, such as 16MiB or 32MiB`}},
		"tiny ring buffer":       {"programs: {dns: {ring_buffer: 32KiB}}", []string{`PATH:1: programs.dns.ring_buffer: "32KiB" is not a power of two from 64KiB to 1GiB, such as 16MiB or 32MiB`}},
		"no ring buffer":         {"programs: {dns: {ring_buffer: 0}}", []string{`PATH:1: programs.dns.ring_buffer: "0" is not a power of two from 64KiB to 1GiB, such as 16MiB or 32MiB`}},
		"huge ring buffer":       {"programs: {dns: {ring_buffer: 2GiB}}", []string{`PATH:1: programs.dns.ring_buffer: "2GiB" is not a power of two from 64KiB to 1GiB, such as 16MiB or 32MiB`}},
		"ring buffer, no unit":   {"programs: {dns: {ring_buffer: 65536}}", []string{`PATH:1: programs.dns.ring_buffer: "65536" has no unit (want 65536B, 65536MB or 65536MiB)`}},
		"log level":              {"log: {level: loud}", []string{`PATH:1: log.level: "loud" is not a level (want debug, info, warn or error)`}},
		"log format":             {"log: {format: xml}", []string{`PATH:1: log.format: "xml" is not a format (want text or json)`}},
		"empty path":             {"storage: {path: ''}", []string{`PATH:1: storage.path: "" does not name a file`}},
		"path of a folder":       {"storage: {path: /var/lib/}", []string{`PATH:1: storage.path: "/var/lib/" does not name a file`}},
		"certificate alone":      {"server: {tls: {cert_file: c.pem}}", []string{"PATH:1: server.tls.cert_file: needs server.tls.key_file beside it"}},
		"key alone":              {"server: {tls: {key_file: k.pem}}", []string{"PATH:1: server.tls.key_file: needs server.tls.cert_file beside it"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.yaml)
			_, err := load(t, "--config", path)
			wantError(t, err, path, c.want...)
		})
	}
}

func TestFilesThatAreFine(t *testing.T) {
	for name, yaml := range map[string]string{
		"empty":                 "",
		"only comments":         "# nothing\n",
		"start of a document":   "---\nlog: {level: info}\n",
		"sections without keys": "programs:\n  # connection: {enabled: false}\nretention:\n  types:\n",
		"alias":                 "programs: {dns: &off {enabled: false}, connection: *off}",
		"tab behind a value":    "log:\n  level: info\t# tab\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, "--config", write(t, yaml)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMistakesInTheEnvironment(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, want string }{
		"unknown":           {"EBPF_SERVER_SERVER_ADRESS", "x", "EBPF_SERVER_SERVER_ADRESS: unknown environment variable (did you mean EBPF_SERVER_SERVER_ADDRESS?)"},
		"unknown and empty": {"EBPF_SERVER_LOG_LEVLE", "", "EBPF_SERVER_LOG_LEVLE: unknown environment variable (did you mean EBPF_SERVER_LOG_LEVEL?)"},
		"program":           {"EBPF_SERVER_PROGRAMS_DNS_ENABLE", "true", "EBPF_SERVER_PROGRAMS_DNS_ENABLE: unknown environment variable (did you mean EBPF_SERVER_PROGRAMS_DNS_ENABLED?)"},
		"bad value":         {"EBPF_SERVER_RETENTION_MAX_AGE", "7", `EBPF_SERVER_RETENTION_MAX_AGE: "7" has no unit (want 7s, 7m, 7h or 7d)`},
		"open address":      {"EBPF_SERVER_SERVER_ADDRESS", ":80", `EBPF_SERVER_SERVER_ADDRESS: ":80" can be reached from other machines, which needs a token: set server.auth_token_file, or listen on 127.0.0.1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			_, err := load(t, "--config", "/dev/null")
			wantError(t, err, "", c.want)
		})
	}
}

func TestMistakesInFlags(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"--log-level", "loud", `--log-level: "loud" is not a level (want debug, info, warn or error)`},
		{"--log-format", "", `--log-format: "" is not a format (want text or json)`},
		{"--db", "", `--db: "" does not name a file`},
		{"--address", "8080", `--address: "8080" is not an address (want host:port such as 127.0.0.1:8080 or [::1]:8080)`},
	} {
		t.Run(c.flag, func(t *testing.T) {
			t.Setenv("EBPF_SERVER_LOG_LEVEL", "wrong, but not used")
			_, err := load(t, "--config", "/dev/null", "--log-level", "info", c.flag, c.value)
			wantError(t, err, "", c.want)
		})
	}
}

func TestAddress(t *testing.T) {
	const open, form, port, host = "can be reached from other machines", "is not an address", "has no usable port", "has no usable host"
	for address, want := range map[string]string{
		"127.0.0.1:8080":          "",
		"127.8.9.1:0":             "",
		"localhost:65535":         "",
		"[::1]:8080":              "",
		"[::ffff:127.0.0.1]:8080": "",
		":8080":                   open,
		"0.0.0.0:8080":            open,
		"[::]:8080":               open,
		"192.0.2.1:8080":          open,
		"[fe80::1%eth0]:8080":     open,
		"example.org:8080":        open,
		"localhost.evil.org:80":   open,
		"127.0.0.1.evil.org:80":   open,
		"127.0.0.1":               form,
		"::1:8080":                form,
		"127.0.0.1:8080:9":        form,
		"http://127.0.0.1:8080":   form,
		"127.0.0.1:":              port,
		"127.0.0.1:http":          port,
		"127.0.0.1:65536":         port,
		"127.0.0.1:-1":            port,
		"local host:80":           host,
		"-x:80":                   host,
	} {
		t.Run(address, func(t *testing.T) {
			_, err := load(t, "--config", "/dev/null", "--address", address)
			switch {
			case want == "" && err != nil:
				t.Error(err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("got error %v, want one that says %q", err, want)
			}
		})
	}
}

func TestToken(t *testing.T) {
	const good = "0123456789abcdef"
	folder := t.TempDir()
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    string // PATH stands for the file; empty: the token is taken
	}{
		"just long enough":  {good + "\n", 0o600, ""},
		"read only":         {good, 0o400, ""},
		"too short":         {" 0123456789abcde \n", 0o600, `token in "PATH" has 15 characters, at least 16 are needed (make one with: openssl rand -hex 32)`},
		"empty":             {"", 0o600, `token in "PATH" has 0 characters, at least 16 are needed (make one with: openssl rand -hex 32)`},
		"two lines":         {good + "\n" + good, 0o600, `token in "PATH" must be one word of ASCII letters, digits and signs (make one with: openssl rand -hex 32)`},
		"not ASCII":         {good + "é", 0o600, `token in "PATH" must be one word of ASCII letters, digits and signs (make one with: openssl rand -hex 32)`},
		"readable by all":   {good, 0o644, `"PATH" can be read by others than its owner (mode 0644): run chmod 600 PATH`},
		"readable by group": {good, 0o640, `"PATH" can be read by others than its owner (mode 0640): run chmod 600 PATH`},
		"much too long":     {strings.Repeat("x", maxFileSize+1), 0o600, `read token from "PATH": longer than 1 MiB, is this the right file?`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(folder, strings.ReplaceAll(name, " ", "_"))
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			config := write(t, "server: {auth_token_file: "+path+"}")
			got, err := load(t, "--config", config, "--address", "0.0.0.0:8080")
			if c.want != "" {
				wantError(t, err, path, config+":1: server.auth_token_file: "+c.want)
				return
			}
			if err != nil || got.Server.AuthToken != good {
				t.Errorf("got %q, %v", got.Server.AuthToken, err)
			}
		})
	}
	t.Run("not a file", func(t *testing.T) {
		t.Setenv("EBPF_SERVER_SERVER_AUTH_TOKEN_FILE", folder)
		_, err := load(t, "--config", "/dev/null")
		wantError(t, err, folder, `EBPF_SERVER_SERVER_AUTH_TOKEN_FILE: "PATH" is not a file`)
	})
	t.Run("missing", func(t *testing.T) {
		t.Setenv("EBPF_SERVER_SERVER_AUTH_TOKEN_FILE", "/nowhere/token")
		_, err := load(t, "--config", "/dev/null")
		wantError(t, err, "", `EBPF_SERVER_SERVER_AUTH_TOKEN_FILE: read token from "/nowhere/token": no such file or directory`)
	})
}

// Whatever stands in the file, reading it ends in values or in errors.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"log: {level: info}", "a: &a [*a]", "log: &l\n  level: *l", "? [x]\n: y", "---\n---", "\t", "programs: !!map {dns: ~}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		read := &file{path: "f", values: map[string]any{}, lines: map[string]int{}, keys: keysOf(settings(new(Config), known))}
		if err := read.parse(data); err == nil {
			for key := range read.values {
				if !read.keys[key] {
					t.Errorf("value for unknown key %q", key)
				}
			}
		}
	})
}
