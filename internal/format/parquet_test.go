package format_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// Files that were exported by an earlier program can be imported: it wrote them
// with parquet-go's Writer (this one with that of commit 24a904d), events of
// all types in one row group.
func TestOlderParquet(t *testing.T) {
	read := func(name string) []string {
		data, err := os.ReadFile("testdata/parquet-go-writer." + name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(data, types, noneBad)
		if err != nil {
			t.Fatal(err)
		}
		return sorted(got)
	}
	if got, want := read("parquet"), read("ndjson"); len(want) != 300 || !slices.Equal(got, want) {
		t.Errorf("%d events, want %d, or others", len(got), len(want))
	}
}

// foreignRow is an event as another program may write it.
type foreignRow struct {
	Time    time.Time `parquet:"time,timestamp(microsecond)"`
	PID     *int32    `parquet:"pid,optional"`
	Type    string    `parquet:"type,dict"`
	State   *string   `parquet:"state,optional,dict"`
	FlowID  *string   `parquet:"flow_id,optional"`
	Address *string   `parquet:"address,optional"`
	Sent    int64     `parquet:"sent"`
	Command string    `parquet:"command"`
}

// foreignRows are flows, and every seventh is a drop, with the lines of NDJSON
// that say the same.
func foreignRows(n int) (all []foreignRow, lines []string) {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	for i := range n {
		row := foreignRow{Time: at.Add(time.Duration(i) * time.Microsecond), Type: "flow", Sent: int64(i), Command: fmt.Sprint("worker-", i%5000)}
		pid, state, id, address := int32(i%100), []string{"open", "closed"}[i%2], fmt.Sprintf("boot-%x", i), []string{"10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"}[i%3]
		text := fmt.Sprintf(`{"time":%q,"type":%q,"sent":%d,"command":%q`, row.Time.Format(time.RFC3339Nano), row.Type, row.Sent, row.Command)
		if i%5 != 0 {
			row.PID = &pid
			text += fmt.Sprintf(`,"pid":%d`, pid)
		}
		if i%11 != 0 {
			row.State, row.FlowID, row.Address = &state, &id, &address
			text += fmt.Sprintf(`,"state":%q,"flow_id":%q,"address":%q`, state, id, address)
		}
		all, lines = append(all, row), append(lines, text+"}")
	}
	return all, lines
}

// A file of another program is read however it is encoded.
func TestForeignParquet(t *testing.T) {
	all, lines := foreignRows(40_000)
	want, err := read([]byte(strings.Join(lines, "\n")), types, noneBad)
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]parquet.WriterOption{
		"as parquet-go does":                nil,
		"pages of version 1":                {parquet.DataPageVersion(1), parquet.Compression(&parquet.Snappy)},
		"small pages":                       {parquet.PageBufferSize(1000)},
		"plain":                             {parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.Plain), parquet.Compression(&parquet.Gzip)},
		"by differences":                    {parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.DeltaByteArray), parquet.DefaultEncodingFor(parquet.Int64, &parquet.DeltaBinaryPacked)},
		"by lengths":                        {parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.DeltaLengthByteArray), parquet.MaxRowsPerRowGroup(777)},
		"dictionaries":                      {parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.RLEDictionary), parquet.DefaultEncodingFor(parquet.Int64, &parquet.RLEDictionary), parquet.DefaultEncodingFor(parquet.Int32, &parquet.RLEDictionary), parquet.PageBufferSize(5000)},
		"a dictionary that grows too large": {parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.RLEDictionary), parquet.DictionaryMaxBytes(20_000), parquet.PageBufferSize(5000)},
	} {
		var out bytes.Buffer
		w := parquet.NewGenericWriter[foreignRow](&out, options...)
		if _, err := w.Write(all); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := read(out.Bytes(), types, noneBad)
		if err != nil || !slices.Equal(sorted(got), sorted(want)) {
			t.Errorf("%s: %d events, want %d, or others; %v", name, len(got), len(want), err)
		}
	}
}

// cell is a value of a file that has one row.
type cell struct {
	name  string
	node  parquet.Node
	value parquet.Value
}

func text(name, value string) cell {
	return cell{name, parquet.Optional(parquet.String()), parquet.ValueOf(value).Level(0, 1, 0)}
}

func number(name string, value int64) cell {
	return cell{name, parquet.Optional(parquet.Int(64)), parquet.ValueOf(value).Level(0, 1, 0)}
}

func parquetOf(t *testing.T, cells ...cell) []byte {
	t.Helper()
	group := parquet.Group{}
	slices.SortFunc(cells, func(a, b cell) int { return strings.Compare(a.name, b.name) })
	var row parquet.Row
	for i, c := range cells {
		group[c.name] = c.node
		row = append(row, c.value.Level(c.value.RepetitionLevel(), c.value.DefinitionLevel(), i))
	}
	var out bytes.Buffer
	w := parquet.NewGenericWriter[any](&out, parquet.NewSchema("x", group))
	if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBadRows(t *testing.T) {
	at, flow := number("time", 1), text("type", "flow")
	fraction := func(name string, value float64) cell {
		return cell{name, parquet.Optional(parquet.Leaf(parquet.DoubleType)), parquet.ValueOf(value).Level(0, 1, 0)}
	}
	fixed := cell{"command", parquet.Optional(parquet.Leaf(parquet.FixedLenByteArrayType(4))), parquet.FixedLenByteArrayValue([]byte("curl")).Level(0, 1, 0)}
	micro := func(n int64) cell {
		return cell{"time", parquet.Timestamp(parquet.Microsecond), parquet.ValueOf(n)}
	}
	for _, test := range []struct {
		cells []cell
		want  string // "" where there is nothing to say against the row
	}{
		{[]cell{at, flow, number("pid", 5), text("command", "x")}, ""},
		{[]cell{text("time", "2026-11-21T03:12:00Z"), flow, fraction("command", 1.5)}, ""},
		{[]cell{micro(-1), flow, fixed}, ""},
		{[]cell{at}, `type: "" is not a known type`},
		{[]cell{at, text("type", "flaw")}, `type: "flaw" is not a known type`},
		{[]cell{at, number("type", 1)}, `type: "" is not a known type`},
		{[]cell{flow}, "time: is missing"},
		{[]cell{flow, text("time", "yesterday")}, `time: "yesterday" is not a time`},
		{[]cell{flow, fraction("time", 1)}, `time: "1" is not a time`},
		{[]cell{flow, micro(1 << 62)}, "time: is out of range"},
		{[]cell{at, flow, text("colour", "red")}, "colour: is not a field of type flow"},
		{[]cell{at, flow, text("pid", "12")}, "pid: is not a number"},
		{[]cell{at, flow, fraction("pid", 12)}, "pid: is not a number"},
		{[]cell{at, flow, number("command", 12)}, "command: is not text"},
		{[]cell{at, flow, text("address", "10.0.0.0/8")}, `address: "10.0.0.0/8" is not an IP address`},
		{[]cell{at, flow, text("flow_id", "12")}, `flow_id: "12" is not an id`},
		{[]cell{at, flow, text("state", "ajar")}, `state: "ajar" is not one of open, closed`},
	} {
		var bad []string
		got, err := read(parquetOf(t, test.cells...), types, func(b *format.BadRecord) error {
			bad = append(bad, b.Error())
			return nil
		})
		said := strings.Join(bad, "\n")
		if err != nil || (len(got) == 1) != (test.want == "") || !strings.Contains(said, test.want) || test.want != "" && !strings.HasPrefix(said, "record 1: ") {
			t.Errorf("%v: %d events, %v, %q; want %q", test.cells, len(got), err, said, test.want)
		}
	}
	list := cell{"pids", parquet.Repeated(parquet.Int(64)), parquet.ValueOf(int64(1)).Level(0, 1, 0)}
	if _, err := read(parquetOf(t, at, flow, list), types, noneBad); err == nil || !strings.Contains(err.Error(), "column pids is a list") {
		t.Errorf("error is %v", err)
	}
}

// Bad rows are told of by number, in their order, and the others are taken.
func TestBadRowsAmongOthers(t *testing.T) {
	all, _ := foreignRows(20_000)
	wrong := "nowhere"
	for _, i := range []int{3, 16_383, 16_384, 19_999} {
		all[i].Address = &wrong
	}
	all[3].Type, all[5].Type = "flaw", "drop" // which has no state
	var out bytes.Buffer
	w := parquet.NewGenericWriter[foreignRow](&out, parquet.MaxRowsPerRowGroup(18_000))
	if _, err := w.Write(all); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var numbers []int64
	got, err := read(out.Bytes(), types, func(b *format.BadRecord) error {
		numbers = append(numbers, b.Number)
		return nil
	})
	if err != nil || len(got) != 20_000-5 || !slices.Equal(numbers, []int64{4, 6, 16_384, 16_385, 20_000}) {
		t.Errorf("%d events, bad %v, %v", len(got), numbers, err)
	}
	stop := errors.New("stop")
	if _, err := read(out.Bytes(), types, func(*format.BadRecord) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of bad is %v", err)
	}
}

// A row group has events of one type, those of a type are in the order in which
// they are given, and a block that passes comes after what was given before it.
func TestParquetWriter(t *testing.T) {
	flow, drop := event.Sort(random(flowType, 50_000)), event.Sort(random(dropType, 300))
	encoder, err := block.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	passing, err := encoder.Append(nil, flow)
	if err != nil {
		t.Fatal(err)
	}
	last := event.Sort(random(flowType, 20_000))
	want := slices.Concat(rows(drop), rows(flow), rows(drop), rows(flow), rows(flow), rows(last)) // before the batches are taken over
	var out bytes.Buffer
	w, err := format.NewParquetWriter(&out, types)
	if err != nil {
		t.Fatal(err)
	}
	again := event.NewBatch(dropType, 0)
	again.AppendRows(drop, nil)
	more := event.NewBatch(flowType, 0)
	more.AppendRows(flow, nil)
	err = errors.Join(w.Batch(drop), w.Batch(flow), w.Block(flowType, passing), w.Batch(again), w.Batch(more), w.Batch(last), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var groups []int64
	for _, g := range f.RowGroups() {
		groups = append(groups, g.NumRows())
	}
	if !slices.Equal(groups, []int64{50_000, 50_000, 50_000, 600, 20_000}) {
		t.Errorf("row groups of %v", groups)
	}
	if got, err := read(out.Bytes(), types, noneBad); err != nil || !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("%d events, want %d, or others; %v", len(got), len(want), err)
	}
	if _, err := format.NewParquetWriter(io.Discard, []*event.Type{flowType, event.MustType(event.Type{
		Name: "other", Collection: "others", Breakdown: "sent", Columns: []event.Column{{Name: "sent", Kind: event.KindString, Description: "Sent."}},
	})}); err == nil || !strings.Contains(err.Error(), "column sent is of kind") {
		t.Errorf("error is %v", err)
	}
}

// Texts that are too long for one row group go into several.
func TestParquetWriterOfLongTexts(t *testing.T) {
	b := event.NewBatch(dropType, 0)
	for i := range int64(5) {
		b.Append(i)
		b.SetString(dropType.MustColumn("reason"), strings.Repeat(fmt.Sprint(i), 10<<20))
	}
	data := write(t, format.Parquet, b)
	var lengths []int
	take := func(batches []*event.Batch) error {
		for i := range batches[0].Len() {
			s, _ := event.Row{Batch: batches[0], Index: i}.String(dropType.MustColumn("reason"))
			lengths = append(lengths, len(s))
		}
		return nil
	}
	if err := format.NewReader(types).Parquet(bytes.NewReader(data), int64(len(data)), take, noneBad); err != nil || len(lengths) != 5 || lengths[4] != 10<<20 {
		t.Errorf("texts of %v bytes, %v", lengths, err)
	}
}
