package block_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// dropType has columns that connections lack, and lacks some of theirs.
var dropType = event.MustType(event.Type{
	Name: "drop", Collection: "drops", Summary: "Drops.", Breakdown: "reason",
	Columns: []event.Column{
		{Name: "source_ip", Kind: event.KindIP, Description: "."},
		{Name: "reason", Kind: event.KindString, Description: "."},
		{Name: "length", Kind: event.KindInt, Description: "."},
	},
})

var allColumns = slices.Concat(connectionType.Columns, dropType.Columns[len(event.Common())+1:]) // of both types

func drops(n int) *event.Batch {
	r := rand.New(rand.NewPCG(7, 7))
	b := event.NewBatch(dropType, n)
	for i := range n {
		b.Append(1_795_000_000_000_000_000 + int64(i))
		b.SetString(dropType.MustColumn("reason"), "NO_SOCKET")
		b.SetIP(dropType.MustColumn("source_ip"), address(r.Uint64N(100)))
		b.SetInt(dropType.MustColumn("length"), r.Int64())
	}
	return b
}

func writeFile(t testing.TB, blocks ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := block.NewWriter(&out, allColumns)
	for i := 0; err == nil && i < len(blocks); i++ {
		err = w.Append(blocks[i])
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// An independent reader sees the events of all blocks, whatever their types and
// however their columns are encoded and compressed.
func TestWriter(t *testing.T) {
	one := event.NewBatch(connectionType, 1)
	one.Append(1)
	batches := []*event.Batch{newHost(4).batch(20_000), one, drops(700), newHost(5).batch(300), event.Sort(random(rand.New(rand.NewPCG(1, 2)), 5000))}
	var blocks [][]byte
	var want []string
	for _, b := range batches {
		blocks = append(blocks, encode(t, b))
		want = append(want, texts(b)...)
	}
	data := writeFile(t, blocks...)
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	sameTexts(t, "rows", rowsOf(t, f), want)
	declared := slices.DeleteFunc(readExported(t, data), func(text string) bool { return !strings.Contains(text, `"type":"connection"`) })
	sameTexts(t, "declared rows", declared, slices.DeleteFunc(want, func(text string) bool { return !strings.Contains(text, `"type":"connection"`) }))

	for i, group := range f.Metadata().RowGroups {
		size, offset := int64(0), group.Columns[0].MetaData.DataPageOffset
		for _, c := range group.Columns {
			size += c.MetaData.TotalCompressedSize
		}
		times := batches[i].Columns[event.Time].Ints
		if size != group.TotalCompressedSize || offset != group.FileOffset || group.NumRows != int64(len(times)) || int(group.Ordinal) != i {
			t.Errorf("row group %d: %d bytes, should be %d; begins at %d, should be %d; %d rows", i, group.TotalCompressedSize, size, group.FileOffset, offset, group.NumRows)
		}
		bounds := func(column int) (string, string) {
			low, high, _ := f.RowGroups()[i].ColumnChunks()[column].(*parquet.FileColumnChunk).Bounds()
			return low.String(), high.String()
		}
		if low, high := bounds(1); low != batches[i].Type.Name || high != low {
			t.Errorf("row group %d: types from %s to %s", i, low, high)
		}
		if low, high := bounds(0); low != parquet.Int64Value(times[0]).String() || high != parquet.Int64Value(times[len(times)-1]).String() {
			t.Errorf("row group %d: times from %s to %s", i, low, high)
		}
	}
	if n := len(f.RowGroups()); n != len(batches) {
		t.Errorf("%d row groups", n)
	}
}

// readExported returns all rows with the columns that connections have.
func readExported(t *testing.T, data []byte) (texts []string) {
	t.Helper()
	reader := parquet.NewGenericReader[exported](bytes.NewReader(data))
	defer reader.Close()
	rows := make([]exported, reader.NumRows())
	if n, err := reader.Read(rows); n < len(rows) {
		t.Fatal(err)
	}
	for _, row := range rows {
		row.Time = row.Time.UTC()
		text, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}

// rowsOf returns all rows, as texts does.
func rowsOf(t *testing.T, f *parquet.File) (texts []string) {
	t.Helper()
	names := f.Schema().Columns()
	for _, group := range f.RowGroups() {
		in := group.Rows()
		defer in.Close()
		rows := make([]parquet.Row, 100)
		for {
			n, err := in.ReadRows(rows)
			for _, row := range rows[:n] {
				var fields []string
				for i, v := range row {
					switch name := names[i][0]; {
					case v.IsNull():
					case name == "time":
						fields = append(fields, time.Unix(0, v.Int64()).UTC().Format(`"time":"`+time.RFC3339Nano+`"`))
					case v.Kind() == parquet.Int64:
						fields = append(fields, fmt.Sprintf("%q:%d", name, v.Int64()))
					default:
						fields = append(fields, fmt.Sprintf("%q:%q", name, v.String()))
					}
				}
				texts = append(texts, "{"+strings.Join(fields, ",")+"}")
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return texts
}

func TestWriterWithoutBlocks(t *testing.T) {
	data := writeFile(t)
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil || f.NumRows() != 0 || len(f.Schema().Columns()) != len(allColumns)+1 {
		t.Errorf("%v, %v", f, err)
	}
}

// changed returns the connection type with another declaration of its columns.
func changed(change func(columns []event.Column) []event.Column) *event.Type {
	other := *connectionType
	other.Columns = change(slices.Clone(connectionType.Columns[len(event.Common()):]))
	return event.MustType(other)
}

func TestWriterRefuses(t *testing.T) {
	good := encode(t, newHost(6).batch(100))
	var out bytes.Buffer
	w, err := block.NewWriter(&out, connectionType.Columns)
	if err != nil {
		t.Fatal(err)
	}
	with := func(b *event.Batch, t2 *event.Type) []byte {
		return encode(t, &event.Batch{Type: t2, Columns: b.Columns})
	}
	renamed := changed(func(columns []event.Column) []event.Column { columns[0].Name = "id"; return columns })
	fewer := changed(func(columns []event.Column) []event.Column { return columns[:10] })
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":        {nil, "not a Parquet file"},
		"half":           {good[:len(good)/2], "not a Parquet file"},
		"another column": {with(newHost(6).batch(10), renamed), "column id is not one"},
		"another type":   {encode(t, drops(3)), "column reason is not one"},
		"other events":   {good, "further columns are of 50 events instead of 100"},
		"SNAPPY":         {foreign(t, 1, append(ownMetadata, parquet.Compression(&parquet.Snappy))...), "SNAPPY"},
	} {
		var more [][]byte
		if name == "other events" {
			more = append(more, encode(t, newHost(6).batch(50)))
		}
		if err := w.Append(test.data, more...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want one that says %q", name, err, test.want)
		}
	}
	for name, test := range map[string]struct {
		t    *event.Type
		want bool
	}{
		"the same": {connectionType, true}, "a column more": {changed(func(columns []event.Column) []event.Column {
			return append(columns, event.Column{Name: "new", Kind: event.KindInt, Description: "."})
		}), true},
		"renamed": {renamed, false}, "fewer": {fewer, false}, "another type": {dropType, false},
		"another kind": {changed(func(columns []event.Column) []event.Column {
			columns[0].Kind = event.KindInt
			return columns
		}), false},
	} {
		if got := block.IsWhole(good, test.t); got != test.want {
			t.Errorf("%s: IsWhole is %v", name, got)
		}
	}
	full := errors.New("disk is full")
	if _, err := block.NewWriter(failing{full}, connectionType.Columns); !errors.Is(err, full) {
		t.Errorf("error is %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// A damaged block, which its checksum would have shown, does no worse than
// damage the file.
func TestWriterDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	good := encode(t, newHost(6).batch(300))
	w, err := block.NewWriter(io.Discard, connectionType.Columns)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5_000 {
		data := slices.Clone(good)
		for range 1 + i%3 {
			data[r.IntN(len(data))] = byte(r.Uint32())
		}
		if i%3 == 0 { // in the footer
			data[len(data)-8-r.IntN(2000)] = byte(r.Uint32())
		}
		_ = w.Append(data)
		block.IsWhole(data, connectionType)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// BenchmarkWriter copies a block of connections into a file that has columns of
// drops too.
func BenchmarkWriter(b *testing.B) {
	data := encode(b, newHost(1).batch(60_000))
	w, err := block.NewWriter(io.Discard, allColumns)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Append(data); err != nil {
			b.Fatal(err)
		}
	}
	perEvent(b, 60_000)
}
