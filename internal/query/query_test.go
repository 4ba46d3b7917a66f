package query

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

// Two types of these tests: they share columns, "protocol" with other values.
var (
	flowType = event.MustType(event.Type{
		Name: "flow", Collection: "flows", Summary: "Flows.",
		Breakdown: "state", Top: []string{"command", "address"},
		Columns: []event.Column{
			{Name: "state", Kind: event.KindString, Description: "State.", Values: []string{"open", "closed", "failed"}},
			{Name: "protocol", Kind: event.KindString, Description: "Protocol.", Values: []string{"tcp", "udp"}, Distinct: true},
			{Name: "address", Kind: event.KindIP, Description: "Address.", Distinct: true},
			{Name: "port", Kind: event.KindInt, Description: "Port."},
			{Name: "sent", Kind: event.KindInt, Unit: "bytes", Description: "Bytes sent.", Sum: true},
			{Name: "received", Kind: event.KindInt, Description: "Bytes received.", Sum: true},
			{Name: "took_ns", Kind: event.KindInt, Unit: "ns", Description: "How long."},
			{Name: "took_us", Kind: event.KindInt, Unit: "us", Description: "How long."},
			{Name: "flow_id", Kind: event.KindID, Description: "Id.", Example: "boot-1"},
		},
	})
	dropType = event.MustType(event.Type{
		Name: "drop", Collection: "drops", Summary: "Drops.", Breakdown: "reason",
		Columns: []event.Column{
			{Name: "reason", Kind: event.KindString, Description: "Reason."},
			{Name: "protocol", Kind: event.KindString, Description: "Protocol.", Values: []string{"tcp", "icmp"}},
			{Name: "address", Kind: event.KindIP, Description: "Address."},
		},
	})
)

// flow is one event as tests write it down; zero values are absent.
type flow struct {
	time     int64
	state    string
	command  string
	pid      int64
	address  string
	port     int64
	sent     int64
	received int64
	id       int64
}

func flows(list ...flow) *event.Batch {
	b := event.NewBatch(flowType, len(list))
	setString := func(column int, s string) {
		if s != "" {
			b.SetString(column, s)
		}
	}
	setInt := func(name string, n int64) {
		if n != 0 {
			b.SetInt(flowType.MustColumn(name), n)
		}
	}
	for _, f := range list {
		b.Append(f.time)
		setString(event.Command, f.command)
		setString(flowType.MustColumn("state"), f.state)
		setInt("pid", f.pid)
		setInt("port", f.port)
		setInt("sent", f.sent)
		setInt("received", f.received)
		if f.address != "" {
			b.SetIP(flowType.MustColumn("address"), netip.MustParseAddr(f.address))
		}
		if f.id != 0 {
			b.SetID(flowType.MustColumn("flow_id"), "boot", f.id)
		}
	}
	return b
}

// wantParam checks that an error is a ParamError about a parameter.
func wantParam(t *testing.T, err error, name string) {
	t.Helper()
	var param *ParamError
	if !errors.As(err, &param) {
		t.Fatalf("error is %v, want a ParamError", err)
	}
	if param.Name != name || param.Reason == "" {
		t.Errorf("error is %q about %q, want one about %q", err, param.Name, name)
	}
}
