package block_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// texts returns the events as the API does, with the replacement character for
// bytes that are not UTF-8: a block has it, and the API escapes it.
func texts(b *event.Batch) []string {
	rows := make([]string, b.Len())
	for i := range rows {
		text := []rune(string(event.Row{Batch: b, Index: i}.AppendJSON(nil)))
		rows[i] = strings.ReplaceAll(string(text), `\ufffd`, "\ufffd")
	}
	return rows
}

// sameTexts compares without printing thousands of rows.
func sameTexts(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: row %d\n is   %s\n want %s", what, i, got[i], want[i])
		}
	}
}

func columnsOf(t *event.Type) []int {
	all := make([]int, len(t.Columns))
	for i := range all {
		all[i] = i
	}
	return all
}

func open(tb testing.TB, data []byte, t *event.Type) *block.Block {
	tb.Helper()
	b, err := block.Open(data, t)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func read(tb testing.TB, data []byte, t *event.Type) *event.Batch {
	tb.Helper()
	b, err := open(tb, data, t).Read(columnsOf(t))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// extreme sets the values at the ends of what columns hold.
func extreme() *event.Batch {
	b := event.NewBatch(connectionType, 0)
	b.Append(math.MinInt64)
	b.Append(-1)
	b.SetInt(event.PID, math.MinInt64)
	b.SetString(event.Command, "")
	b.SetIP(colSourceIP, netip.MustParseAddr("::"))
	b.SetID(colID, "b", 0)
	b.SetInt(colDuration, math.MaxInt64)
	b.Append(0)
	b.SetInt(event.PID, 0)
	b.SetString(event.Command, strings.Repeat("long ", 10_000))
	b.SetIP(colSourceIP, netip.MustParseAddr("255.255.255.255"))
	b.SetID(colID, "with-a-dash", -1)
	b.SetInt(colDuration, math.MinInt64)
	b.Append(0)
	b.SetInt(event.PID, math.MaxInt64)
	b.SetString(event.Command, "a\"<\x80\xff\n\u2028\U0001f600")
	b.SetIP(colSourceIP, netip.MustParseAddr("0.0.0.0"))
	b.SetID(colID, "b", math.MinInt64)
	b.Append(math.MaxInt64)
	b.SetIP(colSourceIP, netip.MustParseAddr("fe80::1"))
	b.SetString(event.ContainerID, "\xc3")
	return b
}

// random makes events in which each column is present as often as its own
// chance has it, with few or many different values.
func random(r *rand.Rand, rows int) *event.Batch {
	b := event.NewBatch(connectionType, rows)
	chance, distinct := make([]float64, len(connectionType.Columns)), make([]int64, len(connectionType.Columns))
	for i := range chance {
		chance[i] = []float64{0, 0.001, 0.5, 0.999, 1}[r.IntN(5)]
		distinct[i] = []int64{1, 3, 300, 1 << 40}[r.IntN(4)]
	}
	now := int64(1.8e18)
	for range rows {
		now += r.Int64N(3)
		b.Append(now)
		for i, c := range connectionType.Columns {
			if r.Float64() >= chance[i] {
				continue
			}
			switch n := r.Int64N(distinct[i]); c.Kind {
			case event.KindInt:
				b.SetInt(i, n-distinct[i]/2)
			case event.KindString:
				b.SetString(i, fmt.Sprintf("%x", n))
			case event.KindIP:
				b.SetIP(i, address(uint64(n)))
			case event.KindID:
				b.SetID(i, fmt.Sprintf("boot%d", n%3), n)
			}
		}
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	batches := map[string]*event.Batch{"extreme": extreme(), "host": newHost(2).batch(20_000)}
	one := event.NewBatch(connectionType, 1)
	one.Append(5)
	batches["one row, nothing but time"] = one
	for _, rows := range []int{1, 2, 7, 8, 9, 128, 129, 4096, 4097, 4098, 9000} {
		for i := range 3 {
			batches[fmt.Sprintf("%d random rows, %d", rows, i)] = random(r, rows)
		}
	}
	batches["as many rows as there can be"] = random(r, block.MaxRows)
	e, err := block.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range batches {
		t.Run(name, func(t *testing.T) {
			data, err := e.Append([]byte("before"), b)
			if err != nil {
				t.Fatal(err)
			}
			data, found := slices.Clone(data[6:]), string(data[:6])
			if found != "before" {
				t.Fatalf("what was before the block is now %q", found)
			}
			opened := open(t, data, connectionType)
			if opened.Rows() != b.Len() {
				t.Errorf("%d rows, want %d", opened.Rows(), b.Len())
			}
			got, err := opened.Read(columnsOf(connectionType))
			if err != nil {
				t.Fatal(err)
			}
			want := texts(b)
			sameTexts(t, "Read", texts(got), want)

			rows := []int32{}
			for row := range b.Len() {
				if r.IntN(b.Len()) < 90 {
					rows = append(rows, int32(row))
				}
			}
			some, err := opened.ReadRows(columnsOf(connectionType), rows)
			if err != nil {
				t.Fatal(err)
			}
			wantSome := make([]string, len(rows))
			for i, row := range rows {
				wantSome[i] = want[row]
			}
			sameTexts(t, "ReadRows", texts(some), wantSome)
			clear(data) // what was read must not depend on it
			sameTexts(t, "Read, after the data is gone", texts(got), want)
			sameTexts(t, "ReadRows, after the data is gone", texts(some), wantSome)
		})
	}
}

func TestDictionariesHoldWhatIsUsed(t *testing.T) {
	b := event.NewBatch(connectionType, 0)
	for i, command := range []string{"a", "b", "c", "c", "b", "c"} {
		b.Append(int64(i))
		b.SetString(event.Command, command)
	}
	b.SetString(event.Command, "unused")
	b.SetString(event.Command, "a")
	data := encode(t, b)
	if dict := read(t, data, connectionType).Columns[event.Command].Dict; len(dict) != 3 {
		t.Errorf("Read: dictionary is %q", dict)
	}
	some, err := open(t, data, connectionType).ReadRows([]int{event.Command}, []int32{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	if dict := some.Columns[event.Command].Dict; !reflect.DeepEqual(dict, []string{"b", "c"}) {
		t.Errorf("ReadRows: dictionary is %q", dict)
	}
}

// Read leaves out what is not asked for.
func TestReadColumns(t *testing.T) {
	got, err := open(t, encode(t, newHost(3).batch(5000)), connectionType).Read([]int{event.PID})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Columns[event.PID].Ints) != 5000 || got.Columns[event.Time].Ints != nil || got.Columns[event.Command].Codes != nil {
		t.Errorf("Read did not return just the pid")
	}
}

// Blocks may be read at the same time, though each is one goroutine's.
func TestConcurrentReaders(t *testing.T) {
	b := newHost(8).batch(6000)
	data, want := encode(t, b), texts(b)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for row := int32(0); row < 6000; row += 500 {
				opened, err := block.Open(data, connectionType)
				if err != nil {
					t.Error(err)
					return
				}
				some, err := opened.ReadRows(columnsOf(connectionType), []int32{row, row + 1})
				if err != nil || !slices.Equal(texts(some), want[row:row+2]) {
					t.Errorf("rows at %d are not the same: %v", row, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestReadRowsRefuses(t *testing.T) {
	opened := open(t, encode(t, newHost(3).batch(100)), connectionType)
	for _, rows := range [][]int32{{-1}, {100}, {5, 4}, {5, 5}} {
		if _, err := opened.ReadRows(nil, rows); err == nil {
			t.Errorf("%v: no error", rows)
		}
	}
	b, err := opened.ReadRows(columnsOf(connectionType), nil)
	if err != nil || b.Len() != 0 {
		t.Errorf("no rows: %d rows, %v", b.Len(), err)
	}
}

// A block that was written when the type had other columns.
func TestOtherColumns(t *testing.T) {
	older := event.MustType(event.Type{
		Name: "connection", Collection: "connections", Summary: "Connections.", Breakdown: "state",
		Columns: []event.Column{
			{Name: "state", Kind: event.KindString, Description: "."},
			{Name: "gone", Kind: event.KindInt, Description: "."},
			{Name: "duration_ns", Kind: event.KindString, Description: "."},
			{Name: "source_port", Kind: event.KindInt, Description: "."},
		},
	})
	b := event.NewBatch(older, 0)
	b.Append(1)
	b.SetInt(event.PID, 7)
	b.SetString(older.MustColumn("state"), "closed")
	b.SetInt(older.MustColumn("gone"), 8)
	b.SetString(older.MustColumn("duration_ns"), "long")
	b.SetInt(older.MustColumn("source_port"), 443)
	data := encode(t, b)
	sameTexts(t, "Read", texts(read(t, data, connectionType)),
		[]string{`{"time":"1970-01-01T00:00:00.000000001Z","type":"connection","pid":7,"state":"closed","source_port":443}`})
	some, err := open(t, data, connectionType).ReadRows(columnsOf(connectionType), []int32{0})
	if err != nil {
		t.Fatal(err)
	}
	sameTexts(t, "ReadRows", texts(some), texts(read(t, data, connectionType)))
}

func TestAppendRefuses(t *testing.T) {
	e, err := block.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	unsorted := event.NewBatch(connectionType, 2)
	unsorted.Append(2)
	unsorted.Append(1)
	many := event.NewBatch(connectionType, block.MaxRows+1)
	for range block.MaxRows + 1 {
		many.Append(0)
	}
	long := event.NewBatch(connectionType, 1)
	long.Append(1)
	long.SetString(event.Command, strings.Repeat("x", 33<<20))
	address := event.NewBatch(connectionType, 1)
	address.Append(1)
	address.Columns[colSourceIP] = event.Vector{Codes: []uint32{1}, Dict: []string{"abc"}}
	for want, b := range map[string]*event.Batch{
		"no events":        event.NewBatch(connectionType, 0),
		"not sorted":       unsorted,
		"too much":         many,
		"command":          long,
		"address of 3 byt": address,
	} {
		data, err := e.Append([]byte("before"), b)
		if err == nil || !strings.Contains(err.Error(), want) || string(data) != "before" {
			t.Errorf("want an error that says %q, got %v and %d bytes", want, err, len(data))
		}
	}
}
