package format_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/store/block"
)

var packetType = event.MustType(event.Type{
	Name: "packet", Collection: "packets", Breakdown: "protocol", Derived: []event.Derived{event.CommunityID()},
	Columns: []event.Column{
		{Name: "protocol", Kind: event.KindString, Description: "."},
		{Name: "source_ip", Kind: event.KindIP, Description: "."},
		{Name: "source_port", Kind: event.KindInt, Description: "."},
		{Name: "destination_ip", Kind: event.KindIP, Description: "."},
		{Name: "destination_port", Kind: event.KindInt, Description: "."},
	},
})

// packets are n events, every third of which has no id.
func packets(from, n int) *event.Batch {
	b := event.NewBatch(packetType, n)
	column := packetType.MustColumn
	for i := from; i < from+n; i++ {
		b.Append(int64(i))
		b.SetString(column("protocol"), []string{"tcp", "udp", "icmp"}[i%3])
		b.SetIP(column("source_ip"), netip.AddrFrom4([4]byte{10, 0, byte(i / 7 >> 8), byte(i / 7)}))
		b.SetIP(column("destination_ip"), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		if i%3 < 2 {
			b.SetInt(column("source_port"), int64(i%50_000))
			b.SetInt(column("destination_port"), 443)
		}
	}
	return b
}

// communityIDs returns the id of each event, by its time, as it is in JSON.
func communityIDs(t *testing.T, lines []string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, line := range lines {
		var e struct {
			Time        string
			CommunityID string `json:"community_id"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		ids[e.Time] = e.CommunityID
	}
	return ids
}

// A derived field is in every format, and is passed over when a file is read:
// it follows from the others.
func TestDerived(t *testing.T) {
	const n = 5000
	withOther := []*event.Type{packetType, dropType}
	b := packets(0, n)
	want := communityIDs(t, rows(b))
	for name, lines := range map[string]func() []string{
		format.NDJSON: func() []string { return written(t, format.NDJSON, withOther, b) },
		format.CSV: func() []string {
			records, err := csv.NewReader(strings.NewReader(strings.Join(written(t, format.CSV, withOther, b), "\n"))).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			at := slices.Index(records[0], "community_id")
			var lines []string
			for _, record := range records[1:] {
				lines = append(lines, fmt.Sprintf(`{"time":%q,"community_id":%q}`, record[0], record[at]))
			}
			return lines
		},
	} {
		if got := communityIDs(t, lines()); len(got) != n || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s has %d ids, want %d, or others", name, len(got), n)
		}
	}

	var file bytes.Buffer
	w, err := format.NewParquetWriter(&file, withOther)
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := block.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := encoder.Append(nil, packets(1000, n-1000))
	if err != nil {
		t.Fatal(err)
	}
	for _, add := range []func() error{
		func() error { return w.Batch(packets(0, 1000)) }, // becomes a block
		func() error { return w.Block(packetType, whole) },
		func() error { return w.Batch(random(dropType, 100)) },
		w.Close,
	} {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	type row struct {
		Time        int64   `parquet:"time"`
		Type        string  `parquet:"type"`
		CommunityID *string `parquet:"community_id,optional"`
	}
	all, err := parquet.Read[row](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != n+100 {
		t.Fatalf("%d rows, want %d", len(all), n+100)
	}
	inOrder := rows(b)
	for _, r := range all {
		id := ""
		if r.CommunityID != nil {
			id = *r.CommunityID
		}
		switch {
		case r.Type == "drop" && id != "":
			t.Errorf("a drop has the id %s", id)
		case r.Type == "packet" && !strings.Contains(inOrder[r.Time], id):
			t.Errorf("event %d has the id %q in the file: %s", r.Time, id, inOrder[r.Time])
		case r.Type == "packet" && r.Time%3 < 2 && id == "":
			t.Errorf("event %d has no id", r.Time)
		}
	}
	for name, data := range map[string][]byte{"ndjson": []byte(strings.Join(inOrder, "\n")), "parquet": file.Bytes()} {
		got, err := read(data, withOther, noneBad)
		got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, `"type":"drop"`) })
		if err != nil || !slices.Equal(sorted(got), sorted(inOrder)) {
			t.Errorf("%s: read again there are %d events, or others; %v", name, len(got), err)
		}
	}
}

// Whoever asks for the derived field alone does not get what it is made of.
func TestDerivedAlone(t *testing.T) {
	b := packets(0, 300)
	types := []*event.Type{packetType}
	want := communityIDs(t, rows(b))
	if got := communityIDs(t, written(t, format.NDJSON, types, b, "time", "community_id")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("NDJSON has %v, want %v", got, want)
	}
	if lines := written(t, format.CSV, types, b, "community_id", "type"); lines[0] != "community_id,type" || lines[3] != ",packet" || len(lines[1]) != len("1:wCb3OG7yAFWelaUydu0D+125CLM=,packet") {
		t.Errorf("CSV begins %q", lines[:4])
	}
	file := strings.Join(written(t, format.Parquet, types, b, "community_id"), "\n")
	f, err := parquet.OpenFile(strings.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if columns := fmt.Sprint(f.Schema().Columns()); f.NumRows() != 300 || columns != "[[time] [type] [community_id]]" {
		t.Errorf("Parquet has %d rows of %s", f.NumRows(), columns)
	}
}

// written returns the lines of a file.
func written(t *testing.T, name string, types []*event.Type, b *event.Batch, fields ...string) []string {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewWriter(&out, name, types, fields...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Len() {
		if err := w.Write(event.Row{Batch: b, Index: i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}
