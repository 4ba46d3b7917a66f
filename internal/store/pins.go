package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/query"
)

// pin is the record of a pin.
type pin struct {
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Note    string    `json:"note"`
	Created time.Time `json:"created"`
	// Kept is what there was to keep when the pin was made, by type; a type
	// that is not in it came later.
	Kept map[string][]keptSpan `json:"kept"`
}

type keptSpan struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

func (p pin) show(key []byte) query.Pin {
	return query.Pin{ID: strconv.FormatInt(getInt(key), 10), Since: p.Since, Until: p.Until, Note: p.Note, Created: p.Created}
}

// spans returns what a pin keeps of a type.
func (p pin) spans(typeName string) []span {
	kept, known := p.Kept[typeName]
	if !known {
		return []span{{p.Since.UnixNano(), p.Until.UnixNano()}}
	}
	spans := make([]span, len(kept))
	for i, k := range kept {
		spans[i] = span{k.From.UnixNano(), k.Until.UnixNano()}
	}
	return spans
}

// AddPin keeps the events of a window from being removed by retention, as far
// as they are there still. Errors about the window are a *query.ParamError.
func (s *Store) AddPin(since, until time.Time, note string) (query.Pin, error) {
	if s.options.ReadOnly {
		return query.Pin{}, ErrReadOnly
	}
	switch {
	case since.IsZero():
		return query.Pin{}, &query.ParamError{Name: "since", Reason: "is missing: a pin needs both ends"}
	case !since.Before(until):
		return query.Pin{}, &query.ParamError{Name: "until", Value: until.Format(time.RFC3339Nano), Reason: "is not after since"}
	}
	s.maintaining.Lock() // nothing goes meanwhile
	defer s.maintaining.Unlock()
	p := pin{Since: since.UTC(), Until: until.UTC(), Note: note, Created: s.now().UTC(), Kept: make(map[string][]keptSpan)}
	err := s.view(func(v *view) error {
		for name := range s.types {
			stored := max(v.storedRemoved(name), since.UnixNano())
			kept, err := v.pinned(name)
			if err != nil {
				return err
			}
			p.Kept[name] = []keptSpan{}
			for _, k := range cut(append(kept, span{stored, until.UnixNano()}), span{since.UnixNano(), until.UnixNano()}) {
				p.Kept[name] = append(p.Kept[name], keptSpan{time.Unix(0, k.from).UTC(), time.Unix(0, k.until).UTC()})
			}
		}
		return nil
	})
	if err != nil {
		return query.Pin{}, fmt.Errorf("add pin: %w", err)
	}
	var key []byte
	err = s.update(func(tx *bbolt.Tx) error {
		pins := tx.Bucket(bucketPins)
		sequence, err := pins.NextSequence()
		if err != nil {
			return err
		}
		key = putInt(int64(sequence))
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		return pins.Put(key, text)
	})
	if err != nil {
		return query.Pin{}, fmt.Errorf("add pin: %w", err)
	}
	return p.show(key), nil
}

// Pins returns all pins, in the order in which they were made.
func (s *Store) Pins() ([]query.Pin, error) {
	pins := []query.Pin{}
	err := s.view(func(v *view) error {
		return forEachPin(v.tx, func(key []byte, p pin) { pins = append(pins, p.show(key)) })
	})
	return pins, err
}

// RemovePin removes a pin, or fails with query.ErrNoPin. What only it kept is not
// shown any more, and removed by the next look for old events.
func (s *Store) RemovePin(id string) error {
	if s.options.ReadOnly {
		return ErrReadOnly
	}
	number, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return query.ErrNoPin
	}
	return s.update(func(tx *bbolt.Tx) error {
		pins := tx.Bucket(bucketPins)
		if pins.Get(putInt(number)) == nil {
			return query.ErrNoPin
		}
		return pins.Delete(putInt(number))
	})
}

func forEachPin(tx *bbolt.Tx, do func(key []byte, p pin)) error {
	return tx.Bucket(bucketPins).ForEach(func(key, value []byte) error {
		var p pin
		if err := json.Unmarshal(value, &p); err != nil {
			return fmt.Errorf("pin %x is no such thing: %w", key, err)
		}
		do(key, p)
		return nil
	})
}

// pinned returns what pins keep of a type.
func (v *view) pinned(typeName string) (spans []span, err error) {
	err = forEachPin(v.tx, func(_ []byte, p pin) { spans = append(spans, p.spans(typeName)...) })
	return spans, err
}

// visible returns the parts of a span that answers about a type may show,
// oldest first: what is not removed or about to be, and what is pinned.
func (v *view) visible(typeName string, asked span) ([]span, error) {
	spans, err := v.pinned(typeName)
	return cut(append(spans, span{v.removed(typeName), asked.until}), asked), err
}

// firstVisible returns the first time from one on that answers may show, or
// MaxInt64.
func (v *view) firstVisible(typeName string, from int64) (int64, error) {
	visible, err := v.visible(typeName, span{from, allTime.until})
	if err != nil || len(visible) == 0 {
		return allTime.until, err
	}
	return visible[0].from, nil
}

// cut returns the parts of spans that lie in another, joined and in order.
func cut(spans []span, in span) (joined []span) {
	slices.SortFunc(spans, func(a, b span) int {
		if a.from < b.from {
			return -1
		}
		return 1
	})
	for _, s := range spans {
		s = span{max(s.from, in.from), min(s.until, in.until)}
		if s.from >= s.until {
			continue
		}
		if n := len(joined); n > 0 && s.from <= joined[n-1].until {
			joined[n-1].until = max(joined[n-1].until, s.until)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}
