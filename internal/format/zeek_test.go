package format_test

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
)

var connectionType = event.MustType(event.Type{
	Name: "connection", Collection: "connections", Breakdown: "state", Derived: []event.Derived{event.CommunityID()},
	Columns: []event.Column{
		{Name: "connection_id", Kind: event.KindID, Description: "."}, {Name: "state", Kind: event.KindString, Description: "."},
		{Name: "direction", Kind: event.KindString, Description: "."}, {Name: "protocol", Kind: event.KindString, Description: "."},
		{Name: "source_ip", Kind: event.KindIP, Description: "."}, {Name: "source_port", Kind: event.KindInt, Description: "."},
		{Name: "destination_ip", Kind: event.KindIP, Description: "."}, {Name: "destination_port", Kind: event.KindInt, Description: "."},
		{Name: "return_code", Kind: event.KindInt, Description: "."}, {Name: "error", Kind: event.KindString, Description: "."},
		{Name: "duration_ns", Kind: event.KindInt, Description: "."}, {Name: "reset_by", Kind: event.KindString, Description: "."},
		{Name: "bytes_sent", Kind: event.KindInt, Description: "."}, {Name: "bytes_received", Kind: event.KindInt, Description: "."},
		{Name: "messages_sent", Kind: event.KindInt, Description: "."}, {Name: "messages_received", Kind: event.KindInt, Description: "."},
	},
})

// connection is an event between 1.2.3.4:1122 and 5.6.7.8:3344 with some more
// fields: texts, or numbers.
func connection(fields map[string]any) event.Row {
	b := event.NewBatch(connectionType, 1)
	b.Append(1_700_000_010_500_000_000)
	column := connectionType.MustColumn
	b.SetID(column("connection_id"), "boot", 0x1f)
	b.SetIP(column("source_ip"), netip.MustParseAddr("1.2.3.4"))
	b.SetIP(column("destination_ip"), netip.MustParseAddr("5.6.7.8"))
	b.SetInt(column("source_port"), 1122)
	b.SetInt(column("destination_port"), 3344)
	for name, value := range fields {
		switch value := value.(type) {
		case string:
			b.SetString(column(name), value)
		case int:
			b.SetInt(column(name), int64(value))
		}
	}
	return event.Row{Batch: b}
}

func conn(t *testing.T, row event.Row) (header []string, fields map[string]string) {
	t.Helper()
	var out strings.Builder
	w, err := format.NewWriter(&out, format.Zeek, []*event.Type{connectionType})
	if err == nil {
		err = w.Write(row)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			header = append(header, line)
			if rest, ok := strings.CutPrefix(line, "#fields\t"); ok {
				names = strings.Split(rest, "\t")
			}
			continue
		}
		values := strings.Split(line, "\t")
		if len(values) != len(names) || fields != nil {
			t.Fatalf("%d values of %d fields: %q", len(values), len(names), line)
		}
		fields = map[string]string{}
		for i, name := range names {
			fields[name] = values[i]
		}
	}
	return header, fields
}

func TestZeek(t *testing.T) {
	header, got := conn(t, connection(map[string]any{
		"state": "closed", "direction": "inbound", "protocol": "tcp", "return_code": 0, "duration_ns": 2_250_000_999, "bytes_sent": 50, "bytes_received": 100,
	}))
	for i, begins := range []string{"#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn", "#open\t20", "#fields\tts\tuid\t", "#types\ttime\tstring\taddr\tport\t", "#close\t20"} {
		if !strings.HasPrefix(header[i], begins) {
			t.Errorf("header line %d is %q, want %q", i, header[i], begins)
		}
	}
	want := map[string]string{
		"ts": "1700000008.249999", "uid": "boot-1f", "id.orig_h": "1.2.3.4", "id.orig_p": "1122", "id.resp_h": "5.6.7.8", "id.resp_p": "3344", "proto": "tcp",
		"duration": "2.250000", "orig_bytes": "100", "resp_bytes": "50", "conn_state": "SF", "local_resp": "T", "community_id": "1:wCb3OG7yAFWelaUydu0D+125CLM=",
	}
	for name, value := range got {
		if wanted := want[name]; value != wanted && (wanted != "" || value != "-") {
			t.Errorf("%s is %q, want %q", name, value, wanted)
		}
	}
	if len(got) != 22 {
		t.Errorf("%d fields", len(got))
	}
	if _, none := conn(t, connection(map[string]any{"state": "established", "direction": "inbound", "protocol": "tcp"})); none != nil {
		t.Errorf("an established one is a line: %v", none)
	}
	w, err := format.NewWriter(io.Discard, format.Zeek, types)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(event.Row{Batch: random(dropType, 1)}); err == nil || !strings.Contains(err.Error(), "drop") {
		t.Errorf("a drop: %v", err)
	}
}

func TestZeekStates(t *testing.T) {
	for _, test := range []struct {
		want   string
		fields map[string]any
	}{
		{"SF", map[string]any{"state": "closed", "direction": "outbound", "protocol": "tcp", "return_code": 0}},
		{"RSTO", map[string]any{"state": "closed", "direction": "outbound", "protocol": "tcp", "return_code": 0, "reset_by": "local"}},
		{"RSTR", map[string]any{"state": "closed", "direction": "outbound", "protocol": "tcp", "return_code": -104, "reset_by": "remote"}},
		{"RSTR", map[string]any{"state": "closed", "direction": "inbound", "protocol": "tcp", "return_code": 0, "reset_by": "local"}},
		{"RSTO", map[string]any{"state": "closed", "direction": "inbound", "protocol": "tcp", "return_code": -104, "reset_by": "remote"}},
		{"OTH", map[string]any{"state": "closed", "direction": "outbound", "protocol": "tcp", "return_code": -110, "error": "ETIMEDOUT"}},
		{"OTH", map[string]any{"state": "closed", "direction": "outbound", "protocol": "tcp"}},
		{"OTH", map[string]any{"state": "closed", "protocol": "tcp", "return_code": 0, "reset_by": "local"}},
		{"REJ", map[string]any{"state": "failed", "direction": "outbound", "protocol": "tcp", "return_code": -111, "error": "ECONNREFUSED", "reset_by": "remote"}},
		{"OTH", map[string]any{"state": "failed", "direction": "outbound", "protocol": "tcp", "return_code": -111, "error": "ECONNREFUSED"}}, // by ICMP
		{"S0", map[string]any{"state": "failed", "direction": "outbound", "protocol": "tcp", "return_code": -110, "error": "ETIMEDOUT"}},
		{"OTH", map[string]any{"state": "failed", "direction": "outbound", "protocol": "tcp", "return_code": -101, "error": "ENETUNREACH"}},
		{"OTH", map[string]any{"state": "failed", "direction": "outbound", "protocol": "tcp"}},
		{"OTH", map[string]any{"state": "failed", "direction": "outbound", "protocol": "udp", "return_code": -101}},
		{"SF", map[string]any{"state": "closed", "direction": "outbound", "protocol": "udp", "messages_sent": 1, "messages_received": 2}},
		{"S0", map[string]any{"state": "closed", "direction": "outbound", "protocol": "udp", "messages_sent": 1, "messages_received": 0}},
		{"S0", map[string]any{"state": "closed", "direction": "inbound", "protocol": "udp", "messages_sent": 0, "messages_received": 1}},
		{"SHR", map[string]any{"state": "closed", "direction": "outbound", "protocol": "udp", "messages_sent": 0, "messages_received": 1}},
		{"OTH", map[string]any{"state": "closed", "direction": "outbound", "protocol": "udp", "messages_sent": 0, "messages_received": 0}},
		{"OTH", map[string]any{"state": "closed", "direction": "outbound", "protocol": "udp"}},
	} {
		if _, got := conn(t, connection(test.fields)); got["conn_state"] != test.want {
			t.Errorf("%s: conn_state is %s, want %s", fmt.Sprint(test.fields), got["conn_state"], test.want)
		}
	}
}
