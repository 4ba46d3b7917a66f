package query

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
)

// Cursor says which event of an answer was delivered last, or first: what is asked
// for comes after it or before it. It stays good while events come in, get written
// to the file and sealed, and over restarts: all that it relies on is that the
// events of one time and type keep their order.
type Cursor struct {
	Back     bool   // what comes before the event is asked for, in the order of the answer
	Time     int64  // of that event
	Type     string // of that event
	Rank     int    // its place among the matching events of just that time and type, in the order they came in
	Question uint64 // Events.Question of the query it belongs to
}

// These change when a cursor of an older program must not be used any more.
const (
	cursorVersion     = 1
	backCursorVersion = 2 // of one that is Back
)

// String returns the cursor as text that is good in a URL.
func (c Cursor) String() string {
	raw := []byte{cursorVersion}
	if c.Back {
		raw[0] = backCursorVersion
	}
	raw = binary.BigEndian.AppendUint64(raw, c.Question)
	raw = binary.BigEndian.AppendUint64(raw, uint64(c.Time))
	raw = binary.AppendUvarint(raw, uint64(c.Rank))
	raw = append(raw, c.Type...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// ParseCursor reads the text of a cursor. Errors are a *ParamError.
func ParseCursor(text string) (*Cursor, error) {
	bad := &ParamError{Name: "cursor", Value: text, Reason: "is not a cursor that this program gave out; ask again without it"}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) < 18 || raw[0] != cursorVersion && raw[0] != backCursorVersion {
		return nil, bad
	}
	rank, n := binary.Uvarint(raw[17:])
	if n <= 0 || rank > 1<<40 || len(raw) == 17+n {
		return nil, bad
	}
	return &Cursor{
		Back:     raw[0] == backCursorVersion,
		Question: binary.BigEndian.Uint64(raw[1:]),
		Time:     int64(binary.BigEndian.Uint64(raw[9:])),
		Rank:     int(rank),
		Type:     string(raw[17+n:]),
	}, nil
}

// Question tells questions apart: it is the same for the same types, filters
// and order. The window is left out, because a relative one moves between pages.
func (q Events) Question() uint64 {
	words := []string{strconv.FormatBool(q.Ascending)}
	for _, t := range q.Types {
		words = append(words, t.Name)
	}
	slices.Sort(words)
	filters := slices.SortedFunc(slices.Values(q.Filters), func(a, b Filter) int {
		return cmp.Or(cmp.Compare(a.Column, b.Column), cmp.Compare(a.Op, b.Op), slices.Compare(a.Values, b.Values))
	})
	for _, f := range filters {
		words = append(words, "", f.Column+string(f.Op))
		words = append(words, slices.Sorted(slices.Values(f.Values))...)
	}
	hash := fnv.New64a()
	for _, word := range words {
		hash.Write(strconv.AppendQuote(nil, word)) // quotes keep neighbours apart; a hash never fails to write
	}
	return hash.Sum64()
}

// Validate reports what is wrong with a query, as a *ParamError.
func (q Events) Validate() error {
	switch {
	case len(q.Types) == 0:
		return &ParamError{Name: "type", Reason: "is missing: at least one is needed"}
	case q.Limit < 0:
		return &ParamError{Name: "limit", Value: strconv.Itoa(q.Limit), Reason: "is negative"}
	case q.Cursor != nil && q.Cursor.Back && (q.Limit == 0 || q.Limit > MaxLimit): // it is turned round in memory
		return &ParamError{Name: "limit", Reason: "must be a number from 1 to " + strconv.Itoa(MaxLimit) + " to go back"}
	case q.Cursor != nil && q.Cursor.Question != q.Question():
		return &ParamError{Name: "cursor", Value: q.Cursor.String(), Reason: "belongs to a question with other types, filters or order; ask again without it"}
	}
	return q.Window.Validate()
}
