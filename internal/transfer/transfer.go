// Package transfer carries events out of a db file or a running server and into
// a db file, in the formats of package format.
package transfer

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// Source hands out events, oldest first.
type Source interface {
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

// Server is events of a running server.
type Server struct {
	Client     *client.Client
	Types      []*event.Type
	Parameters url.Values // of GET /api/events
}

// Events implements Source.
func (s Server) Events(ctx context.Context, yield func(event.Row) error) error {
	s.Parameters.Set("format", "ndjson")
	s.Parameters.Set("order", "asc")
	s.Parameters.Set("limit", "0")
	body, err := s.Client.Get(ctx, "/api/events", s.Parameters)
	if err != nil {
		return err
	}
	defer body.Close()
	take := func(b *event.Batch) error {
		for i := range b.Len() {
			if err := yield(event.Row{Batch: b, Index: i}); err != nil {
				return err
			}
		}
		return nil
	}
	return format.NewReader(s.Types).NDJSON(body, take, func(b *format.BadRecord) error {
		return fmt.Errorf("the server's answer has a field that this program does not know: %w", b)
	})
}

// reportRows is how many events are written before progress is told of them.
const reportRows = 1024

// Export writes the events of a source. Progress is told how many were written
// so far.
func Export(ctx context.Context, from Source, to io.Writer, name string, types []*event.Type, progress func(events int64)) error {
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
