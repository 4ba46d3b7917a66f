package event_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestSort(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, rows := range []int{0, 1, 2, 3, 100, 1000} {
		for _, span := range []int64{1, 10, 1 << 40} {
			b := event.NewBatch(testType, rows)
			for i := range rows {
				b.Append(r.Int64N(span) - span/2)
				b.SetInt(event.PID, int64(i))
			}
			type key struct{ time, pid int64 }
			var got, want []key
			for i := range rows {
				want = append(want, key{b.Columns[event.Time].Ints[i], b.Columns[event.PID].Ints[i]})
			}
			slices.SortStableFunc(want, func(a, b key) int { return int(min(max(a.time-b.time, -1), 1)) })
			sorted := event.Sort(b)
			for i := range rows {
				got = append(got, key{sorted.Columns[event.Time].Ints[i], sorted.Columns[event.PID].Ints[i]})
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d rows, times within %d: not sorted, or not stable", rows, span)
			}
			if event.Sort(sorted) != sorted {
				t.Error("a sorted batch was copied")
			}
		}
	}
}

// random makes events of which most have a value in some columns and none in others,
// at times that rise, or in any order.
func random(r *rand.Rand, rows int, rising bool) *event.Batch {
	b := event.NewBatch(testType, 0)
	has := r.IntN(16)
	for i := range rows {
		if rising {
			b.Append(int64(i))
		} else {
			b.Append(r.Int64N(10))
		}
		n := r.IntN(50)
		if n == 0 {
			continue
		}
		b.SetInt(event.PID, int64(n))
		if has&1 != 0 {
			b.SetString(colState, fmt.Sprint("state", n))
		}
		if has&2 != 0 {
			b.SetInt(colBytes, int64(n))
		}
		if has&4 != 0 {
			b.SetIP(colAddress, netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}))
		}
		if has&8 != 0 {
			b.SetID(colSocket, fmt.Sprint("boot", n%2), int64(n))
		}
	}
	return b
}

// shift moves a batch behind others.
func shift(b *event.Batch, by int64) *event.Batch {
	for i := range b.Columns[event.Time].Ints {
		b.Columns[event.Time].Ints[i] += by
	}
	return b
}

func TestSequence(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var s event.Sequence // the same for all
	for round := range 300 {
		batches := make([]*event.Batch, 1+r.IntN(4))
		joined := event.NewBatch(testType, 0)
		for i := range batches {
			batches[i] = random(r, r.IntN(20), round%2 == 0)
			if round%3 != 0 {
				shift(batches[i], int64(i)*20)
			}
			joined.AppendRows(batches[i], nil)
		}
		want := texts(event.Sort(joined))
		s.Set(batches...)
		if s.Len() != len(want) || s.Type() != testType {
			t.Fatalf("round %d: %d events, want %d", round, s.Len(), len(want))
		}
		for range 5 {
			from := r.IntN(s.Len() + 1)
			until := from + r.IntN(s.Len()-from+1)
			byColumn := event.NewBatch(testType, 0)
			for i := range byColumn.Columns {
				byColumn.Columns[i] = clone(s.Column(i, from, until))
			}
			if got := texts(byColumn); !slices.Equal(got, want[from:until]) {
				t.Fatalf("round %d: events %d to %d by column:\n%q\nwant\n%q", round, from, until, got, want[from:until])
			}
			copied := s.Batch(from, until)
			if got := texts(copied); !slices.Equal(got, want[from:until]) {
				t.Fatalf("round %d: copy of events %d to %d:\n%q\nwant\n%q", round, from, until, got, want[from:until])
			}
			sparse(copied, 7) // it is nobody else's
		}
		if got := texts(s.Batch(0, s.Len())); !slices.Equal(got, want) {
			t.Fatalf("round %d: a copy was written to, and the events are now\n%q\nwant\n%q", round, got, want)
		}
		if round%5 == 0 {
			s.Forget()
		}
	}
}

// clone copies what is good until the next call only.
func clone(v *event.Vector) event.Vector {
	return event.Vector{Ints: slices.Clone(v.Ints), Valid: slices.Clone(v.Valid), Codes: slices.Clone(v.Codes), Dict: slices.Clone(v.Dict)}
}

// A column of a sequence may come without any value from all of its batches, or
// from some.
func TestSequenceOfAbsentColumns(t *testing.T) {
	empty, one := event.NewBatch(testType, 0), event.NewBatch(testType, 0)
	sparse(empty, 1)
	sparse(empty, 2)
	full(one, 3, "open")
	var s event.Sequence
	s.Set(empty, one)
	if !s.Column(colState, 0, 2).Absent() || s.Column(colState, 0, 3).Absent() || !s.Column(event.UID, 0, 3).Absent() {
		t.Error("it does not tell which columns have no value")
	}
}
