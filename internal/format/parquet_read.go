package format

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
)

// windowRows is how many rows of a Parquet file are looked at together. Texts
// that are not in a dictionary are held as often as they occur in so many.
const windowRows = 1 << 14

// Parquet reads a Parquet file with the fields that are written here. A row that
// is no event goes to bad, as a *BadRecord; what bad returns, if not nil, ends it.
func (r *Reader) Parquet(in io.ReaderAt, size int64, take Take, bad func(*BadRecord) error) (err error) {
	defer func() {
		// The library panics on some damaged files.
		if cause := recover(); cause != nil {
			err = fmt.Errorf("read Parquet: file is damaged: %v", cause)
		}
	}()
	file, err := parquet.OpenFile(in, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(1<<16))
	if err != nil {
		return fmt.Errorf("read Parquet: %w", err)
	}
	w := window{r: r, c: &collector{take: take}, bad: bad}
	for _, group := range file.RowGroups() {
		if err := w.rowGroup(file.Schema(), group); err != nil {
			return err
		}
	}
	return w.c.rest()
}

func (w *window) rowGroup(schema *parquet.Schema, group parquet.RowGroup) (err error) {
	w.columns = nil
	defer func() {
		for _, c := range w.columns {
			c.close()
		}
	}()
	chunks := group.ColumnChunks()
	if len(chunks) == 0 {
		return nil // whatever number of rows it claims to have
	}
	for i, path := range schema.Columns() {
		leaf, _ := schema.Lookup(path...)
		c, err := newFileColumn(leaf, chunks[i])
		if err != nil {
			return fmt.Errorf("read Parquet: %w", err)
		}
		w.columns = append(w.columns, c)
	}
	for left := group.NumRows(); left > 0; left -= int64(w.n) {
		w.n = int(min(left, windowRows))
		for _, c := range w.columns {
			if err := c.read(w.n); err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("read Parquet: row %d: column %s: %w", w.done+1, c.name, err)
			}
		}
		if err := w.events(); err != nil {
			return err
		}
		w.done += int64(w.n)
	}
	return nil
}
