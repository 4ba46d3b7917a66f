package format

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/srodi/ebpf-server/internal/event"
)

// maxLine bounds the memory that a line of NDJSON takes.
const maxLine = 1 << 20

// NDJSON reads one event a line; empty lines are skipped. Batches go to take,
// which owns them. A line that is no event goes to bad, as a *BadRecord; what
// bad returns, if not nil, ends it.
func (r *Reader) NDJSON(in io.Reader, take func(*event.Batch) error, bad func(*BadRecord) error) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	c := collector{take: take, batches: map[*event.Type]*event.Batch{}}
	for number := int64(1); ; number++ {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return c.rest()
		}
		var tooLong *lineTooLong
		if err != nil && !errors.As(err, &tooLong) {
			return fmt.Errorf("read line %d: %w", number, err)
		}
		if err == nil && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err == nil {
			err = r.line(line, &c)
		}
		var problem *fieldError
		switch {
		case errors.As(err, &problem) || tooLong != nil:
			if err := bad(&BadRecord{number, err}); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

type lineTooLong struct{}

func (*lineTooLong) Error() string { return fmt.Sprintf("has more than %d bytes", maxLine) }

// readLine returns the next line without its end.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxLine; !long {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && (len(line) > 0 || long), err == nil:
			if long {
				return nil, &lineTooLong{}
			}
			return bytes.TrimRight(line, "\r\n"), nil
		default:
			return nil, err
		}
	}
}

func (r *Reader) line(line []byte, c *collector) error {
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
