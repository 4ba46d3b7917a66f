package query

import (
	"net/url"
	"reflect"
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
		{"numbers", both, map[string][]string{"pid": {"1", "4194304"}, "port": {"443", "-5"}}, "", ""},
		{"less than is possible", both, map[string][]string{"pid": {"-5"}}, "pid", "want 0 to 4194304)"},
		{"more than is possible", both, map[string][]string{"uid!": {"4294967296"}}, "uid", "want 0 to 4294967295)"},
		{"a range from less than is possible", both, map[string][]string{"pid>": {"-5"}}, "", ""},
		{"a name like another", both, map[string][]string{"present": {"comand"}}, "present", "did you mean command?"},
		{"not a number", both, map[string][]string{"pid": {"1", "x"}}, "pid", "whole number"},
		{"a fraction", both, map[string][]string{"pid": {"1.5"}}, "pid", "whole number"},
		{"too large a number", both, map[string][]string{"pid": {"9223372036854775808"}}, "pid", "whole number"},
		{"value of one type", both, map[string][]string{"protocol": {"icmp", "udp"}}, "", ""},
		{"value of no type", []*event.Type{flowType}, map[string][]string{"protocol": {"icmp"}}, "protocol", "tcp, udp"},
		{"value of neither type", both, map[string][]string{"protocol": {"sctp"}}, "protocol", "want tcp, udp, icmp)"},
		{"address and network", both, map[string][]string{"address": {"::1", "10.0.0.0/8"}}, "", ""},
		{"not an address", both, map[string][]string{"address": {"localhost"}}, "address", "IP address"},
		{"not a network", both, map[string][]string{"address": {"10.0.0.0/33"}}, "address", "network"},
		{"id", both, map[string][]string{"flow_id": {"boot-ff"}}, "", ""},
		{"not an id", both, map[string][]string{"flow_id": {"ff"}}, "flow_id", "boot-1"},
		{"empty text", both, map[string][]string{"command": {""}}, "command", "empty"},
		{"no such column", both, map[string][]string{"colour": {"red"}}, "colour", "flow or drop"},
		{"column of another type", []*event.Type{dropType}, map[string][]string{"port": {"1"}}, "port", "not a column of drop"},
		{"time", both, map[string][]string{"time": {"now"}}, "time", "since and until"},
		{"not", both, map[string][]string{"command!": {"curl"}}, "", ""},
		{"not, escaped", both, map[string][]string{"command!=curl": {""}}, "", ""},
		{"not what is not possible", both, map[string][]string{"protocol!": {"sctp"}}, "protocol", "not possible"},
		{"range", both, map[string][]string{"port>": {"1024"}}, "", ""},
		{"range of text", both, map[string][]string{"command>": {"a"}}, "command", "only numbers"},
		{"range of addresses", both, map[string][]string{"address<10.0.0.1": {""}}, "address", "only numbers"},
		{"range of times", both, map[string][]string{"time>now": {""}}, "time", "since and until"},
		{"range to nothing", both, map[string][]string{"port>": {""}}, "port", "empty"},
		{"range with text behind it", both, map[string][]string{"port>1": {"2"}}, "port", "1=2"},
		{"range of no column", both, map[string][]string{"colour>1": {""}}, "colour", "flow or drop"},
		{"no operator", both, map[string][]string{"port!1": {""}}, "port", "operator"},
		{"size", both, map[string][]string{"sent>": {"1.5MiB"}, "sent<2 kB": {""}}, "", ""},
		{"half a byte", both, map[string][]string{"sent": {"1.5"}}, "sent", "1MiB"},
		{"no size", both, map[string][]string{"sent>": {"much"}}, "sent", "1MiB"},
		{"negative size", both, map[string][]string{"sent>": {"-1kB"}}, "sent", "1MiB"},
		{"too large a size", both, map[string][]string{"sent>": {"9000000TiB"}}, "sent", "1MiB"},
		{"time spans", both, map[string][]string{"took_ns>1s": {""}, "took_us<": {"1ms"}, "took_ns": {"250ms"}}, "", ""},
		{"no time span", both, map[string][]string{"took_ns>": {"long"}}, "took_ns", "250ms"},
		{"time span that is too fine", both, map[string][]string{"took_us>": {"1500ns"}}, "took_us", "whole number of microseconds"},
		{"beginning", both, map[string][]string{"command": {"ng*"}, "protocol": {"t*"}}, "", ""},
		{"beginning that is not possible", both, map[string][]string{"protocol": {"x*"}}, "protocol", "not possible"},
		{"beginning of a number", both, map[string][]string{"pid": {"1*"}}, "pid", "whole number"},
		{"literal star", both, map[string][]string{"command": {`a\*`}}, "", ""},
		{"absent", both, map[string][]string{"absent": {"reason"}, "present": {"pid"}}, "", ""},
		{"absent nothing", both, map[string][]string{"absent": {"pid,"}}, "absent", "names no column"},
		{"absent what is not there", both, map[string][]string{"present": {"colour"}}, "present", "flow or drop"},
		{"absent time", both, map[string][]string{"absent": {"time"}}, "absent", "every event"},
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
			if err != nil || len(filters) != len(test.values) { // in these cases no two are of one column and operator
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
		{"not", Window{}, Filters{{Column: "command", Values: []string{"curl", "nc"}, Op: NotEqual}}, []int32{2, 3, 4}},
		{"not a number", Window{}, Filters{{Column: "pid", Values: []string{"1"}, Op: NotEqual}}, []int32{1, 3, 4}},
		{"not a network", Window{}, Filters{{Column: "address", Values: []string{"10.0.0.0/8"}, Op: NotEqual}}, []int32{1, 2, 3}},
		{"not an id", Window{}, Filters{{Column: "flow_id", Values: []string{"boot-2"}, Op: NotEqual}}, []int32{0, 2, 3, 4}},
		{"not what cannot be", Window{}, Filters{{Column: "protocol", Values: []string{"icmp"}, Op: NotEqual}}, []int32{0, 1, 2, 3, 4}},
		{"not, in a column of another type", Window{}, Filters{{Column: "reason", Values: []string{"x"}, Op: NotEqual}}, []int32{0, 1, 2, 3, 4}},
		{"range", Window{}, Filters{{Column: "port", Values: []string{"22"}, Op: Greater}, {Column: "port", Values: []string{"443"}, Op: LessOrEqual}}, []int32{0, 1}},
		{"range of several", Window{}, Filters{{Column: "port", Values: []string{"22", "80"}, Op: GreaterOrEqual}}, []int32{0, 1}},
		{"empty range", Window{}, Filters{{Column: "port", Values: []string{"80"}, Op: Less}, {Column: "port", Values: []string{"80"}, Op: Greater}}, nil},
		{"beyond all", Window{}, Filters{{Column: "pid", Values: []string{"9223372036854775807"}, Op: Greater}}, nil},
		{"below all", Window{}, Filters{{Column: "pid", Values: []string{"-9223372036854775808"}, Op: Less}}, nil},
		{"beginning", Window{}, Filters{{Column: "command", Values: []string{"s*", "x*"}}}, []int32{2, 4}},
		{"not a beginning", Window{}, Filters{{Column: "command", Values: []string{"s*"}, Op: NotEqual}}, []int32{0, 1, 3}},
		{"any beginning", Window{}, Filters{{Column: "command", Values: []string{"*"}}}, []int32{0, 1, 2, 4}},
		{"literal star", Window{}, Filters{{Column: "command", Values: []string{`s\*`}}}, nil},
		{"absent", Window{}, Filters{{Column: "command", Op: Absent}}, []int32{3}},
		{"absent number", Window{}, Filters{{Column: "port", Op: Absent}}, []int32{3, 4}},
		{"present id", Window{}, Filters{{Column: "flow_id", Op: Present}}, []int32{0, 1, 2}},
		{"present address", Window{}, Filters{{Column: "address", Op: Present}}, []int32{0, 1, 2, 4}},
		{"present in another type", Window{}, Filters{{Column: "reason", Op: Present}}, nil},
		{"absent in another type", Window{}, Filters{{Column: "reason", Op: Absent}}, []int32{0, 1, 2, 3, 4}},
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

// However a filter comes, it is the same one.
func TestExpressions(t *testing.T) {
	for _, test := range []struct {
		keys map[string]string // ways in which query strings have it
		want Filter
	}{
		{map[string]string{"command": "curl", "command=curl": ""}, Filter{Column: "command", Values: []string{"curl"}}},
		{map[string]string{"command!": "curl", "command!=": "curl", "command!=curl": ""}, Filter{Column: "command", Values: []string{"curl"}, Op: NotEqual}},
		{map[string]string{"command!": "a=b", "command!=a": "b", "command!=a=b": ""}, Filter{Column: "command", Values: []string{"a=b"}, Op: NotEqual}},
		{map[string]string{"port>": "1", "port>=": "1", "port>=1": ""}, Filter{Column: "port", Values: []string{"1"}, Op: GreaterOrEqual}},
		{map[string]string{"port<": "1", "port<=": "1", "port<=1": ""}, Filter{Column: "port", Values: []string{"1"}, Op: LessOrEqual}},
		{map[string]string{"port>1": ""}, Filter{Column: "port", Values: []string{"1"}, Op: Greater}},
		{map[string]string{"port<-1": ""}, Filter{Column: "port", Values: []string{"-1"}, Op: Less}},
	} {
		for key, value := range test.keys {
			got, err := ParseFilters([]*event.Type{flowType}, map[string][]string{key: {value}})
			if err != nil || !reflect.DeepEqual(got, Filters{test.want}) {
				t.Errorf("%q and %q: got %+v, %v, want %+v", key, value, got, err, test.want)
			}
		}
	}
}

func TestSplitFilter(t *testing.T) {
	for text, want := range map[string][2]string{
		"command=ng*":   {"command", "ng*"},
		"command!=curl": {"command!", "curl"},
		"port>=1":       {"port>", "1"},
		"port>1":        {"port>1", ""},
		"port<1":        {"port<1", ""},
		"absent=pid":    {"absent", "pid"},
		"command=a=b":   {"command", "a=b"},
	} {
		key, value, err := SplitFilter(text)
		if err != nil || key != want[0] || value != want[1] {
			t.Errorf("%s: got %q, %q, %v", text, key, value, err)
		}
		sent, err := url.ParseQuery(url.Values{key: {value}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		here, err := Params{key: {value}}.Filters([]*event.Type{flowType}, nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if there, err := Params(sent).Filters([]*event.Type{flowType}, nil); err != nil || !reflect.DeepEqual(here, there) {
			t.Errorf("%s is %+v, and sent to a server %+v, %v", text, here, there, err)
		}
	}
	for _, text := range []string{"", "command", "=", "=x", "command=", "port>", "port>=", "command!x", ">5", "\x00"} {
		if _, _, err := SplitFilter(text); err == nil {
			t.Errorf("%q is taken for a filter", text)
		}
	}
}

func TestOnlyWithOperators(t *testing.T) {
	known := append([]string{"limit"}, FilterNames([]*event.Type{flowType})...)
	for _, key := range []string{"limit", "pid", "pid>1", "pid!", "absent", "command!=x"} {
		if err := (Params{key: {""}}).Only(known); err != nil {
			t.Error(err)
		}
	}
	wantParam(t, Params{"prot>1": {""}}.Only(known), "prot")
	wantParam(t, Params{"time>": {"1"}}.Only(known), "time")
	wantParam(t, Params{">1": {""}}.Only(known), ">1")
	wantParam(t, Params{"detail!": {"1"}}.Only([]string{"detail"}), "detail!")
	_, err := Params{"limit>1": {""}}.Filters([]*event.Type{flowType}, []string{"limit"})
	wantParam(t, err, "limit")
}
