package format

import (
	"bytes"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/srodi/ebpf-server/internal/event"
)

// A line as export writes it is parsed here, in a tenth of the time that
// encoding/json takes with a map. Everything else (fractions, a field that is
// there twice or unknown, whatever is wrong) is left to that: what is an event, and
// what is said of a line that is none, is decided in Reader.record alone.

// lineParser keeps its memory from line to line.
type lineParser struct {
	fields []field
	values []assignment
	seen   []int             // by column: the line that had it last
	line   int               // counts
	ips    map[string]string // raw addresses by their texts
	scope  string            // of the last id
}

// field is a field of a line. It refers to the line's bytes, mostly.
type field struct {
	name, text []byte
	number     int64
	kind       fieldKind
}

type fieldKind uint8

const (
	fieldText fieldKind = iota
	fieldNumber
	fieldNull
	fieldDone // the type or the time
)

// maxKnown bounds the memory of what is remembered.
const maxKnown = 1 << 16

// parse returns what is in a line. The values are good until the next call. It
// reports false if the line is to be read with more care.
func (p *lineParser) parse(line []byte, types map[string]*event.Type) (t *event.Type, unixNano int64, values []assignment, ok bool) {
	if !utf8.Valid(line) || !p.split(line) {
		return nil, 0, nil, false
	}
	t, unixNano, ok = p.head(types)
	ok = ok && p.assignAll(t)
	return t, unixNano, p.values, ok
}

// head finds the type and the time, each of which must be there once.
func (p *lineParser) head(types map[string]*event.Type) (t *event.Type, unixNano int64, ok bool) {
	timed := false
	for i := range p.fields {
		f := &p.fields[i]
		switch string(f.name) {
		case "type":
			if t != nil || f.kind != fieldText {
				return nil, 0, false
			}
			if t = types[string(f.text)]; t == nil {
				return nil, 0, false
			}
		case "time":
			var at time.Time
			if timed || f.kind != fieldText || at.UnmarshalText(f.text) != nil || !inRange(at) {
				return nil, 0, false
			}
			timed, unixNano = true, at.UnixNano()
		default:
			continue
		}
		f.kind = fieldDone
	}
	return t, unixNano, t != nil && timed
}

// assignAll makes values of the other fields.
func (p *lineParser) assignAll(t *event.Type) bool {
	p.values = p.values[:0]
	p.line++
	column := 0
	for i := range p.fields {
		f := &p.fields[i]
		if f.kind == fieldDone {
			continue
		}
		next := nextColumn(t, column, f.name)
		switch {
		case next < 0 && (f.kind == fieldNull || t.IsDerived(string(f.name))): // it needs no column
			continue
		case next < 0 || !p.isFirst(t, next):
			return false
		}
		if column = next; f.kind == fieldNull {
			continue
		}
		p.values = append(p.values, assignment{column: column, kind: t.Columns[column].Kind, number: f.number})
		if !p.assign(&p.values[len(p.values)-1], &t.Columns[column], f) {
			return false
		}
	}
	return true
}

// isFirst tells whether a column is there for the first time in this line.
func (p *lineParser) isFirst(t *event.Type, column int) bool {
	if len(p.seen) < len(t.Columns) {
		p.seen = append(p.seen, make([]int, len(t.Columns)-len(p.seen))...)
	}
	last := p.seen[column]
	p.seen[column] = p.line
	return last != p.line
}

// nextColumn finds a column by its name. Mostly it is not far behind the last
// one, which takes less time than a map.
func nextColumn(t *event.Type, last int, name []byte) int {
	for i := last + 1; i < len(t.Columns); i++ {
		if t.Columns[i].Name == string(name) {
			return i
		}
	}
	for i := 1; i <= last; i++ {
		if t.Columns[i].Name == string(name) {
			return i
		}
	}
	return -1
}

// assign sets a value to that of a field.
func (p *lineParser) assign(a *assignment, c *event.Column, f *field) (ok bool) {
	if (c.Kind == event.KindInt) != (f.kind == fieldNumber) {
		return false
	}
	switch c.Kind {
	case event.KindString:
		a.raw = f.text
		return c.Values == nil || slices.ContainsFunc(c.Values, func(v string) bool { return v == string(f.text) })
	case event.KindIP:
		a.text, ok = p.ip(f.text)
		return ok
	case event.KindID:
		a.text, a.number, ok = p.id(f.text)
		return ok
	}
	return true
}

func (p *lineParser) ip(text []byte) (raw string, ok bool) {
	if raw, ok := p.ips[string(text)]; ok {
		return raw, true
	}
	raw, err := event.ParseIP(string(text))
	if err != nil {
		return "", false
	}
	if p.ips == nil || len(p.ips) >= maxKnown {
		p.ips = make(map[string]string)
	}
	p.ips[string(text)] = raw
	return raw, true
}

func (p *lineParser) id(text []byte) (scope string, n int64, ok bool) {
	cut := bytes.LastIndexByte(text, '-')
	if cut < 1 {
		return "", 0, false
	}
	u, err := strconv.ParseUint(string(text[cut+1:]), 16, 64)
	if p.scope != string(text[:cut]) {
		p.scope = string(text[:cut])
	}
	return p.scope, int64(u), err == nil
}

// split finds the fields of a line that is one flat object.
func (p *lineParser) split(line []byte) bool {
	p.fields = p.fields[:0]
	s := scanner{rest: line}
	if !s.take('{') {
		return false
	}
	for more := true; more; more = s.take(',') {
		var f field
		ok := false
		if f.name, ok = s.text(); !ok || !s.take(':') {
			return false
		}
		if f.text, f.number, f.kind, ok = s.value(); !ok {
			return false
		}
		p.fields = append(p.fields, f)
	}
	if !s.take('}') {
		return false
	}
	s.space()
	return len(s.rest) == 0
}
