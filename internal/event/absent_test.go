package event_test

import (
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

// some makes a batch of n events, of which the row with number at has values.
func some(t *event.Type, n, at int) *event.Batch {
	b := event.NewBatch(t, 0)
	for row := range n {
		b.Append(int64(row))
		if row == at {
			for i, c := range t.Columns {
				switch c.Kind {
				case event.KindInt:
					b.SetInt(i, 7)
				case event.KindString:
					b.SetString(i, "x")
				case event.KindIP:
					b.SetBytes(i, []byte{192, 0, 2, 1})
				case event.KindID:
					b.SetID(i, "boot", 7)
				}
			}
		}
	}
	return b
}

// checkOnly checks that of all values of a batch only those of some rows are there.
func checkOnly(t *testing.T, b *event.Batch, n int, at ...int) {
	t.Helper()
	present := map[int]bool{}
	for _, row := range at {
		present[row] = true
	}
	for i, c := range b.Type.Columns {
		for row := range n {
			r := event.Row{Batch: b, Index: row}
			var is bool
			switch c.Kind {
			case event.KindTime:
				continue
			case event.KindInt:
				_, is = r.Int(i)
			default:
				_, is = r.String(i)
			}
			if is != present[row] {
				t.Fatalf("column %s has a value in row %d of %d: %v", c.Name, row, n, is)
			}
		}
		if v := &b.Columns[i]; c.Kind != event.KindTime && v.Absent() != (len(at) == 0) {
			t.Errorf("column %s is absent: %v, and has %d values", c.Name, v.Absent(), len(at))
		}
	}
}

// Columns without a value share their memory, and none writes there.
func TestAbsentColumns(t *testing.T) {
	checkOnly(t, some(testType, 10, -1), 10)
	checkOnly(t, some(testType, 10, 0), 10, 0)
	late := some(testType, 10, 9)
	checkOnly(t, late, 10, 9)

	joined := event.NewBatch(testType, 0)
	for _, b := range []*event.Batch{some(testType, 5, -1), late, some(testType, 5, -1)} {
		joined.AppendRows(b, nil)
	}
	joined.AppendRows(some(testType, 5, -1), []int32{1, 3})
	checkOnly(t, joined, 22, 14)
	empty := event.NewBatch(testType, 0)
	empty.AppendRows(some(testType, 5, -1), []int32{2})
	checkOnly(t, empty, 1)

	piece := &event.Batch{Type: testType}
	for i := range late.Columns {
		piece.Columns = append(piece.Columns, late.Columns[i].Slice(8, 10))
	}
	checkOnly(t, piece, 2, 1)
	const many = 1<<17 + 1 // more than are shared
	checkOnly(t, some(testType, many, many-1), many, many-1)
	checkOnly(t, some(testType, 1000, -1), 1000)
}

// Rows that are prepared ahead are not seen once the batch is finished, whatever was
// done to it before.
func TestPrepareAhead(t *testing.T) {
	for _, n := range []int{1, 7, 8, 9, 20} {
		for _, at := range []int{-1, 0, n - 1} {
			b := event.NewBatch(testType, 0)
			b.PrepareAhead(8)
			b.AppendRows(some(testType, n, at), nil)
			b.Append(int64(n)) // prepares rows, which AppendRows must not count
			b.AppendRows(some(testType, 3, 1), nil)
			b.Append(int64(n + 4))
			b.Finish()
			for i, c := range testType.Columns {
				if v := &b.Columns[i]; max(len(v.Ints), len(v.Codes)) != n+5 {
					t.Errorf("column %s has %d rows, want %d", c.Name, max(len(v.Ints), len(v.Codes)), n+5)
				}
			}
			want := []int{n + 2}
			if at >= 0 {
				want = []int{at, n + 2}
			}
			checkOnly(t, b, n+5, want...)
			b.Append(int64(n + 5)) // what was finished can be written to
			b.Finish()
			if b.Len() != n+6 {
				t.Errorf("%d rows, want %d", b.Len(), n+6)
			}
		}
	}
}

// Memory is for columns of any kind, one after the other.
func TestReuse(t *testing.T) {
	var memory event.Vector
	for i, kind := range []event.Kind{event.KindString, event.KindInt, event.KindID, event.KindTime, event.KindIP, event.KindInt} {
		rows := []int{3, 100, 7, 200, 50, 1}[i]
		v, fresh := memory.Reuse(kind, rows), event.NewVector(kind, rows)
		if len(v.Ints) != len(fresh.Ints) || len(v.Valid) != len(fresh.Valid) || len(v.Codes) != len(fresh.Codes) || v.Absent() {
			t.Errorf("%d rows of kind %v: %d ints, %d valid, %d codes", rows, kind, len(v.Ints), len(v.Valid), len(v.Codes))
		}
		for k := range v.Ints {
			v.Ints[k] = 7
		}
		for k := range v.Codes {
			v.Codes[k] = 7
		}
		v.Clear()
		for _, n := range v.Ints {
			if n != 0 {
				t.Fatal("a value is left")
			}
		}
	}
}
