package block_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// one wants a single value of a column.
type one struct {
	column int
	number int64
	text   string
}

func (f one) Column() int                   { return f.column }
func (f one) Number(n int64) bool           { return n == f.number }
func (f one) Text(s string) bool            { return s == f.text }
func (f one) ID(scope string, n int64) bool { return scope == f.text && n == f.number }
func (f one) Printed() []string             { return nil }
func (f one) Not() bool                     { return false }

// Derive is for derived fields, which the types here lack: TestFiltersAgainstNaive
// in the store has one.
func (f one) Derive(*event.Batch, []int32) []int32 { panic("of a column") }

// other wants what a filter refuses.
type other struct{ block.Filter }

func (f other) Not() bool { return true }

// exactly is a filter that knows how its address is printed.
type exactly struct{ one }

func (f exactly) Printed() []string {
	ip, _ := netip.AddrFromSlice([]byte(f.text))
	return []string{ip.String()}
}

// like returns filters for the values that an event has, none for absent ones.
func like(b *event.Batch, row int, columns ...int) (filters []block.Filter) {
	for _, i := range columns {
		v := &b.Columns[i]
		f := one{column: i}
		if v.Ints != nil {
			f.number = v.Ints[row]
		}
		if v.Codes != nil {
			if v.Codes[row] == 0 {
				continue
			}
			f.text = v.Dict[v.Codes[row]-1]
		} else if v.Valid != nil && !v.Valid[row] {
			continue
		}
		filters = append(filters, f)
		if b.Type.Columns[i].Kind == event.KindIP {
			filters = append(filters, exactly{f})
		}
	}
	return filters
}

// passing finds the events one by one.
func passing(b *event.Batch, first, end int, filters []block.Filter) []int32 {
	rows := []int32{}
	for row := first; row < end; row++ {
		if slices.ContainsFunc(filters, func(f block.Filter) bool { return !passes(b, row, f) }) {
			continue
		}
		rows = append(rows, int32(row))
	}
	return rows
}

func passes(b *event.Batch, row int, f block.Filter) bool { return named(b, row, f) != f.Not() }

func named(b *event.Batch, row int, f block.Filter) bool {
	r := event.Row{Batch: b, Index: row}
	switch b.Type.Columns[f.Column()].Kind {
	case event.KindInt:
		n, ok := r.Int(f.Column())
		return ok && f.Number(n)
	case event.KindID:
		scope, ok := r.String(f.Column())
		return ok && f.ID(scope, b.Columns[f.Column()].Ints[row])
	}
	s, ok := r.String(f.Column())
	return ok && f.Text(s)
}

func TestFind(t *testing.T) {
	const rows = 20_000
	b := newHost(5).batch(rows)
	opened := open(t, encode(t, b), connectionType)
	r := rand.New(rand.NewPCG(7, 7))
	found := 0
	for range 300 {
		var columns []int
		for range r.IntN(4) {
			columns = append(columns, 1+r.IntN(len(connectionType.Columns)-1))
		}
		first := r.IntN(rows)
		end := first + r.IntN(rows-first)
		filters := like(b, r.IntN(rows), columns...)
		for i := range filters {
			if r.IntN(3) == 0 {
				filters[i] = other{filters[i]}
			}
		}
		got, err := opened.Find(nil, first, end, filters)
		if err != nil {
			t.Fatal(err)
		}
		want := passing(b, first, end, filters)
		found += len(want)
		if !slices.Equal(got, want) {
			t.Fatalf("columns %v from %d to %d: found %d rows, want %d", columns, first, end, len(got), len(want))
		}
	}
	if found == 0 {
		t.Error("nothing was to be found")
	}
	if got, err := opened.Find(nil, 0, rows, []block.Filter{one{column: event.PID, number: -5}}); err != nil || len(got) != 0 {
		t.Errorf("a pid that is not there: %v, %v", got, err)
	}
	if _, err := opened.Find(nil, 0, rows+1, nil); err == nil {
		t.Error("rows beyond the end were found")
	}
}

func TestBetween(t *testing.T) {
	const rows = 20_000
	b := newHost(6).batch(rows)
	opened := open(t, encode(t, b), connectionType)
	times := b.Columns[event.Time].Ints
	r := rand.New(rand.NewPCG(8, 8))
	for range 300 {
		from, until := times[r.IntN(rows)]+int64(r.IntN(3)-1), times[r.IntN(rows)]+int64(r.IntN(3)-1)
		first, end, err := opened.Between(from, until)
		if err != nil {
			t.Fatal(err)
		}
		wantFirst, _ := slices.BinarySearch(times, from)
		wantEnd, _ := slices.BinarySearch(times, until)
		if first != wantFirst || end != max(wantFirst, wantEnd) {
			t.Fatalf("from %d to %d: %d to %d, want %d to %d", from, until, first, end, wantFirst, wantEnd)
		}
	}
}
