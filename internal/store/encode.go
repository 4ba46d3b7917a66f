package store

import (
	"cmp"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// encodedChunk is a chunk on its way to the file.
type encodedChunk struct {
	typeName string
	hour     int64
	rows     int64
	min, max int64
	value    []byte
}

// encodedPart is a part on its way to the file.
type encodedPart struct {
	chunks []encodedChunk
	sealed []*sealed
}

// encodePart makes chunks of a part's events, by type and hour, and blocks where
// there are many: these need not be rows first. Hours are encoded side by side.
func (s *Store) encodePart(p *part) encodedPart {
	joined := make(map[hourOfType]*event.Batch)
	for _, m := range p.batches {
		at := m.place()
		if joined[at] == nil {
			joined[at] = event.NewBatch(m.Type, 0)
		}
		joined[at].AppendRows(m.Batch, nil)
	}
	places := slices.SortedFunc(maps.Keys(joined), func(a, b hourOfType) int {
		return cmp.Or(cmp.Compare(a.typeName, b.typeName), cmp.Compare(a.hour, b.hour))
	})
	ofPlace := make([]encodedPart, len(places))
	var group sync.WaitGroup
	slots := make(chan struct{}, min(runtime.GOMAXPROCS(0), maxWorkers))
	for i, at := range places {
		slots <- struct{}{}
		group.Go(func() {
			ofPlace[i] = s.encodeHour(at, joined[at])
			<-slots
		})
	}
	group.Wait()
	var all encodedPart
	for _, of := range ofPlace {
		all.chunks, all.sealed = append(all.chunks, of.chunks...), append(all.sealed, of.sealed...)
	}
	return all
}

// encodeHour makes a chunk or blocks of new events of an hour. Rows that the
// hour has already are older: they go into the blocks before them.
func (s *Store) encodeHour(at hourOfType, b *event.Batch) (e encodedPart) {
	over := s.isOver(at.hour)
	if b.Len() >= block.MaxRows || over && b.Len() >= directRows {
		ready, rest, err := s.encodeDirect(at, b, over)
		if err == nil {
			e.sealed = []*sealed{ready}
			if rest != nil {
				e.chunks = s.encodeBatch(nil, rest, at.hour)
			}
			return e
		}
		s.log.Warn("cannot make blocks of new events; they are stored as rows", "type", at.typeName, "error", err)
	}
	e.chunks = s.encodeBatch(nil, block.Sort(b), at.hour)
	return e
}

// encodeDirect makes full blocks, and one of the rest if the hour is over.
func (s *Store) encodeDirect(at hourOfType, b *event.Batch, over bool) (ready *sealed, rest *event.Batch, err error) {
	ready, joined, err := s.readRows(at, math.MaxInt)
	if err != nil {
		return nil, nil, err
	}
	ready.partly = false
	if joined.Len() > 0 {
		joined.AppendRows(b, nil)
		b = joined
	}
	b = block.Sort(b)
	var pieces []*event.Batch
	for from := 0; from < b.Len(); from += block.MaxRows {
		piece := slice(b, from, min(from+block.MaxRows, b.Len()))
		if piece.Len() < block.MaxRows && !over {
			rest = piece
			break
		}
		pieces = append(pieces, piece)
	}
	return ready, rest, s.encodeSealed(ready, pieces...)
}

// slice returns a copy of some rows, or the batch itself if that is all of it.
func slice(b *event.Batch, from, until int) *event.Batch {
	if from == 0 && until == b.Len() {
		return b
	}
	piece := event.NewBatch(b.Type, until-from)
	piece.AppendRows(b, allRows(b.Len())[from:until])
	return piece
}

// encodeBatch halves a batch until each piece fits into a chunk.
func (s *Store) encodeBatch(chunks []encodedChunk, b *event.Batch, hour int64) []encodedChunk {
	times := b.Columns[event.Time].Ints
	value, ok := s.codec.encode(b, s.schemas.latest[b.Type.Name])
	if ok {
		return append(chunks, encodedChunk{
			typeName: b.Type.Name, hour: hour, rows: int64(len(times)),
			min: times[0], max: times[len(times)-1], value: value,
		})
	}
	if len(times) == 1 {
		s.log.Error("cannot store an event of more than 32 MiB", "type", b.Type.Name)
		s.Lost(b.Type.Name, placeWriteFailed, 1)
		return chunks
	}
	half := len(times) / 2
	chunks = s.encodeBatch(chunks, slice(b, 0, half), hour)
	return s.encodeBatch(chunks, slice(b, half, len(times)), hour)
}

func rowsByHour(b *event.Batch) map[int64][]int32 {
	hours := make(map[int64][]int32)
	for row, t := range b.Columns[event.Time].Ints {
		hour := hourOf(t)
		hours[hour] = append(hours[hour], int32(row))
	}
	return hours
}

func allRows(n int) []int32 {
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(i)
	}
	return rows
}
