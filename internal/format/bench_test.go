package format_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
)

// wideType has as many columns, and such, as what the monitors record.
var wideType = event.MustType(event.Type{
	Name: "wide", Collection: "wides", Breakdown: "state",
	Columns: []event.Column{
		{Name: "connection_id", Kind: event.KindID, Description: "Id."},
		{Name: "state", Kind: event.KindString, Values: []string{"established", "failed", "closed"}, Description: "State."},
		{Name: "direction", Kind: event.KindString, Values: []string{"outbound", "inbound"}, Description: "Direction."},
		{Name: "source_ip", Kind: event.KindIP, Description: "Address."},
		{Name: "source_port", Kind: event.KindInt, Description: "Port."},
		{Name: "destination_ip", Kind: event.KindIP, Description: "Address."},
		{Name: "destination_port", Kind: event.KindInt, Description: "Port."},
		{Name: "error", Kind: event.KindString, Description: "Error."},
		{Name: "duration_ns", Kind: event.KindInt, Description: "Duration."},
		{Name: "sent", Kind: event.KindInt, Description: "Bytes."},
		{Name: "received", Kind: event.KindInt, Description: "Bytes."},
	},
})

// wide returns events of a host with some services and many peers.
func wide(n int) *event.Batch {
	r := rand.New(rand.NewPCG(3, 4))
	services := []string{"nginx", "node", "postgres", "curl", "service-019", "service-020"}
	b := event.NewBatch(wideType, n)
	at := int64(1_763_251_200_000_000_000)
	set := func(name string, v int64) { b.SetInt(wideType.MustColumn(name), v) }
	text := func(name, v string) { b.SetString(wideType.MustColumn(name), v) }
	for i := range int64(n) {
		at += r.Int64N(100_000_000)
		service := r.IntN(len(services))
		b.Append(at)
		set("pid", int64(1000+service))
		text("command", services[service])
		set("uid", 1000)
		set("cgroup_id", int64(5000+service))
		text("container_id", "a76eab2adb53166ddd11d18f512226dd54cafcaa7405952ec4823cb69aaac98"+services[service][:1])
		set("netns", 4026531840)
		b.SetID(wideType.MustColumn("connection_id"), "6f1c2a90-61a4-4c8f-9d1e-0f8b1d1f7c55", i/2)
		text("direction", "outbound")
		b.SetIP(wideType.MustColumn("source_ip"), netip.AddrFrom4([4]byte{10, 0, 0, byte(service)}))
		set("source_port", 32768+r.Int64N(28000))
		b.SetIP(wideType.MustColumn("destination_ip"), netip.AddrFrom4([4]byte{81, 105, byte(r.IntN(16)), byte(r.IntN(256))}))
		set("destination_port", 443)
		if i%2 == 0 {
			text("state", "established")
			continue
		}
		text("state", "closed")
		set("duration_ns", r.Int64N(1e10))
		set("sent", r.Int64N(1e5))
		set("received", r.Int64N(1e7))
	}
	return b
}

func perSecond(b *testing.B, events int) {
	b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkWrite(b *testing.B) {
	batch := wide(65536)
	for _, name := range format.Names {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := writeTo(io.Discard, name, []*event.Type{wideType}, batch); err != nil {
					b.Fatal(err)
				}
			}
			perSecond(b, batch.Len())
		})
	}
}

func BenchmarkRead(b *testing.B) {
	batch := wide(65536)
	for _, name := range []string{format.NDJSON, format.Parquet} {
		b.Run(name, func(b *testing.B) {
			var data bytes.Buffer
			if err := writeTo(&data, name, []*event.Type{wideType}, batch); err != nil {
				b.Fatal(err)
			}
			r, events := format.NewReader([]*event.Type{wideType}), 0
			take := func(batches []*event.Batch) error {
				for _, b := range batches {
					events += b.Len()
				}
				return nil
			}
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if in := bytes.NewReader(data.Bytes()); name == format.NDJSON {
					err = r.NDJSON(in, take, noneBad)
				} else {
					err = r.Parquet(in, in.Size(), take, noneBad)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if events != b.N*batch.Len() {
				b.Errorf("%d events", events)
			}
			perSecond(b, batch.Len())
		})
	}
}
