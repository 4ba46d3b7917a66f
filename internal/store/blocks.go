package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// blockID names a block for as long as there is the file.
type blockID struct {
	typeName string
	number   int64
}

// storedBlock is a block in the file, good within a view.
type storedBlock struct {
	blockID
	segment
	min, max   int64
	value, sum []byte // from fetch
}

// errDamaged is a block that was skipped, reported and noted for the coverage.
var errDamaged = errors.New("block is damaged")

// blocks calls do with the blocks of a segment that have events in a time span
// and may have some that are wanted, in the order in which they were made.
func (v *view) blocks(t *event.Type, g segment, in span, w wanted, do func(b storedBlock) error) error {
	return forEachBlock(v.tx, t.Name, g, func(number int64, index []byte) error {
		b := storedBlock{blockID: blockID{t.Name, number}, segment: g}
		x, err := v.s.openIndex(b.blockID, index)
		if err != nil { // without an index it is a block to look into
			b.min, b.max = g.span().from, g.span().until-1
			return do(b)
		}
		if b.min, b.max = x.Times(); !in.overlaps(b.min, b.max) || !w.mayBeIn(&x) {
			return nil
		}
		return do(b)
	})
}

// openIndex verifies each index once.
func (s *Store) openIndex(id blockID, value []byte) (block.Index, error) {
	data := value[checksumSize:]
	if _, ok := s.verifiedIndexes.Load(id); !ok {
		if !bytes.Equal(checksum(data), value[:checksumSize]) {
			err := errors.New("index is damaged: its checksum is wrong")
			if _, known := s.damagedIndexes.LoadOrStore(id, true); !known {
				s.log.Error("cannot use the index of a block", "type", id.typeName, "block", id.number, "error", err)
			}
			return block.Index{}, err
		}
		s.verifiedIndexes.Store(id, true)
	}
	return block.OpenIndex(data)
}

// fetch finds the bytes of a block, which will be read. Unlike reading them it is
// nothing for several goroutines at once.
func (v *view) fetch(b *storedBlock) {
	bucket := blockBucket(v.tx, b.typeName, b.segment, b.number)
	if bucket == nil {
		return
	}
	// To find a key bbolt compares it with others, which is to wait for the page
	// behind the block: here it is the order that tells which is which.
	cursor := bucket.Cursor()
	if k, value := cursor.First(); bytes.Equal(k, keyBlock) {
		b.value = value
		_, b.sum = cursor.Next()
	}
	if !v.s.kept.has(b.blockID) {
		willNeed(b.value)
	}
}

// openBlock opens a block that was fetched, and verifies it the first time. It
// fails with errDamaged.
func (s *Store) openBlock(b storedBlock, t *event.Type) (*block.Block, error) {
	if _, known := s.damaged.Load(b.blockID); known {
		return nil, errDamaged
	}
	if _, ok := s.verified.Load(b.blockID); !ok {
		if !bytes.Equal(checksum(b.value), b.sum) {
			return nil, s.damage(b, errors.New("its checksum is wrong"))
		}
		s.verified.Store(b.blockID, true)
	}
	opened, err := block.Open(b.value, t)
	if err != nil {
		return nil, s.damage(b, err)
	}
	return opened, nil
}

// damage notes a block that cannot be read, and reports it the first time.
func (s *Store) damage(b storedBlock, err error) error {
	if _, known := s.damaged.LoadOrStore(b.blockID, span{b.min, b.max + 1}); !known {
		s.log.Error("a block of the file is damaged; its events are left out of answers",
			"type", b.typeName, "segment", b.segment, "block", b.number, "error", err)
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// willNeed has the system read ahead what is about to be read: bbolt tells it
// otherwise for the whole file.
func willNeed(data []byte) {
	if len(data) == 0 {
		return
	}
	begin := uintptr(unsafe.Pointer(&data[0]))
	lead := begin & uintptr(os.Getpagesize()-1)
	// The system is not told by unix.Madvise: a slice that begins before the data is none for
	// the race detector. Nothing but speed depends on it.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, begin-lead, lead+uintptr(len(data)), unix.MADV_WILLNEED)
}
