package store

import (
	"maps"
	"slices"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// maxEncoders and as many buffers are kept: as many as are in use at once while
// much is written. Each has some MB.
const maxEncoders = 2

// spares are things with large buffers, kept for who needs one next. A sync.Pool
// is emptied with each collection of garbage, and many of these are because of
// what is made anew then.
type spares[T any] chan T

// get returns one, or false.
func (s spares[T]) get() (spare T, ok bool) {
	select {
	case spare = <-s:
		return spare, true
	default:
		return spare, false
	}
}

// put keeps one, unless there are enough.
func (s spares[T]) put(spare T) {
	select {
	case s <- spare:
	default:
	}
}

func (s spares[T]) drop() {
	for {
		if _, ok := s.get(); !ok {
			return
		}
	}
}

// sparesOfType are those for events of a type.
type sparesOfType struct {
	sequences spares[*event.Sequence]
	counts    spares[*query.Aggregator] // made by query.NewRollup
}

func newSparesOfType() sparesOfType {
	return sparesOfType{make(spares[*event.Sequence], maxEncoders), make(spares[*query.Aggregator], maxEncoders)}
}

// dropSpares is for times in which little is written.
func (s *Store) dropSpares() {
	s.encoders.drop()
	s.buffers.drop()
	for of := range maps.Values(s.spares) {
		of.sequences.drop()
		of.counts.drop()
	}
}

// sequence returns batches of one type as one. It goes to forgetSequence.
func (s *Store) sequence(batches ...*event.Batch) *event.Sequence {
	events, ok := s.spares[batches[0].Type.Name].sequences.get()
	if !ok {
		events = new(event.Sequence)
	}
	events.Set(batches...)
	return events
}

func (s *Store) forgetSequence(events *event.Sequence) {
	of := s.spares[events.Type().Name].sequences
	events.Forget()
	of.put(events)
}

// newCount returns what counts events for a rollup. It goes to forgetCount.
func (s *Store) newCount(t *event.Type) *query.Aggregator {
	if count, ok := s.spares[t.Name].counts.get(); ok {
		return count
	}
	return query.NewRollup(t)
}

func (s *Store) forgetCount(t *event.Type, count *query.Aggregator) {
	count.Reset()
	s.spares[t.Name].counts.put(count)
}

// buffer returns an empty buffer for a block.
func (s *Store) buffer(size int) []byte {
	b, _ := s.buffers.get()
	return slices.Grow(b[:0], size)
}

// encoder returns an encoder, which is to be put to the spare ones.
func (s *Store) encoder() (*block.Encoder, error) {
	if e, ok := s.encoders.get(); ok {
		return e, nil
	}
	return block.NewEncoder()
}
