package query

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestParseFilters(t *testing.T) {
	both := []*event.Type{flowType, dropType}
	tests := []struct {
		name   string
		types  []*event.Type
		values map[string][]string
		param  string // that an error is about; empty: no error
		reason string // part of it
	}{
		{"nothing", both, nil, "", ""},
		{"numbers", both, map[string][]string{"pid": {"1", "-5"}, "port": {"443"}}, "", ""},
		{"not a number", both, map[string][]string{"pid": {"1", "x"}}, "pid", "whole number"},
		{"a fraction", both, map[string][]string{"pid": {"1.5"}}, "pid", "whole number"},
		{"too large a number", both, map[string][]string{"pid": {"9223372036854775808"}}, "pid", "whole number"},
		{"value of one type", both, map[string][]string{"protocol": {"icmp", "udp"}}, "", ""},
		{"value of no type", []*event.Type{flowType}, map[string][]string{"protocol": {"icmp"}}, "protocol", "tcp, udp"},
		{"address and network", both, map[string][]string{"address": {"::1", "10.0.0.0/8"}}, "", ""},
		{"not an address", both, map[string][]string{"address": {"localhost"}}, "address", "IP address"},
		{"not a network", both, map[string][]string{"address": {"10.0.0.0/33"}}, "address", "network"},
		{"id", both, map[string][]string{"flow_id": {"boot-ff"}}, "", ""},
		{"not an id", both, map[string][]string{"flow_id": {"ff"}}, "flow_id", "boot-1"},
		{"empty text", both, map[string][]string{"command": {""}}, "command", "empty"},
		{"no such column", both, map[string][]string{"colour": {"red"}}, "colour", "flow or drop"},
		{"column of another type", []*event.Type{dropType}, map[string][]string{"port": {"1"}}, "port", "not a column of drop"},
		{"time", both, map[string][]string{"time": {"now"}}, "time", "since and until"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			filters, err := ParseFilters(test.types, test.values)
			if test.param != "" {
				wantParam(t, err, test.param)
				if !strings.Contains(err.Error(), test.reason) {
					t.Errorf("error %q does not say %q", err, test.reason)
				}
				return
			}
			if err != nil || len(filters) != len(test.values) {
				t.Errorf("got %v, %v", filters, err)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	b := flows(
		flow{time: 10, state: "open", command: "curl", pid: 1, address: "10.1.2.3", port: 80, id: 1},
		flow{time: 20, state: "closed", command: "curl", pid: 2, address: "192.168.0.1", port: 443, id: 2},
		flow{time: 30, state: "open", command: "ssh", pid: 1, address: "fe80::1", port: 22, id: 3},
		flow{time: 40},
		flow{time: 15, state: "failed", command: "ssh", pid: 3, address: "10.9.9.9"},
	)
	tests := []struct {
		name    string
		window  Window
		filters Filters
		want    []int32
	}{
		{"everything", Window{}, nil, []int32{0, 1, 2, 3, 4}},
		{"window", Window{Since: time.Unix(0, 15), Until: time.Unix(0, 30)}, nil, []int32{1, 4}},
		{"empty window", Window{Since: time.Unix(0, 15), Until: time.Unix(0, 15)}, nil, nil},
		{"number", Window{}, Filters{{Column: "pid", Values: []string{"1"}}}, []int32{0, 2}},
		{"0 is not absent", Window{}, Filters{{Column: "pid", Values: []string{"0"}}}, nil},
		{"or", Window{}, Filters{{Column: "pid", Values: []string{"2", "3"}}}, []int32{1, 4}},
		{"and", Window{}, Filters{{Column: "pid", Values: []string{"1"}}, {Column: "command", Values: []string{"curl"}}}, []int32{0}},
		{"text", Window{}, Filters{{Column: "command", Values: []string{"ssh", "nc"}}}, []int32{2, 4}},
		{"network", Window{}, Filters{{Column: "address", Values: []string{"10.0.0.0/8"}}}, []int32{0, 4}},
		{"network with host bits", Window{}, Filters{{Column: "address", Values: []string{"10.1.99.99/16"}}}, []int32{0}},
		{"v4-mapped", Window{}, Filters{{Column: "address", Values: []string{"::ffff:10.1.2.3", "::ffff:192.168.0.0/112"}}}, []int32{0, 1}},
		{"all of v6", Window{}, Filters{{Column: "address", Values: []string{"::/0"}}}, []int32{2}},
		{"all of v4", Window{}, Filters{{Column: "address", Values: []string{"0.0.0.0/0"}}}, []int32{0, 1, 4}},
		{"id", Window{}, Filters{{Column: "flow_id", Values: []string{"boot-2", "boot-3", "other-1"}}}, []int32{1, 2}},
		{"no such column", Window{}, Filters{{Column: "reason", Values: []string{"x"}}}, nil},
		{"no possible value", Window{}, Filters{{Column: "protocol", Values: []string{"icmp"}}}, nil},
		{"window and filter", Window{Until: time.Unix(0, 30)}, Filters{{Column: "state", Values: []string{"open"}}}, []int32{0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := test.filters.Compile(flowType)
			got := m.Select(b, test.window, []int32{77})
			if got[0] != 77 || !slices.Equal(got[1:], test.want) {
				t.Errorf("got %v, want 77 and %v", got, test.want)
			}
			if m.Nothing() && len(test.want) > 0 {
				t.Error("says that nothing matches")
			}
		})
	}
}

func TestCompileTellsWhatItReads(t *testing.T) {
	m := Filters{{Column: "pid", Values: []string{"1"}}, {Column: "address", Values: []string{"::1"}}}.Compile(flowType)
	if want := []int{event.PID, flowType.MustColumn("address")}; !slices.Equal(m.Columns(), want) {
		t.Errorf("reads columns %v, want %v", m.Columns(), want)
	}
	if !(Filters{{Column: "port", Values: []string{"1"}}}).Compile(dropType).Nothing() {
		t.Error("a type without the column can match")
	}
}
