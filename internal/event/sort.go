package event

import "slices"

// Sort returns the events of a batch by time, those of one time in the order
// in which they were. It returns the batch itself if that is its order.
func Sort(b *Batch) *Batch {
	times := b.Columns[Time].Ints
	if slices.IsSorted(times) {
		return b
	}
	sorted := NewBatch(b.Type, len(times))
	sorted.AppendRows(b, timeOrder(times))
	return sorted
}

// timeOrder merges runs that are in order already, which takes little time for
// what Sort is given: a few batches, each sorted or nearly so.
func timeOrder(times []int64) []int32 {
	rows := make([]int32, len(times))
	ends := []int{} // of the runs
	for i := range rows {
		rows[i] = int32(i)
		if i > 0 && times[i] < times[i-1] {
			ends = append(ends, i)
		}
	}
	ends = append(ends, len(rows))
	for other := make([]int32, len(rows)); len(ends) > 1; rows, other = other, rows {
		begin, merged := 0, ends[:0]
		for i := 0; i < len(ends); i += 2 {
			middle, end := ends[i], ends[min(i+1, len(ends)-1)]
			mergeRuns(other[begin:end], rows[begin:middle], rows[middle:end], times)
			merged = append(merged, end)
			begin = end
		}
		ends = merged
	}
	return rows
}

func mergeRuns(dst, a, b []int32, times []int64) {
	for i := range dst {
		if len(b) == 0 || len(a) > 0 && times[a[0]] <= times[b[0]] {
			dst[i], a = a[0], a[1:]
		} else {
			dst[i], b = b[0], b[1:]
		}
	}
}
