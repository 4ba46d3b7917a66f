package block_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

var indexed = []string{"pid", "command", "source_ip", "destination_ip"}

func index(tb testing.TB, b *event.Batch, columns ...string) []byte {
	tb.Helper()
	e, err := block.NewEncoder()
	if err != nil {
		tb.Fatal(err)
	}
	gather(tb, e, event.Sort(b), columns...)
	data, err := e.AppendIndex([]byte("before"))
	if err != nil {
		tb.Fatal(err)
	}
	return data[6:]
}

// gather makes a block, column by column, so that the encoder has its index.
func gather(tb testing.TB, e *block.Encoder, b *event.Batch, columns ...string) {
	tb.Helper()
	err := e.Begin(nil, b.Type, b.Len(), columns...)
	for i := range b.Columns {
		if err == nil {
			err = e.Column(i, &b.Columns[i])
		}
	}
	if err == nil {
		_, err = e.End()
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func openIndex(tb testing.TB, data []byte) *block.Index {
	tb.Helper()
	x, err := block.OpenIndex(data)
	if err != nil {
		tb.Fatal(err)
	}
	return &x
}

// keyOf returns the key of a value as a filter would, from its text.
func keyOf(t *testing.T, row event.Row, column int) (block.Key, bool) {
	c := row.Batch.Type.Columns[column]
	text, ok := row.AppendText(nil, column)
	if !ok {
		return 0, false
	}
	switch c.Kind {
	case event.KindInt:
		n, _ := row.Int(column)
		return block.IntKey(c.Name, n), true
	case event.KindIP:
		ip, err := netip.ParseAddr(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return block.IPKey(c.Name, ip), true
	}
	return block.TextKey(c.Name, string(text)), true
}

func TestIndexHasEveryValue(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	batches := map[string]*event.Batch{"host": newHost(5).batch(60_000), "extreme": extreme()}
	for _, rows := range []int{1, 2, 3, 10, 1000, block.MaxRows} {
		batches[fmt.Sprint(rows, " random rows")] = random(r, rows)
	}
	for name, b := range batches {
		t.Run(name, func(t *testing.T) {
			x := openIndex(t, index(t, b, indexed...))
			times := b.Columns[event.Time].Ints
			if first, last := x.Times(); x.Rows() != b.Len() || first != times[0] || last != times[b.Len()-1] {
				t.Errorf("%d rows from %d to %d", x.Rows(), first, last)
			}
			// What the block returns must be found too.
			for _, b := range []*event.Batch{b, read(t, encode(t, b), connectionType)} {
				for _, name := range indexed {
					for row := range b.Len() {
						key, ok := keyOf(t, event.Row{Batch: b, Index: row}, column(name))
						if ok && !x.MayContain(name, key) {
							t.Fatalf("%s of row %d is not found", name, row)
						}
					}
				}
			}
		})
	}
}

func TestIndexHasLittleElse(t *testing.T) {
	x := openIndex(t, index(t, newHost(5).batch(20_000), indexed...))
	wrong := 0
	for i := range int64(10_000) {
		if x.MayContain("pid", block.IntKey("pid", 1_000_000+i)) {
			wrong++
		}
		if x.MayContain("command", block.TextKey("command", fmt.Sprint("none", i))) {
			wrong++
		}
	}
	if wrong > 200 { // 1 in 256 is 78
		t.Errorf("%d of 20,000 values that are not there were found", wrong)
	}
	if !x.MayContain("uid", block.IntKey("uid", -99)) || !x.MayContain("connection_id", 0) {
		t.Error("a column that is not in the index was ruled out")
	}
	if x.MayContain("pid") {
		t.Error("found none of no values")
	}
	absent := block.IntKey("pid", 1_000_001)
	present := block.TextKey("command", "worker-0")
	if !x.MayContain("command", absent, present) {
		t.Error("did not find the second of two values")
	}
}

// A column without values adds none: not those of the column before it.
func TestIndexOfAbsentColumn(t *testing.T) {
	b := event.NewBatch(connectionType, 100)
	for i := range int64(100) {
		b.Append(i)
		b.SetInt(event.PID, i%10)
		b.SetString(event.Command, "some")
	}
	with := index(t, b, "pid", "command", "uid", "source_ip")
	if x := openIndex(t, with); x.MayContain("uid", block.IntKey("uid", 7)) || !x.MayContain("pid", block.IntKey("pid", 7)) {
		t.Error("the index has a user id, or lacks a pid")
	}
	names := len("uid") + len("source_ip") + 2
	if without := index(t, b, "pid", "command"); len(with) != len(without)+names {
		t.Errorf("%d bytes, and %d without two columns that have no values", len(with), len(without))
	}
}

func TestEmptyIndex(t *testing.T) {
	b := event.NewBatch(connectionType, 1)
	b.Append(7)
	b.SetString(event.Command, "unused")
	b.Columns[event.Command].Codes[0] = 0
	x := openIndex(t, index(t, b, append(indexed, "nothing", "connection_id", "time")...))
	if x.MayContain("pid", block.IntKey("pid", 0)) || x.MayContain("command", block.TextKey("command", "unused")) {
		t.Error("found a value where there is none")
	}
	for _, name := range []string{"nothing", "connection_id", "time"} {
		if !x.MayContain(name, 1) {
			t.Errorf("%s cannot be in the index, but was ruled out", name)
		}
	}
}

func TestOpenIndexRefuses(t *testing.T) {
	good := index(t, newHost(5).batch(100), indexed...)
	set := func(at int, bytes ...byte) []byte {
		data := slices.Clone(good)
		copy(data[at:], bytes)
		return data
	}
	for name, data := range map[string][]byte{
		"nothing":             nil,
		"half a header":       good[:20],
		"a header":            good[:38],
		"another version":     set(0, 2),
		"more columns":        set(1, 255),
		"no rows":             set(2, 0, 0, 0, 0),
		"too many rows":       set(2, 1, 0, 0, 0),
		"times the wrong way": set(6, 0x7f, 0xff),
		"no segment length":   set(30, 0, 0, 0, 0),
		"an odd length":       set(30, 0, 0, 0, 3),
		"too many segments":   set(34, 0xff, 0xff, 0xff, 0xff),
		"no segments":         set(34, 0, 0, 0, 0),
		"one byte less":       good[:len(good)-1],
		"one byte more":       append(slices.Clone(good), 0),
	} {
		if _, err := block.OpenIndex(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(index(f, newHost(5).batch(50), indexed...), uint64(1))
	f.Add(index(f, newHost(5).batch(1)), uint64(1))
	f.Add(binary.BigEndian.AppendUint64(make([]byte, 38), 1), uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, key uint64) {
		x, err := block.OpenIndex(data)
		if err != nil {
			return
		}
		for _, name := range append(indexed, "") {
			x.MayContain(name, block.Key(key), block.Key(^key))
		}
	})
}

func BenchmarkIndex(b *testing.B) {
	batch := newHost(1).batch(60_000)
	e, err := block.NewEncoder()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("make", func(b *testing.B) { // of what was gathered with the block
		gather(b, e, batch, indexed...)
		var data []byte
		b.ReportAllocs()
		for b.Loop() {
			if data, err = e.AppendIndex(data[:0]); err != nil {
				b.Fatal(err)
			}
		}
		perEvent(b, batch.Len())
		b.ReportMetric(float64(len(data))/float64(batch.Len()), "B/event")
	})
	b.Run("probe", func(b *testing.B) {
		data := index(b, batch, indexed...)
		key := block.IPKey("destination_ip", netip.MustParseAddr("192.0.2.1"))
		b.ReportAllocs()
		for b.Loop() {
			x, err := block.OpenIndex(data)
			if err != nil || x.MayContain("destination_ip", key) {
				b.Fatal(err)
			}
		}
	})
}
