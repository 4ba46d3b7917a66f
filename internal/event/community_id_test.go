package event_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

var flowType = event.MustType(event.Type{
	Name: "flow", Collection: "flows", Summary: "Flows.", Breakdown: "protocol", Derived: []event.Derived{event.CommunityID()},
	Columns: []event.Column{
		{Name: "destination_port", Kind: event.KindInt, Description: "."},
		{Name: "source_ip", Kind: event.KindIP, Description: "."},
		{Name: "protocol", Kind: event.KindString, Description: "."},
		{Name: "source_port", Kind: event.KindInt, Description: "."},
		{Name: "destination_ip", Kind: event.KindIP, Description: "."},
	},
})

// The vectors are those of the specification's folder baseline (seed 0); the
// last ones are what has no id here.
func TestCommunityID(t *testing.T) {
	const absent = -1
	for _, test := range []struct {
		protocol, source, destination string
		sourcePort, destinationPort   int64
		want                          string
	}{
		{"tcp", "1.2.3.4", "5.6.7.8", 1122, 3344, "1:wCb3OG7yAFWelaUydu0D+125CLM="},
		{"tcp", "5.6.7.8", "1.2.3.4", 3344, 1122, "1:wCb3OG7yAFWelaUydu0D+125CLM="},
		{"udp", "1.2.3.4", "5.6.7.8", 1122, 3344, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="},
		{"udp", "5.6.7.8", "1.2.3.4", 3344, 1122, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="},
		{"sctp", "1.2.3.4", "5.6.7.8", 1122, 3344, "1:EKt4MsxuyaE6mL+hmrEkQ9csDD8="},
		{"sctp", "5.6.7.8", "1.2.3.4", 3344, 1122, "1:EKt4MsxuyaE6mL+hmrEkQ9csDD8="},
		{"sctp", "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
		{"sctp", "192.168.170.56", "192.168.170.8", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
		{"tcp", "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 63943, 25, "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
		{"tcp", "2607:f8b0:400c:c03::1a", "2001:470:e5bf:dead:4957:2174:e82c:4887", 25, 63943, "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
		{"tcp", "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"tcp", "66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"udp", "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{"udp", "8.8.8.8", "192.168.1.52", 53, 54585, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{"udp", "::ffff:8.8.8.8", "192.168.1.52", 53, 54585, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="}, // as on the wire

		{"icmp", "192.168.0.89", "192.168.0.1", absent, absent, ""},
		{"icmp", "192.168.0.89", "192.168.0.1", 8, 0, ""},
		{"", "1.2.3.4", "5.6.7.8", 1122, 3344, ""},
		{"tcp", "", "5.6.7.8", 1122, 3344, ""},
		{"tcp", "1.2.3.4", "", 1122, 3344, ""},
		{"tcp", "1.2.3.4", "5.6.7.8", absent, 3344, ""},
		{"udp", "1.2.3.4", "5.6.7.8", 1122, absent, ""},
		{"tcp", "1.2.3.4", "2001:db8::1", 1122, 3344, ""},
		{"tcp", "1.2.3.4", "5.6.7.8", 65536, 3344, ""},
	} {
		b := event.NewBatch(flowType, 1)
		b.Append(0)
		column := flowType.MustColumn
		if test.protocol != "" {
			b.SetString(column("protocol"), test.protocol)
		}
		for name, ip := range map[string]string{"source_ip": test.source, "destination_ip": test.destination} {
			if ip != "" {
				b.SetIP(column(name), netip.MustParseAddr(ip))
			}
		}
		for name, port := range map[string]int64{"source_port": test.sourcePort, "destination_port": test.destinationPort} {
			if port != absent {
				b.SetInt(column(name), port)
			}
		}
		row := event.Row{Batch: b}
		got, ok := row.AppendText(nil, len(flowType.Columns))
		if string(got) != test.want || ok != (test.want != "") {
			t.Errorf("%+v: it is %q, %t", test, got, ok)
		}
		json := string(row.AppendJSON(nil))
		if test.want == "" && strings.Contains(json, "community_id") || test.want != "" && !strings.HasSuffix(json, `,"community_id":"`+test.want+`"}`) {
			t.Errorf("%+v: JSON is %s", test, json)
		}
	}
}

func TestDerivedDeclaration(t *testing.T) {
	declare := func(change func(*event.Derived)) error {
		d := event.CommunityID()
		change(&d)
		_, err := event.NewType(event.Type{Name: "flow", Collection: "flows", Breakdown: "protocol", Columns: flowType.Columns[len(event.Common()):], Derived: []event.Derived{d}})
		return err
	}
	if err := declare(func(*event.Derived) {}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*event.Derived){
		"community_id is derived from colour": func(d *event.Derived) { d.From = []string{"protocol", "colour"} },
		`"protocol"`:                          func(d *event.Derived) { d.Name = "protocol" },
		`"Community ID"`:                      func(d *event.Derived) { d.Name = "Community ID" },
		"description":                         func(d *event.Derived) { d.Description = "" },
		"what makes its text":                 func(d *event.Derived) { d.Append = nil },
	} {
		if err := declare(change); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCommunityID(b *testing.B) {
	batch := event.NewBatch(flowType, 1)
	batch.Append(0)
	batch.SetString(flowType.MustColumn("protocol"), "tcp")
	for _, side := range []string{"source", "destination"} {
		batch.SetIP(flowType.MustColumn(side+"_ip"), netip.MustParseAddr("2001:db8::1"))
		batch.SetInt(flowType.MustColumn(side+"_port"), 443)
	}
	row := event.Row{Batch: batch}
	var text []byte
	b.ReportAllocs()
	for b.Loop() {
		text, _ = row.AppendText(text[:0], len(flowType.Columns))
	}
}
