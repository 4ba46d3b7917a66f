package event_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestTotals(t *testing.T) {
	drops := event.MustType(event.Type{Name: "drop", Collection: "drops", Summary: "Drops.", Breakdown: "reason", Weight: "count", Columns: []event.Column{
		{Name: "reason", Kind: event.KindString, Description: "Why."},
		{Name: "count", Kind: event.KindInt, Description: "How many."},
		{Name: "length", Kind: event.KindInt, Unit: "bytes", Sum: true, Description: "How long."},
	}})
	add := func(b *event.Batch, reason string, count, length int64) {
		b.Append(1)
		if reason != "" {
			b.SetString(drops.MustColumn("reason"), reason)
		}
		if count != 0 {
			b.SetInt(drops.MustColumn("count"), count)
		}
		b.SetInt(drops.MustColumn("length"), length)
	}
	var totals event.Totals
	for range 2 {
		b := event.NewBatch(drops, 4)
		add(b, "NO_SOCKET", 0, 40)
		add(b, "NO_SOCKET", 1000, 40_000)
		add(b, "", 3, 120)
		totals.Add(b)
	}
	if want := map[string]int64{"NO_SOCKET": 2002, "": 6}; !maps.Equal(totals.Counts, want) {
		t.Errorf("counts %v, want %v", totals.Counts, want)
	}
	if want := map[string]int64{"length": 80_320}; !maps.Equal(totals.Sums, want) {
		t.Errorf("sums %v, want %v", totals.Sums, want)
	}

	// However many values there are, the total is exact.
	b := event.NewBatch(drops, 1000)
	for i := range 1000 {
		add(b, fmt.Sprint("REASON_", i), 1, 0)
	}
	totals.Add(b)
	var sum int64
	for _, n := range totals.Counts {
		sum += n
	}
	if len(totals.Counts) > 257 || sum != 3008 || totals.Counts[event.OtherTotal] == 0 {
		t.Errorf("%d values, together %d, want 257 and 3008; other: %d", len(totals.Counts), sum, totals.Counts[event.OtherTotal])
	}
}
