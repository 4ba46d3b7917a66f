package block_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// A block that keeps pages answers as one that does not, also when its data has
// moved and where it was before is something else now.
func TestKeep(t *testing.T) {
	const rows = 20_000
	b := newHost(9).batch(rows)
	data := encode(t, b)
	fresh, kept := open(t, data, connectionType), open(t, bytes.Clone(data), connectionType)
	kept.Keep()
	r := rand.New(rand.NewPCG(9, 9))
	all := columnsOf(connectionType)
	var memory block.Memory
	for range 100 {
		moved := bytes.Clone(data)
		kept.Rebase(moved)
		first := r.IntN(rows)
		end := first + r.IntN(rows-first)
		filters := like(b, r.IntN(rows), 1+r.IntN(len(all)-1), 1+r.IntN(len(all)-1))
		want, err := fresh.Find(nil, first, end, filters)
		if err != nil {
			t.Fatal(err)
		}
		got, err := kept.Find(nil, first, end, filters)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("found %d rows, want %d: %v", len(got), len(want), err)
		}
		want = want[:min(len(want), 50)]
		picked, err := kept.ReadRows(all, want)
		if err != nil {
			t.Fatal(err)
		}
		expected := event.NewBatch(connectionType, 0)
		if len(want) > 0 { // nil would be all
			expected.AppendRows(b, want)
		}
		sameTexts(t, "rows", texts(picked), texts(expected))
		end = min(end, first+r.IntN(6000)) // some with a whole page
		between, err := kept.ReadRange(&memory, all, first, end)
		if err != nil {
			t.Fatal(err)
		}
		expected = event.NewBatch(connectionType, 0)
		for row := first; row < end; row++ {
			expected.AppendRows(b, []int32{int32(row)})
		}
		sameTexts(t, "range", texts(between), texts(expected))
		for _, i := range all { // absent ones are 0, whatever was there before
			if got, want := between.Columns[i].Ints, expected.Columns[i].Ints; !slices.Equal(got, want) {
				t.Fatalf("range from %d to %d has other numbers in column %d", first, end, i)
			}
		}
		kept.Rebase(nil)
		clear(moved)
	}
	size := kept.Size()
	if size <= fresh.Size() {
		t.Errorf("%d bytes are kept, which is no more than the %d of a block that keeps none", size, fresh.Size())
	}
	kept.Rebase(data)
	if _, err := kept.Read(all); err != nil {
		t.Fatal(err)
	}
	if got := kept.Size(); got > size+size/2 {
		t.Errorf("reading all kept %d bytes more", got-size)
	}
	for _, span := range [][2]int{{-1, 5}, {5, 4}, {0, rows + 1}} {
		if _, err := kept.ReadRange(&memory, all, span[0], span[1]); err == nil {
			t.Errorf("range %d to %d was read", span[0], span[1])
		}
	}
}

// Memory that other events lay in is not seen in those that lack values for whole pages.
func TestReadRange(t *testing.T) {
	const rows, some = 20_000, 6_000
	full := newHost(12).batch(rows)
	sparse := event.NewBatch(connectionType, rows)
	first := make([]int32, some)
	for i := range first {
		first[i] = int32(i)
	}
	sparse.AppendRows(full, first)
	for _, at := range full.Columns[event.Time].Ints[some:] {
		sparse.Append(at)
	}
	sparse.Finish()
	all, blocks := columnsOf(connectionType), []*event.Batch{full, sparse}
	opened := []*block.Block{open(t, encode(t, full), connectionType), open(t, encode(t, sparse), connectionType)}
	var memory block.Memory
	for _, of := range []int{0, 1, 0, 1} {
		got, err := opened[of].ReadRange(&memory, all, 100, rows)
		if err != nil {
			t.Fatal(err)
		}
		want := event.NewBatch(connectionType, rows)
		for row := int32(100); row < rows; row++ {
			want.AppendRows(blocks[of], []int32{row})
		}
		sameTexts(t, "range", texts(got), texts(want))
		for _, i := range all {
			if !slices.Equal(got.Columns[i].Ints, want.Columns[i].Ints) {
				t.Fatalf("column %d has other numbers", i)
			}
		}
	}
	picked := []int32{0, some - 1, some + 5_000, rows - 1} // the last two in pages without any value
	for _, wanted := range [][]int32{picked, picked[2:]} {
		got, err := opened[1].ReadRows(all, wanted)
		if err != nil {
			t.Fatal(err)
		}
		want := event.NewBatch(connectionType, len(wanted))
		want.AppendRows(sparse, wanted)
		sameTexts(t, "rows", texts(got), texts(want))
	}
}
