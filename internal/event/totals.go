package event

// maxTotals bounds the different values of a breakdown that Totals tells apart.
// A kernel has some 150 reasons to drop a packet.
const maxTotals = 256

// OtherTotal is what Totals counts values under that are too many.
const OtherTotal = "other"

// Totals is what batches of one type add up to. The zero value is none.
type Totals struct {
	Counts map[string]int64 // what events stand for (Type.Weight) by the value of Type.Breakdown; "": absent
	Sums   map[string]int64 // of the columns that are summed
}

// Add adds the events of a batch.
func (t *Totals) Add(b *Batch) {
	if t.Counts == nil {
		t.Counts, t.Sums = make(map[string]int64), make(map[string]int64)
	}
	breakdown := &b.Columns[b.Type.MustColumn(b.Type.Breakdown)]
	counts := make([]int64, 1+len(breakdown.Dict))
	weight, weighted := b.Type.Column(b.Type.Weight)
	for row, code := range breakdown.Codes {
		n := int64(1)
		if weighted {
			n = max(1, b.Columns[weight].Ints[row])
		}
		counts[code] += n
	}
	t.count("", counts[0])
	for i, value := range breakdown.Dict {
		t.count(value, counts[1+i])
	}
	for i := range b.Type.Columns {
		if c := &b.Type.Columns[i]; c.Sum && !b.Columns[i].Absent() {
			for _, n := range b.Columns[i].Ints {
				t.Sums[c.Name] += n
			}
		}
	}
}

func (t *Totals) count(value string, n int64) {
	if n == 0 {
		return
	}
	if _, known := t.Counts[value]; !known && len(t.Counts) >= maxTotals {
		value = OtherTotal
	}
	t.Counts[value] += n
}
