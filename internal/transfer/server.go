package transfer

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/store"
)

// Server is events of a running server.
type Server struct {
	Client     *client.Client
	Types      []*event.Type
	Parameters url.Values // of GET /api/events
}

// Events implements Source.
func (s Server) Events(ctx context.Context, yield func(event.Row) error) error {
	return s.batches(ctx, func(batches []*event.Batch) error { return inOrder(batches, yield) })
}

// Pieces implements Source.
func (s Server) Pieces(ctx context.Context, yield func(store.Piece) error) error {
	return s.batches(ctx, func(batches []*event.Batch) error {
		for _, b := range batches {
			if err := yield(store.Piece{Type: b.Type, Rows: b.Len(), Batch: b}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s Server) batches(ctx context.Context, take format.Take) error {
	body, err := s.ask(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	return format.NewReader(s.Types).NDJSON(body, take, func(b *format.BadRecord) error {
		return fmt.Errorf("the server's answer has a field that this program does not know: %w", b)
	})
}

// ask asks for all events as NDJSON, in order of time, then name of the type.
func (s Server) ask(ctx context.Context) (io.ReadCloser, error) {
	s.Parameters.Set("format", "ndjson")
	s.Parameters.Set("order", "asc")
	s.Parameters.Set("limit", "0")
	return s.Client.Get(ctx, "/api/events", s.Parameters)
}

// inOrder brings the events of an answer, which are in order in each batch, back
// into the order in which they came.
func inOrder(batches []*event.Batch, yield func(event.Row) error) error {
	next := make([]event.Row, 0, len(batches))
	for _, b := range batches {
		next = append(next, event.Row{Batch: b})
	}
	for len(next) > 0 {
		first := 0
		for i, row := range next {
			if cmp.Or(cmp.Compare(row.Time(), next[first].Time()), cmp.Compare(row.Batch.Type.Name, next[first].Batch.Type.Name)) < 0 {
				first = i
			}
		}
		if err := yield(next[first]); err != nil {
			return err
		}
		if next[first].Index++; next[first].Index == next[first].Batch.Len() {
			next = append(next[:first], next[first+1:]...)
		}
	}
	return nil
}

// copy writes the server's answer as it is.
func (s Server) copy(ctx context.Context, to io.Writer, progress func(events int64)) error {
	body, err := s.ask(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(&lineCounter{to: to, progress: progress}, body)
	return err
}

type lineCounter struct {
	to       io.Writer
	progress func(lines int64)
	lines    int64
}

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines += int64(bytes.Count(p, []byte{'\n'}))
	c.progress(c.lines)
	return c.to.Write(p)
}
