package store

import (
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// maxKept is how much memory, in bytes, blocks may take that were asked for
// single events. It holds what a question about a day leaves behind.
const maxKept = 32 << 20

// keptBlocks are the blocks asked last, with what was decompressed to find and
// read their events: who looks for something asks about the same hours again,
// and most of an answer's time is decompression.
type keptBlocks struct {
	mu     sync.Mutex
	blocks *simplelru.LRU[blockID, *keptBlock]
	size   int // of all in blocks, in bytes
	limit  int // of size
}

type keptBlock struct {
	mu    sync.Mutex   // for block; taken before that of keptBlocks
	block *block.Block // nil until it is opened
	size  int          // as it is in keptBlocks.size, whose mutex guards it
}

func newKeptBlocks(limit int) *keptBlocks {
	k := &keptBlocks{limit: limit}
	// A block is larger than 4 kB, so that size is the bound that matters.
	var err error
	k.blocks, err = simplelru.NewLRU(max(1, limit>>12), func(_ blockID, old *keptBlock) { k.size -= old.size })
	if err != nil {
		panic(err) // only the number can be wrong
	}
	return k
}

func (k *keptBlocks) get(id blockID) *keptBlock {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept, ok := k.blocks.Get(id)
	if !ok {
		kept = new(keptBlock)
		k.blocks.Add(id, kept)
	}
	return kept
}

func (k *keptBlocks) has(id blockID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blocks.Contains(id)
}

// put counts what a block takes now, and forgets those that were not asked for
// longest if they take too much together.
func (k *keptBlocks) put(id blockID, kept *keptBlock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now, ok := k.blocks.Peek(id); !ok || now != kept {
		return // forgotten meanwhile
	}
	k.size -= kept.size
	kept.size = 0
	if kept.block != nil {
		kept.size = kept.block.Size()
	}
	k.size += kept.size
	for k.size > k.limit {
		k.blocks.RemoveOldest()
	}
}

// readBlock calls do with a block that was fetched. It verifies the block the
// first time, and fails with errDamaged, which an error of do becomes too.
func (s *Store) readBlock(b storedBlock, t *event.Type, do func(*block.Block) error) (err error) {
	kept := s.kept.get(b.blockID)
	kept.mu.Lock()
	defer kept.mu.Unlock()
	defer s.kept.put(b.blockID, kept)
	if kept.block == nil {
		if kept.block, err = s.openBlock(b, t); err != nil {
			return err
		}
		kept.block.Keep()
	}
	kept.block.Rebase(b.value)
	defer kept.block.Rebase(nil)
	if err = do(kept.block); err != nil && !errors.Is(err, errDamaged) {
		kept.block = nil
		err = s.damage(b, err)
	}
	return err
}

// readOnce is readBlock for who goes through all blocks: what is kept for those that ask
// for the same again stays.
func (s *Store) readOnce(b storedBlock, t *event.Type, do func(*block.Block) error) error {
	opened, err := s.openBlock(b, t)
	if err != nil {
		return err
	}
	if err = do(opened); err != nil && !errors.Is(err, errDamaged) {
		err = s.damage(b, err)
	}
	return err
}
