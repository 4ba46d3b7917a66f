package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// BadRecord is a line of NDJSON, or a row of a Parquet file, that is no event.
type BadRecord struct {
	Number int64 // counted from 1
	Err    error
}

// Error says which record is bad and why.
func (b *BadRecord) Error() string { return fmt.Sprintf("record %d: %v", b.Number, b.Err) }

// Unwrap returns the cause.
func (b *BadRecord) Unwrap() error { return b.Err }

// Reader reads events of known types.
type Reader struct {
	types  map[string]*event.Type
	values []assignment // scratch
}

// NewReader returns a reader of events of these types.
func NewReader(types []*event.Type) *Reader {
	r := &Reader{types: map[string]*event.Type{}}
	for _, t := range types {
		r.types[t.Name] = t
	}
	return r
}

// batchRows is the size of the batches that are handed on.
const batchRows = 8192

// collector gathers events in batches, one for each type.
type collector struct {
	take    func(*event.Batch) error
	batches map[*event.Type]*event.Batch
}

func (c *collector) add(t *event.Type, unixNano int64, values []assignment) error {
	b := c.batches[t]
	if b == nil {
		b = event.NewBatch(t, 256)
		c.batches[t] = b
	}
	b.Append(unixNano)
	for _, v := range values {
		v.set(b)
	}
	if b.Len() < batchRows {
		return nil
	}
	delete(c.batches, t)
	return c.take(b)
}

func (c *collector) rest() error {
	for _, b := range c.batches {
		if err := c.take(b); err != nil {
			return err
		}
	}
	return nil
}

// fieldError says which field of a record is wrong.
type fieldError struct {
	field, reason string
}

func (e *fieldError) Error() string {
	if e.field == "" {
		return e.reason
	}
	return e.field + ": " + e.reason
}

// assignment is a value that was checked and is to be set.
type assignment struct {
	column int
	kind   event.Kind
	text   string
	number int64
}

func (a assignment) set(b *event.Batch) {
	switch a.kind {
	case event.KindInt:
		b.SetInt(a.column, a.number)
	case event.KindID:
		b.SetID(a.column, a.text, a.number)
	default: // an IP address is its raw bytes already
		b.SetString(a.column, a.text)
	}
}

// record checks all fields before anything is set: a record is taken whole or
// not at all.
func (r *Reader) record(fields map[string]any, c *collector) error {
	name, _ := fields["type"].(string)
	t, ok := r.types[name]
	if !ok {
		return &fieldError{"type", fmt.Sprintf("%q is not a known type of events", name)}
	}
	at, err := parseTime(fields["time"])
	if err != nil {
		return &fieldError{"time", err.Error()}
	}
	r.values = r.values[:0]
	for field, value := range fields {
		if field == "type" || field == "time" || value == nil {
			continue
		}
		i, ok := t.Column(field)
		if !ok {
			return &fieldError{field, "is not a field of type " + name}
		}
		a, err := assign(i, t.Columns[i], value)
		if err != nil {
			return &fieldError{field, err.Error()}
		}
		r.values = append(r.values, a)
	}
	return c.add(t, at, r.values)
}

var errRange = errors.New("is out of range (1678 to 2262)")

func parseTime(value any) (int64, error) {
	if n, ok := value.(int64); ok { // Parquet
		return n, nil
	}
	text, ok := value.(string)
	if !ok {
		return 0, errors.New("is missing, or not text")
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time (RFC 3339)", text)
	}
	if at.Before(time.Unix(0, math.MinInt64)) || at.After(time.Unix(0, math.MaxInt64)) {
		return 0, errRange
	}
	return at.UnixNano(), nil
}

func assign(i int, c event.Column, value any) (a assignment, err error) {
	a = assignment{column: i, kind: c.Kind}
	if c.Kind == event.KindInt {
		switch n := value.(type) {
		case int64:
			a.number = n
		case json.Number:
			if a.number, err = n.Int64(); err != nil {
				return a, fmt.Errorf("%s is not a whole number of 64 bits", n)
			}
		default:
			return a, errors.New("is not a number")
		}
		return a, nil
	}
	text, ok := value.(string)
	if !ok {
		return a, errors.New("is not text")
	}
	switch {
	case c.Kind == event.KindIP:
		a.text, err = event.ParseIP(text)
	case c.Kind == event.KindID:
		a.text, a.number, err = event.ParseID(text)
	case c.Values != nil && !slices.Contains(c.Values, text):
		err = fmt.Errorf("%q is not one of %s", text, strings.Join(c.Values, ", "))
	default:
		a.text = text
	}
	return a, err
}
