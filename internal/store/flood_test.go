package store

import (
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// More events than fill a block become one without being rows first, whatever the
// sizes of their batches. What is left waits in memory, so that the run was alive
// until the first of that arrived: what a crash takes is in the gap.
func TestFloodBecomesBlocksAtOnce(t *testing.T) {
	c, path := newClock(), testPath(t)
	s := openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	const batch = 1000
	for n := 0; n <= block.MaxRows/batch; n++ {
		c.set(begin.Add(time.Duration(n) * time.Second))
		b := event.NewBatch(flowType, batch)
		for i := range batch {
			addFlow(b, c.now().UnixNano()+int64(i), int64(n*batch+i))
		}
		s.Append(b)
	}
	const left = (block.MaxRows/batch+1)*batch - block.MaxRows
	waitFor(t, func() bool { return s.Status().Pending == left })
	storage, err := s.Storage(false)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(storage.Types, func(t query.StorageType) bool { return t.Name == "flow" })
	if bytes := storage.Types[i].Bytes; bytes.Rows != 0 || bytes.Blocks == 0 {
		t.Errorf("rows have %d bytes, blocks %d", bytes.Rows, bytes.Blocks)
	}
	kill(t, s)

	c.set(minute(10))
	s = openTest(t, Options{Path: path, now: c.now})
	start(t, s, "flow")
	if n := len(numbers(t, s, query.Events{Limit: 2 * block.MaxRows})); n != block.MaxRows {
		t.Errorf("%d events are left, want %d", n, block.MaxRows)
	}
	gaps := coverage(t, s, []*event.Type{flowType}, query.Window{Since: begin, Until: minute(10)}).Gaps
	lastArrived := begin.Add(block.MaxRows / batch * time.Second)
	if len(gaps) != 1 || !gaps[0].From.Equal(lastArrived) || !gaps[0].Until.Equal(minute(10)) {
		t.Errorf("gaps are %v, want one from %v", gaps, lastArrived)
	}
}
