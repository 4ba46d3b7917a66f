package store

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// What blocks keep changes no answer: not when the same is asked again, by many
// at once, and not when there is room for little of it.
func TestKeptBlocksChangeNoAnswer(t *testing.T) {
	const over = 50 * time.Hour
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	start(t, s, "flow", "drop")
	for _, b := range randomEvents(rand.New(rand.NewPCG(7, 7)), 3000, over) {
		if b.Len() > 0 {
			s.Append(b)
		}
	}
	c.set(begin.Add(over))
	want := answers(t, s, 7, over) // from memory
	flush(t, s)
	sealAll(t, s)
	for _, limit := range []int{maxKept, 100_000, 1} {
		s.kept = newKeptBlocks(limit)
		for range 2 {
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() {
					if got := answers(t, s, 7, over); !slices.Equal(got, want) {
						t.Errorf("with room for %d bytes the answers are others", limit)
					}
				})
			}
			group.Wait()
		}
		size := 0
		for _, kept := range s.kept.blocks.Values() {
			size += kept.block.Size()
		}
		if size != s.kept.size || size > limit {
			t.Errorf("%d bytes are kept, and %d counted; the limit is %d", size, s.kept.size, limit)
		}
		if limit == maxKept && size == 0 {
			t.Error("nothing is kept")
		}
	}
}
