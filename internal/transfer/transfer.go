// Package transfer carries events out of a db file or a running server and into
// a db file, in the formats of package format.
package transfer

import (
	"context"
	"io"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// Source hands out events.
type Source interface {
	// Events hands out one event after the other, oldest first.
	Events(ctx context.Context, yield func(event.Row) error) error
}

// File is events of a db file.
type File struct {
	Store *store.Store
	Query query.Events
}

// Events implements Source.
func (f File) Events(ctx context.Context, yield func(event.Row) error) error {
	f.Query.Ascending = true
	_, err := f.Store.Events(ctx, f.Query, yield)
	return err
}

// reportRows is how many events are written before progress is told of them.
const reportRows = 1024

// Export writes the events of a source. Progress is told how many were written
// so far.
func Export(ctx context.Context, from Source, to io.Writer, name string, types []*event.Type, progress func(events int64)) error {
	switch from := from.(type) {
	case Server:
		if name == format.NDJSON || name == format.Parquet {
			return from.copy(ctx, to, name, progress)
		}
	case File:
		if name == format.Parquet {
			return from.parquet(ctx, to, types, progress)
		}
	}
	w, err := format.NewWriter(to, name, types)
	if err != nil {
		return err
	}
	var n int64
	err = from.Events(ctx, func(row event.Row) error {
		if n++; n%reportRows == 0 {
			progress(n)
		}
		return w.Write(row)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// parquet lets blocks through as they are.
func (f File) parquet(ctx context.Context, to io.Writer, types []*event.Type, progress func(events int64)) error {
	w, err := format.NewParquetWriter(to, types)
	if err != nil {
		return err
	}
	var n int64
	err = f.Store.Pieces(ctx, f.Query, func(p query.Piece) error {
		n += int64(p.Rows)
		progress(n)
		if p.Block != nil {
			return w.Block(p.Type, p.Block)
		}
		return w.Batch(p.Batch)
	})
	if err != nil {
		return err
	}
	return w.Close()
}
