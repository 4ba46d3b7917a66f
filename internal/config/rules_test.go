package config

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestRules(t *testing.T) {
	path := write(t, `
programs:
  connection:
    exclude:
      - command=curl,wget port=443,8000-8100
      - ip=10.0.0.0/8,::1 uid=0,1000
      - loopback cgroup=/system.slice/x.service
    include: [ip=192.0.2.1]
    own_api: true
  packet_drop:
    include: interface=eth0
`)
	t.Setenv("EBPF_SERVER_PROGRAMS_PACKET_DROP_EXCLUDE", "port=53 ; loopback;")
	got, err := load(t, "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	network := netip.MustParsePrefix
	want := map[string]Program{
		"connection": {
			Enabled: true, OwnAPI: true, UDPIdle: time.Minute, RingBuffer: ringBuffer,
			Exclude: []Rule{
				{Commands: []string{"curl", "wget"}, Ports: [][2]uint16{{443, 443}, {8000, 8100}}},
				{Networks: []netip.Prefix{network("10.0.0.0/8"), network("::1/128")}, UIDs: []uint32{0, 1000}},
				{Networks: loopback, Cgroups: []string{"/system.slice/x.service"}},
			},
			Include: []Rule{{Networks: []netip.Prefix{network("192.0.2.1/32")}}},
		},
		"packet_drop": {
			Enabled: true, RingBuffer: ringBuffer,
			Exclude: []Rule{{Ports: [][2]uint16{{53, 53}}}, {Networks: loopback}},
			Include: []Rule{{Interfaces: []string{"eth0"}}},
		},
		"dns": {RingBuffer: ringBuffer},
	}
	if !reflect.DeepEqual(got.Programs, want) {
		t.Errorf("got  %+v\nwant %+v", got.Programs, want)
	}
}

func TestMistakesInRules(t *testing.T) {
	for rule, want := range map[string]string{
		"comand=curl":              `"comand" is no condition (did you mean command?)`,
		"command=":                 "command: a value is empty",
		"command":                  "write loopback alone, and all else as NAME=VALUE, with commas between values",
		"loopback=true":            "write loopback alone, and all else as NAME=VALUE, with commas between values",
		"command=a-very-long-name": `command: "a-very-long-name" is longer than the 15 bytes that the kernel keeps; write "a-very-long-nam"`,
		"uid=root":                 `uid: "root" is not the number of a user`,
		"port=70000":               `port: "70000" is neither a port (1 to 65535) nor a range such as 8000-8100`,
		"port=0-80":                `port: "0-80" is neither a port (1 to 65535) nor a range such as 8000-8100`,
		"port=9-8":                 `port: "9-8" is neither a port (1 to 65535) nor a range such as 8000-8100`,
		"ip=10.0.0.1/8":            `ip: "10.0.0.1/8" is neither an address nor a network such as 10.0.0.0/8`,
		"cgroup=x":                 `cgroup: "x" does not begin with /`,
		"port=1 port=2":            "port is there twice; give it several values with commas",
		"ip=::1 loopback":          "ip and loopback are two conditions on the same; write two rules",
	} {
		t.Run(rule, func(t *testing.T) {
			path := write(t, "programs:\n  connection:\n    exclude:\n      - "+rule)
			_, err := load(t, "--config", path)
			wantError(t, err, path, `PATH:3: programs.connection.exclude: rule "`+rule+`": `+want)
		})
	}
	path := write(t, "programs: {packet_drop: {exclude: [command=curl]}}")
	_, err := load(t, "--config", path)
	wantError(t, err, path, `PATH:1: programs.packet_drop.exclude: rule "command=curl": "command" is no condition (known are uid, ip, loopback, port, interface)`)
	path = write(t, "programs: {connection: {exclude: [{command: curl}]}}")
	_, err = load(t, "--config", path)
	wantError(t, err, path, "PATH:1: programs.connection.exclude: a section where one value is wanted")
}
