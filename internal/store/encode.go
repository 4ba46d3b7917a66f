package store

import (
	"cmp"
	"maps"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
)

// encodedChunk is a chunk on its way to the file.
type encodedChunk struct {
	typeName string
	hour     int64
	rows     int64
	min, max int64
	value    []byte
}

// encodePart makes the chunks of a part, by type, hour and time.
func (s *Store) encodePart(p *part) []encodedChunk {
	type place struct {
		typeName string
		hour     int64
	}
	joined := make(map[place]*event.Batch)
	join := func(b *event.Batch, hour int64, rows []int32) {
		at := place{b.Type.Name, hour}
		if joined[at] == nil {
			joined[at] = event.NewBatch(b.Type, 0)
		}
		joined[at].AppendRows(b, rows)
	}
	for _, m := range p.batches {
		if hour := hourOf(m.min); hour == hourOf(m.max) {
			join(m.Batch, hour, nil)
			continue
		}
		for hour, rows := range rowsByHour(m.Batch) {
			join(m.Batch, hour, rows)
		}
	}
	places := slices.SortedFunc(maps.Keys(joined), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.typeName, b.typeName), cmp.Compare(a.hour, b.hour))
	})
	var chunks []encodedChunk
	for _, at := range places {
		b := joined[at]
		if order := timeOrder(b); order != nil {
			b = event.NewBatch(b.Type, len(order))
			b.AppendRows(joined[at], order)
		}
		chunks = s.encodeBatch(chunks, b, at.hour)
	}
	return chunks
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
	rows := allRows(len(times))
	for _, rows := range [][]int32{rows[:len(rows)/2], rows[len(rows)/2:]} {
		piece := event.NewBatch(b.Type, len(rows))
		piece.AppendRows(b, rows)
		chunks = s.encodeBatch(chunks, piece, hour)
	}
	return chunks
}

func rowsByHour(b *event.Batch) map[int64][]int32 {
	hours := make(map[int64][]int32)
	for row, t := range b.Columns[event.Time].Ints {
		hour := hourOf(t)
		hours[hour] = append(hours[hour], int32(row))
	}
	return hours
}

// timeOrder returns the rows of a batch sorted by time, those of one time in
// the order in which they came, or nil if they are sorted already.
func timeOrder(b *event.Batch) []int32 {
	times := b.Columns[event.Time].Ints
	if slices.IsSorted(times) {
		return nil
	}
	order := allRows(len(times))
	slices.SortStableFunc(order, func(x, y int32) int { return cmp.Compare(times[x], times[y]) })
	return order
}

func allRows(n int) []int32 {
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(i)
	}
	return rows
}
