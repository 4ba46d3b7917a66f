package store

import (
	"bytes"
	"encoding/binary"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// bbolt maps the file and tells the system not to read ahead: what is not in
// memory comes 4 KB at a time, each waited for alone, some 0.1 ms. A question about a
// day touches 200 such pages before it sees an event. Here they are asked for
// step by step down the tree, all of a step at once. They are looked at through
// the file, where a damaged one is no fault; nothing but speed depends on them.

// maxAhead bounds the pages that are looked at, also in a damaged tree.
const maxAhead = 4096

// treePage is a page of a bucket's tree.
type treePage struct {
	number      int64
	levels      int    // of buckets below it
	from, until []byte // keys that are wanted, until not included; nil: all
}

// readAhead has the system read the pages of a bucket that have keys from from on
// and before until, and so many levels of the buckets that these keys name. Of
// those on the last level it reads the first page or, if they are wanted whole,
// all that a page goes on for.
func (s *Store) readAhead(bucket *bbolt.Bucket, from, until []byte, levels int, whole bool) {
	if bucket == nil || bucket.Root() == 0 { // it is in the page of its parent
		return
	}
	buffer := make([]byte, s.db.Info().PageSize)
	size := int64(len(buffer))
	pages := []treePage{{int64(bucket.Root()), levels, from, until}}
	for left := maxAhead; len(pages) > 0; left -= len(pages) {
		pages = pages[:max(0, min(len(pages), left))]
		for _, p := range pages {
			s.willRead(p.number*size, size)
		}
		var next []treePage
		for _, p := range pages {
			if p.levels == 0 && !whole {
				continue
			}
			if _, err := s.file.ReadAt(buffer, p.number*size); err != nil {
				continue
			}
			if more := int64(binary.NativeEndian.Uint32(buffer[12:])); p.levels == 0 && more > 0 {
				s.willRead((p.number+1)*size, more*size)
			}
			next = p.below(next, buffer)
		}
		pages = next
	}
}

// readAheadBlocks has the system read the indexes of all blocks of a type in a
// span of less than a day, and the first page of each block, unless that was done since Open.
func (v *view) readAheadBlocks(typeName string, in span) {
	first, until := hourOf(in.from), hourOf(in.until-1)+1
	for first < until && v.s.wasReadAhead(typeName, first) {
		first++
	}
	for first < until && v.s.wasReadAhead(typeName, until-1) {
		until--
	}
	if first >= until {
		return
	}
	name, from, end := []byte(typeName), putInt(first), putInt(until)
	v.s.readAhead(v.tx.Bucket(bucketIndexes).Bucket(name), from, end, 0, true)
	v.s.readAhead(v.tx.Bucket(bucketBlocks).Bucket(name), from, end, 2, false)
	for ; first < until; first++ {
		v.s.ahead.Store(hourOfType{typeName, first}, true)
	}
}

func (s *Store) wasReadAhead(typeName string, hour int64) bool {
	_, done := s.ahead.Load(hourOfType{typeName, hour})
	return done
}

// readAheadRollups has the system read the rollups of hours of a day, unless that
// was done since Open.
func (v *view) readAheadRollups(typeName string, day, first, until int64) {
	if _, done := v.s.ahead.LoadOrStore(rollupID{typeName, segment{day, hoursOfDay}}, true); !done {
		v.s.readAhead(v.tx.Bucket(bucketRollups).Bucket([]byte(typeName)), putInt(first), putInt(until), 1, true)
	}
}

// willRead is willNeed for a part of the file.
func (s *Store) willRead(offset, size int64) {
	_ = unix.Fadvise(int(s.file.Fd()), offset, size, unix.FADV_WILLNEED)
}

// A page as bbolt has it, in the order of the machine: its number (8 bytes), its
// kind (2), how many elements it has (2), how many pages it goes on for (4), the
// elements, and behind them keys and values, whose places count from the element.
const (
	pageHeader  = 16
	pageElement = 16
	branchPage  = 1 // element: place of the key (4), its length (4), page below (8)
	leafPage    = 2 // element: flags (4), place of the key (4), its length (4), that of the value (4)
	bucketFlag  = 1 // the value is a bucket; it begins with its page (8), 0 if it has none of its own
)

// below appends the pages that a page refers to.
func (p treePage) below(to []treePage, page []byte) []treePage {
	order := binary.NativeEndian
	kind, count := order.Uint16(page[8:]), int(order.Uint16(page[10:]))
	first := len(to)
	for i := range min(count, (len(page)-pageHeader)/pageElement) {
		e := page[pageHeader+i*pageElement:]
		switch {
		case kind == branchPage:
			key := bytesAt(e, order.Uint32(e), order.Uint32(e[4:]))
			if p.until != nil && bytes.Compare(key, p.until) >= 0 {
				return to
			}
			if bytes.Compare(key, p.from) <= 0 { // what comes before it has smaller keys only
				to = to[:first]
			}
			to = append(to, treePage{int64(order.Uint64(e[8:])), p.levels, p.from, p.until})
		case kind == leafPage && p.levels > 0 && order.Uint32(e)&bucketFlag != 0:
			at, length := order.Uint32(e[4:]), order.Uint32(e[8:])
			key, value := bytesAt(e, at, length), bytesAt(e, at+length, 8)
			if value == nil || bytes.Compare(key, p.from) < 0 || p.until != nil && bytes.Compare(key, p.until) >= 0 {
				continue
			}
			if number := int64(order.Uint64(value)); number != 0 {
				to = append(to, treePage{number, p.levels - 1, nil, nil})
			}
		}
	}
	return to
}

// bytesAt returns some bytes of a page, or nil if they are not all in it.
func bytesAt(data []byte, at, length uint32) []byte {
	if uint64(at)+uint64(length) > uint64(len(data)) {
		return nil
	}
	return data[at : at+length]
}
