package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/store"
)

// reportedBad bounds how many bad records an error lists.
const reportedBad = 10

// Import is events on their way into a db file.
type Import struct {
	Store   *store.Store
	Types   []*event.Type
	SkipBad bool              // leave out records that are no events, and count them
	Passed  func(bytes int64) // called as the input is read
}

// Result says what came of an import.
type Result struct {
	Events  int64
	Skipped int64
}

// ErrBadRecords is returned, with what is wrong in them, when records are no
// events. Nothing was imported then.
var ErrBadRecords = errors.New("records are no events; nothing was imported (--skip-bad leaves them out)")

// File imports a file, NDJSON or Parquet by its first bytes. Unless bad records
// are skipped the file is read twice: it is imported whole or not at all.
func (im *Import) File(ctx context.Context, file *os.File) (Result, error) {
	info, err := file.Stat()
	if err != nil {
		return Result{}, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if !im.SkipBad {
		if err := im.check(ctx, file, info.Size()); err != nil {
			return Result{}, fmt.Errorf("import %s: %w", file.Name(), err)
		}
	}
	var r Result
	take := func(batches []*event.Batch) error {
		for _, b := range batches {
			r.Events += int64(b.Len())
			if err := im.Store.AppendWait(ctx, b); err != nil {
				return err
			}
		}
		return nil
	}
	err = im.read(ctx, file, info.Size(), take, func(*format.BadRecord) error {
		r.Skipped++
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("import %s: %w", file.Name(), err)
	}
	return r, im.Store.Flush()
}

// check reads everything and keeps nothing.
func (im *Import) check(ctx context.Context, file *os.File, size int64) error {
	var bad []string
	n := 0
	err := im.read(ctx, file, size, func([]*event.Batch) error { return nil }, func(b *format.BadRecord) error {
		if n++; n <= reportedBad {
			bad = append(bad, b.Error())
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case n > reportedBad:
		bad = append(bad, fmt.Sprintf("and %d more", n-reportedBad))
		fallthrough
	case n > 0:
		return fmt.Errorf("%d %w\n%s", n, ErrBadRecords, strings.Join(bad, "\n"))
	}
	return nil
}

var parquetMagic = []byte("PAR1")

func (im *Import) read(ctx context.Context, file *os.File, size int64, take format.Take, bad func(*format.BadRecord) error) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	begin := make([]byte, len(parquetMagic))
	n, err := file.ReadAt(begin, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	in := &counted{ctx: ctx, file: file, passed: im.Passed}
	if bytes.Equal(begin[:n], parquetMagic) {
		return format.NewReader(im.Types).Parquet(in, size, take, bad)
	}
	return format.NewReader(im.Types).NDJSON(in, take, bad)
}

// counted tells how much was read, and ends with its context.
type counted struct {
	ctx    context.Context
	file   *os.File
	passed func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.file.Read(p)
	c.passed(int64(n))
	return n, err
}

func (c *counted) ReadAt(p []byte, at int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.file.ReadAt(p, at)
	c.passed(int64(n))
	return n, err
}

// Spool copies a stream, such as standard input, to a temporary file, which is
// gone when the returned function is called: a stream can be read only once.
func Spool(in io.Reader, dir string) (*os.File, func(), error) {
	file, err := os.CreateTemp(dir, ".ebpf-server-import-*")
	if err != nil {
		return nil, nil, fmt.Errorf("keep standard input: %w", err)
	}
	remove := func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}
	if _, err := io.Copy(file, in); err != nil {
		remove()
		return nil, nil, fmt.Errorf("keep standard input: %w", err)
	}
	return file, remove, nil
}
