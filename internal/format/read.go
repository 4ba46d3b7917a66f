package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
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
	types   map[string]*event.Type
	parsers sync.Pool // of *lineParser
	texts   sync.Pool // of *[]byte: those of parts
}

// NewReader returns a reader of events of these types.
func NewReader(types []*event.Type) *Reader {
	r := &Reader{types: map[string]*event.Type{}}
	r.parsers.New = func() any { return new(lineParser) }
	for _, t := range types {
		r.types[t.Name] = t
	}
	return r
}

// batchRows is the size of the batches that are handed on: about, as a piece of
// a Parquet file is added as a whole.
const batchRows = 8192

// Take is called with the next events of a file, a batch of each type that is
// among them. It owns the batches.
type Take func([]*event.Batch) error

// collector gathers events in batches, one for each type.
type collector struct {
	take    Take
	batches []*event.Batch
	rows    map[*event.Type]int // of the last batch: the next one will have about as many
}

func (c *collector) batch(t *event.Type) *event.Batch {
	for _, b := range c.batches {
		if b.Type == t {
			return b
		}
	}
	b := event.NewBatch(t, max(c.rows[t], 256))
	c.batches = append(c.batches, b)
	return b
}

func (c *collector) add(t *event.Type, unixNano int64, values []assignment) error {
	b := c.batch(t)
	b.Append(unixNano)
	for i := range values {
		values[i].set(b)
	}
	return c.full(b)
}

// addRows adds some rows of a batch, nil for all.
func (c *collector) addRows(from *event.Batch, rows []int32) error {
	b := c.batch(from.Type)
	b.AppendRows(from, rows)
	return c.full(b)
}

func (c *collector) full(b *event.Batch) error {
	if b.Len() < batchRows {
		return nil
	}
	return c.rest()
}

// rest hands on what there is.
func (c *collector) rest() error {
	batches := c.batches
	if c.batches = nil; len(batches) == 0 {
		return nil
	}
	c.rows = make(map[*event.Type]int)
	for _, b := range batches {
		c.rows[b.Type] = b.Len()
	}
	return c.take(batches)
}

// fieldError says which field of a record is wrong.
type fieldError struct {
	field, reason string
}

// isBad tells whether an error is about a record, not about reading it.
func isBad(err error) bool {
	var problem *fieldError
	return err != nil && errors.As(err, &problem)
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
	raw    []byte // a text that is not a string yet; nil: see text
	number int64
}

func (a *assignment) set(b *event.Batch) {
	if a.raw != nil {
		b.SetBytes(a.column, a.raw)
		return
	}
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
	values := make([]assignment, 0, len(fields))
	for field, value := range fields {
		if field == "type" || field == "time" || value == nil {
			continue
		}
		i, ok := t.Column(field)
		if !ok && t.IsDerived(field) {
			continue
		}
		if !ok {
			return &fieldError{field, "is not a field of type " + name}
		}
		a, err := assign(i, t.Columns[i], value)
		if err != nil {
			return &fieldError{field, err.Error()}
		}
		values = append(values, a)
	}
	return c.add(t, at, values)
}

var errRange = errors.New("is out of range (1678 to 2262)")

func parseTime(value any) (int64, error) {
	var at time.Time
	switch value := value.(type) {
	case int64: // Parquet, in nanoseconds
		return value, nil
	case time.Time: // Parquet, in another unit
		at = value
	case string:
		var err error
		if at, err = time.Parse(time.RFC3339Nano, value); err != nil {
			return 0, fmt.Errorf("%q is not a time (RFC 3339)", value)
		}
	default:
		return 0, errors.New("is missing, or not text")
	}
	if !inRange(at) {
		return 0, errRange
	}
	return at.UnixNano(), nil
}

// inRange tells whether a time can be held as nanoseconds in 64 bits.
func inRange(at time.Time) bool {
	return !at.Before(time.Unix(0, math.MinInt64)) && !at.After(time.Unix(0, math.MaxInt64))
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
