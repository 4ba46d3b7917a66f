package store

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

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
	batches, latest := make(map[hourOfType][]*event.Batch), p.latestHours()
	for _, m := range p.batches {
		batches[m.place()] = append(batches[m.place()], m.Batch)
	}
	places := slices.SortedFunc(maps.Keys(batches), func(a, b hourOfType) int {
		return cmp.Or(cmp.Compare(a.typeName, b.typeName), cmp.Compare(a.hour, b.hour))
	})
	ofPlace := make([]encodedPart, len(places))
	var group sync.WaitGroup
	slots := make(chan struct{}, processors())
	for i, at := range places {
		slots <- struct{}{}
		group.Go(func() {
			ofPlace[i] = s.encodeHour(at, batches[at], at.hour < latest[at.typeName])
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

// join returns a copy of the events of batches as one, by time, with no other texts than
// theirs.
func join(batches []*event.Batch) *event.Batch {
	joined := event.NewBatch(batches[0].Type, eventsIn(batches))
	for _, b := range batches {
		joined.AppendRows(b, nil)
	}
	return event.Sort(joined)
}

func eventsIn(batches []*event.Batch) (rows int) {
	for _, b := range batches {
		rows += b.Len()
	}
	return rows
}

// encodeHour makes a chunk or blocks of new events of an hour. Rows that the
// hour has already are older: they go into the blocks before them. Done means
// that there are events of a later hour.
func (s *Store) encodeHour(at hourOfType, batches []*event.Batch, done bool) (e encodedPart) {
	rows, over := eventsIn(batches), s.isOver(at.hour)
	if rows >= block.MaxRows || over && rows >= directRows || over && done && rows >= doneRows {
		ready, rest, err := s.encodeDirect(at, batches, over)
		if err == nil {
			e.sealed = []*sealed{ready}
			if rest != nil {
				e.chunks = s.encodeBatch(nil, rest, at.hour)
			}
			return e
		}
		s.log.Warn("cannot make blocks of new events; they are stored as rows", "type", at.typeName, "error", err)
	}
	e.chunks = s.encodeBatch(nil, join(batches), at.hour)
	return e
}

// encodeDirect makes full blocks, and one of the rest if the hour is over.
func (s *Store) encodeDirect(at hourOfType, batches []*event.Batch, over bool) (ready *sealed, rest *event.Batch, err error) {
	ready, rows, err := s.readRows(at, math.MaxInt)
	if err != nil {
		return nil, nil, err
	}
	ready.partly = false
	if rows.Len() > 0 {
		batches = slices.Concat([]*event.Batch{rows}, batches)
	}
	events := s.sequence(batches...)
	defer s.forgetSequence(events)
	end := events.Len()
	if left := end % block.MaxRows; left > 0 && !over {
		end -= left
		rest = events.Batch(end, events.Len())
	}
	return ready, rest, s.encodeSealed(ready, events, end)
}

// slice returns some rows of a batch, in its memory; only for reading.
func slice(b *event.Batch, from, until int) *event.Batch {
	piece := &event.Batch{Type: b.Type, Columns: make([]event.Vector, len(b.Columns))}
	for i := range b.Columns {
		piece.Columns[i] = b.Columns[i].Slice(from, until)
	}
	return piece
}

// cloneRows returns a copy of some rows, with no other texts than theirs.
func cloneRows(b *event.Batch, from, until int) *event.Batch {
	piece := event.NewBatch(b.Type, until-from)
	piece.AppendRows(slice(b, from, until), nil)
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
		s.Lost(b.Type.Name, placeWriteFailed, time.Time{}, b.Weight())
		return chunks
	}
	half := len(times) / 2
	chunks = s.encodeBatch(chunks, cloneRows(b, 0, half), hour)
	return s.encodeBatch(chunks, cloneRows(b, half, len(times)), hour)
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
