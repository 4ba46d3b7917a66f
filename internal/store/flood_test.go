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

// An import of busy hours becomes blocks at once too, also the few events of another
// type: what waits in memory must not be forgotten where it is decided that an hour is
// done with.
func TestImportBecomesBlocksAtOnce(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	start(t, s, "flow", "drop")
	c.set(begin.Add(1000 * time.Hour))
	const hours, flows, drops = 8, 45_000, 4_500
	for hour := range hours {
		for n := 0; n < flows; n += 1000 {
			at := begin.Add(time.Duration(hour)*time.Hour + time.Duration(n)*time.Second/20).UnixNano()
			f, d := event.NewBatch(flowType, 1000), event.NewBatch(dropType, 100)
			for i := range 1000 {
				addFlow(f, at+int64(i), int64(n+i))
			}
			for i := range drops * 1000 / flows {
				d.Append(at + int64(i))
			}
			for _, b := range []*event.Batch{f, d} {
				if err := s.AppendWait(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	storage, err := s.Storage(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range storage.Types {
		if of.Bytes.Rows != 0 || of.Bytes.Blocks == 0 {
			t.Errorf("%s: rows have %d bytes, blocks %d", of.Name, of.Bytes.Rows, of.Bytes.Blocks)
		}
	}
	flush(t, s)
	for name, want := range map[string]int64{"flow": hours * flows, "drop": hours * drops} {
		if got := typeStatus(s, name).Events; got != want {
			t.Errorf("%d events of %s in the file, want %d", got, name, want)
		}
	}
}
