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
)

// Server is events of a running server.
type Server struct {
	Client     *client.Client
	Types      []*event.Type
	Parameters url.Values // of GET /api/events
}

// Events implements Source.
func (s Server) Events(ctx context.Context, yield func(event.Row) error) error {
	body, err := s.ask(ctx, format.NDJSON)
	if err != nil {
		return err
	}
	defer body.Close()
	take := func(batches []*event.Batch) error { return inOrder(batches, yield) }
	return format.NewReader(s.Types).NDJSON(body, take, func(b *format.BadRecord) error {
		return fmt.Errorf("the server's answer has a field that this program does not know: %w", b)
	})
}

// ask asks for all events, in order of time, then name of the type.
func (s Server) ask(ctx context.Context, name string) (io.ReadCloser, error) {
	s.Parameters.Set("format", name)
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

// copy writes the server's answer as it is. In Parquet the events cannot be counted
// on their way.
func (s Server) copy(ctx context.Context, to io.Writer, name string, progress func(events int64)) error {
	body, err := s.ask(ctx, name)
	if err != nil {
		return err
	}
	defer body.Close()
	if name == format.Parquet {
		_, err = io.Copy(to, body)
		return err
	}
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
