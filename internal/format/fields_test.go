package format_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// writeRows writes events one by one, those of two types in turn.
func writeRows(t *testing.T, name string, fields []string, batches ...*event.Batch) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewWriter(&out, name, types, fields...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range batches[0].Len() {
		for _, b := range batches {
			if i >= b.Len() {
				continue
			}
			if err := w.Write(event.Row{Batch: b, Index: i}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Events come into a Parquet file one by one as they do by the batch.
func TestParquetOfSingleEvents(t *testing.T) {
	flows, drops := random(flowType, block.MaxRows+10_000), random(dropType, 5000)
	got, err := read(writeRows(t, format.Parquet, nil, flows, drops), types, noneBad)
	if err != nil {
		t.Fatal(err)
	}
	want, err := read(write(t, format.Parquet, flows, drops), types, noneBad)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("%d events, want %d, or others", len(got), len(want))
	}
}

func TestFields(t *testing.T) {
	flows, drops := event.NewBatch(flowType, 1), event.NewBatch(dropType, 1)
	flows.Append(1)
	flows.SetInt(event.PID, 5)
	flows.SetString(event.Command, "a,b")
	drops.Append(2)
	drops.SetString(dropType.MustColumn("reason"), "NONE")
	fields := []string{"reason", "command", "type"}
	if got, want := string(writeRows(t, format.CSV, fields, flows, drops)), "reason,command,type\n,\"a,b\",flow\nNONE,,drop\n"; got != want {
		t.Errorf("CSV is %q, want %q", got, want)
	}
	if got, want := string(writeRows(t, format.NDJSON, fields, flows, drops)), `{"command":"a,b","type":"flow"}`+"\n"+`{"reason":"NONE","type":"drop"}`+"\n"; got != want {
		t.Errorf("NDJSON is %q, want %q", got, want)
	}

	// Who writes Parquet hands over events that have nothing else.
	few := event.NewBatch(flowType, 1)
	few.Append(1)
	few.SetString(event.Command, "a,b")
	file := writeRows(t, format.Parquet, fields, few, drops)
	opened, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, column := range opened.Schema().Columns() {
		names = append(names, strings.Join(column, "."))
	}
	if want := []string{"time", "type", "command", "reason"}; !slices.Equal(names, want) {
		t.Errorf("Parquet has %v, want %v", names, want)
	}
}
