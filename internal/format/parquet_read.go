package format

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/event"
)

// Parquet reads a Parquet file with the fields that are written here.
func (r *Reader) Parquet(in io.ReaderAt, size int64, take func(*event.Batch) error, bad func(*BadRecord) error) (err error) {
	defer func() {
		// The library panics on some damaged files.
		if cause := recover(); cause != nil {
			err = fmt.Errorf("read Parquet: file is damaged: %v", cause)
		}
	}()
	file, err := parquet.OpenFile(in, size)
	if err != nil {
		return fmt.Errorf("read Parquet: %w", err)
	}
	var names []string
	for _, path := range file.Schema().Columns() {
		names = append(names, strings.Join(path, "."))
	}
	c := collector{take: take, batches: map[*event.Type]*event.Batch{}}
	rows := make([]parquet.Row, rowsAtOnce)
	number := int64(0)
	for _, group := range file.RowGroups() {
		if err := r.rowGroup(group, names, rows, &number, &c, bad); err != nil {
			return err
		}
	}
	return c.rest()
}

func (r *Reader) rowGroup(group parquet.RowGroup, names []string, rows []parquet.Row, number *int64, c *collector, bad func(*BadRecord) error) error {
	in := group.Rows()
	defer in.Close()
	for {
		n, err := in.ReadRows(rows)
		for _, row := range rows[:n] {
			*number++
			var problem *fieldError
			switch failed := r.record(fieldsOf(row, names), c); {
			case errors.As(failed, &problem):
				if err := bad(&BadRecord{*number, failed}); err != nil {
					return err
				}
			case failed != nil:
				return failed
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read Parquet: row %d: %w", *number+1, err)
		}
	}
}

func fieldsOf(row parquet.Row, names []string) map[string]any {
	fields := make(map[string]any, len(row))
	for _, v := range row {
		switch v.Kind() {
		case parquet.Int32, parquet.Int64:
			if !v.IsNull() {
				fields[names[v.Column()]] = v.Int64()
			}
		case parquet.ByteArray, parquet.FixedLenByteArray:
			if !v.IsNull() {
				fields[names[v.Column()]] = string(v.ByteArray())
			}
		default:
			if !v.IsNull() {
				fields[names[v.Column()]] = v.String()
			}
		}
	}
	return fields
}
