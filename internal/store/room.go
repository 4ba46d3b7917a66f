package store

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Room is free pages for what is written while somebody takes a snapshot. What was
// in the file when that began comes free when it ends, so that each hour of it needs
// room for an hour of rows. Pages that are added to the file meanwhile are used once:
// bbolt does not know that they are newer than the reader. A flush replaces some 10
// pages, so by 5 s the file would grow by 30 MB an hour. Hence there is room before.
//
// It also is what large blocks fit into when all other free pages are scattered.

const (
	// roomPart is the part of the pages in use for which there are free ones. With
	// 48 h of retention an hour is a fiftieth, and its rows take two to three times as
	// much as its blocks. With less than this, large blocks do not find a place.
	roomPart = 8
	// spareParts is how much more is made at once, as a part of that, and firstSpareParts when the
	// first events go: it takes some days until the number of free pages was at
	// its lowest, and the file is not to grow again then.
	spareParts, firstSpareParts = 8, 2
	// maxRoom is some hours of a host with 100,000,000 events a day. Hours with
	// more than a block's worth of events do not become rows as a whole.
	maxRoom = 128 << 20
	// minCopyRoom is an hour of flushes with next to nothing in them, and maxCopyRoom
	// the rows of a full hour of each type.
	minCopyRoom = 1 << 20
	maxCopyRoom = 16 << 20
	// roomPiece bounds what a transaction holds in memory.
	roomPiece = 4 << 20
)

// bucketRoom is there only while room is made.
var bucketRoom = []byte("room")

// keepRoom makes room when events are due to be removed or were: from then on the
// file is not to grow.
func (s *Store) keepRoom(due bool) error {
	switch removed, err := s.hasRemoved(); {
	case err != nil:
		return err
	case removed:
		return s.makeRoom(0, maxRoom, spareParts)
	case due:
		return s.makeRoom(0, maxRoom, firstSpareParts)
	}
	return nil
}

// roomForCopy makes room for a snapshot, in a file that only becomes larger too.
func (s *Store) roomForCopy() error {
	removed, err := s.hasRemoved()
	if err == nil && !removed {
		err = s.makeRoom(minCopyRoom, maxCopyRoom, spareParts)
	}
	if err != nil {
		return err
	}
	// What a transaction frees is free when the next one begins.
	return s.update(func(*bbolt.Tx) error { return nil })
}

// hasRemoved tells whether retention has removed anything.
func (s *Store) hasRemoved() (removed bool, err error) {
	err = s.view(func(v *view) error {
		key, _ := v.tx.Bucket(bucketMeta).Bucket(bucketRemoved).Cursor().First()
		removed = key != nil
		return nil
	})
	return removed, err
}

// makeRoom adds free pages to the file if there are too few, and then one part more of
// so many, as their number goes up and down by the hour.
func (s *Store) makeRoom(least, most, spare int64) error {
	if s.isCopied() {
		return nil // what is freed now comes free when that ends
	}
	if err := s.clearRoom(); err != nil {
		return err
	}
	stats, pageSize := s.db.Stats(), int64(s.db.Info().PageSize)
	free := int64(stats.FreePageN+stats.PendingPageN) * pageSize
	wanted := min(max(s.usedBytes()/roomPart, least), most)
	if free >= wanted {
		return nil
	}
	if err := s.addRoom(max(wanted+wanted/spare-free, wanted/4), pageSize); err != nil {
		return fmt.Errorf("make room in the file: %w", err)
	}
	return nil
}

// addRoom puts pieces into the file until it is so much larger, and removes them.
func (s *Store) addRoom(missing, pageSize int64) error {
	piece := missing / (missing/roomPiece + 1)
	var goal int64
	var err error
	for done := false; !done && err == nil; {
		err = s.update(func(tx *bbolt.Tx) error {
			if goal == 0 {
				goal = tx.Size() + missing
			}
			if done = tx.Size() >= goal; done {
				s.db.AllocSize = growStep
				return removeRoom(tx)
			}
			s.db.AllocSize = int(pageSize) // this is instead of what a step would leave
			return putRoom(tx, piece)
		})
	}
	if err != nil {
		err = errors.Join(err, s.emptyRoom())
	}
	return err
}

// clearRoom removes what is left where room could not be made.
func (s *Store) clearRoom() error {
	left := false
	err := s.view(func(v *view) error {
		left = v.tx.Bucket(bucketRoom) != nil
		return nil
	})
	if err != nil || !left {
		return err
	}
	return s.emptyRoom()
}

func (s *Store) emptyRoom() error {
	return s.update(func(tx *bbolt.Tx) error {
		s.db.AllocSize = growStep
		return removeRoom(tx)
	})
}

func putRoom(tx *bbolt.Tx, size int64) error {
	room, err := tx.CreateBucketIfNotExists(bucketRoom)
	if err != nil {
		return err
	}
	number, err := room.NextSequence()
	if err != nil {
		return err
	}
	own, err := room.CreateBucket(putInt(int64(number))) // as with blocks, so that none is written twice
	if err != nil {
		return err
	}
	return own.Put(keyBlock, make([]byte, size))
}

// removeRoom is for what putRoom has put, also in a run that crashed.
func removeRoom(tx *bbolt.Tx) error {
	if tx.Bucket(bucketRoom) == nil {
		return nil
	}
	return tx.DeleteBucket(bucketRoom)
}
