package format

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// maxLine bounds the memory that a line of NDJSON takes.
	maxLine = 1 << 20
	// partSize is how much text is parsed at a time, each part beside others.
	partSize = 2 << 20
	// maxParts that wait for the caller, with what was made of them, are 40 MB.
	maxParts = 8
)

// NDJSON reads one event a line; empty lines are skipped. A line that is no event
// goes to bad, as a *BadRecord; what bad returns, if not nil, ends it.
func (r *Reader) NDJSON(in io.Reader, take Take, bad func(*BadRecord) error) error {
	parts, stop := make(chan *part, min(runtime.GOMAXPROCS(0), maxParts)), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { r.readParts(in, parts, stop) })
	defer reading.Wait()
	defer close(stop)
	for p := range parts {
		<-p.parsed
		for _, b := range p.bad {
			if err := bad(b); err != nil {
				return err
			}
		}
		for _, batches := range p.batches {
			if err := take(batches); err != nil {
				return err
			}
		}
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// part is some lines.
type part struct {
	first  int64 // number of the first line
	text   []byte
	err    error         // of reading what comes after them
	parsed chan struct{} // closed when the lines are parsed

	batches [][]*event.Batch
	bad     []*BadRecord
}

// readParts sends parts in the order of the file; each is parsed meanwhile.
func (r *Reader) readParts(in io.Reader, parts chan<- *part, stop <-chan struct{}) {
	defer close(parts)
	l := lines{in: bufio.NewReaderSize(in, 1<<18)}
	for number, more := int64(1), true; more; {
		p := &part{first: number, parsed: make(chan struct{})}
		if text, ok := r.texts.Get().(*[]byte); ok {
			p.text = *text
		}
		number, more = l.part(p)
		select {
		case parts <- p:
		case <-stop:
			return
		}
		go func() {
			defer close(p.parsed)
			r.parsePart(p)
		}()
	}
}

func (r *Reader) parsePart(p *part) {
	parser := r.parsers.Get().(*lineParser)
	defer r.parsers.Put(parser)
	c := collector{take: func(batches []*event.Batch) error {
		p.batches = append(p.batches, batches)
		return nil
	}}
	text := p.text
	for number := p.first; len(text) > 0; number++ {
		end := bytes.IndexByte(text, '\n')
		line := text[:end]
		text = text[end+1:]
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err := r.line(line, parser, &c); err != nil {
			p.bad = append(p.bad, &BadRecord{number, err})
		}
	}
	_ = c.rest() // what it calls here never fails
	slices.SortStableFunc(p.bad, func(a, b *BadRecord) int { return cmp.Compare(a.Number, b.Number) })
	text = p.text[:0]
	p.text = nil
	r.texts.Put(&text) // no batch refers to it
}

func (r *Reader) line(line []byte, parser *lineParser, c *collector) error {
	if t, at, values, ok := parser.parse(line, r.types); ok {
		return c.add(t, at, values)
	}
	return r.anyLine(line, c)
}

// anyLine says what is wrong with a line, or adds it.
func (r *Reader) anyLine(line []byte, c *collector) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber() // 64 bits do not fit in a float64
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil || fields == nil {
		return &fieldError{"", "is not a JSON object"}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return &fieldError{"", "has more than one JSON object"}
	}
	return r.record(fields, c)
}

// lines reads line by line.
type lines struct {
	in   *bufio.Reader
	long []byte // a line that is longer than the reader's buffer
}

var errTooLong = &fieldError{"", fmt.Sprintf("has more than %d bytes", maxLine)}

// part fills a part, and returns the number of the line after it, if there may
// be one.
func (l *lines) part(p *part) (next int64, more bool) {
	next = p.first
	for len(p.text) < partSize {
		line, err := l.next()
		switch {
		case errors.Is(err, io.EOF):
			return next, false
		case errors.Is(err, errTooLong): // and is an empty line in the text
			p.bad = append(p.bad, &BadRecord{next, err})
		case err != nil:
			p.err = fmt.Errorf("read line %d: %w", next, err)
			return next, false
		}
		if p.text == nil {
			p.text = make([]byte, 0, partSize+partSize/8)
		}
		p.text = append(append(p.text, line...), '\n')
		next++
	}
	return next, true
}

// next returns the next line without its end. It is good until the next call.
func (l *lines) next() ([]byte, error) {
	line, err := l.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.longer(line)
	}
	if errors.Is(err, io.EOF) && len(line) > 0 { // the last line has no end
		err = nil
	}
	if err == nil && len(line) > maxLine {
		return nil, errTooLong
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// longer reads the rest of a line, and keeps what shows that it is too long.
func (l *lines) longer(line []byte) (_ []byte, err error) {
	l.long = append(l.long[:0], line...)
	for err = bufio.ErrBufferFull; errors.Is(err, bufio.ErrBufferFull); {
		line, err = l.in.ReadSlice('\n')
		if len(l.long) <= maxLine {
			l.long = append(l.long, line...)
		}
	}
	return l.long, err
}
