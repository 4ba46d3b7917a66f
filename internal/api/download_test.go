package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// parquetLines are the events of a Parquet file as JSON, sorted.
func parquetLines(t *testing.T, data []byte) []string {
	t.Helper()
	lines := []string{}
	take := func(batches []*event.Batch) error {
		for _, b := range batches {
			for i := range b.Len() {
				lines = append(lines, string(event.Row{Batch: b, Index: i}.AppendJSON(nil)))
			}
		}
		return nil
	}
	err := format.NewReader(testTypes).Parquet(bytes.NewReader(data), int64(len(data)), take, func(b *format.BadRecord) error { return b })
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// A download as Parquet, for which blocks are sent as they are, has the events that
// other formats have: from blocks, rows and memory.
func TestParquetDownload(t *testing.T) {
	st := openStore(t)
	fillMany(st, 150_000)
	if err := st.Seal(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	fill(st, start.Add(time.Minute)) // among them
	if err := st.Flush(); err != nil {
		t.Fatal(err)
	}
	fill(st, start.Add(time.Hour))
	base := serve(t, func(o *Options) { o.Store = st })
	for _, params := range []string{
		"", "&order=asc", "&type=packet_drop", "&type=connection&since=2024-11-21T03:12:30Z&until=2024-11-21T03:13:20Z",
		"&command=sshd", "&pid<500", "&drop_reason=NO_SOCKET", "&command=nobody",
	} {
		want := strings.Fields(string(get(t, base+"/api/events?limit=0&format=ndjson"+params, http.StatusOK)))
		slices.Sort(want)
		got := parquetLines(t, get(t, base+"/api/events?limit=0&format=parquet"+params, http.StatusOK))
		if !slices.Equal(got, want) {
			t.Errorf("%q: %d events, want %d, or others", params, len(got), len(want))
		}
	}
	for params, want := range map[string]int{"limit=7": 7, "limit=7&order=asc": 7, "limit=0&fields=command,pid&type=connection": 150_020} {
		if got := parquetLines(t, get(t, base+"/api/events?format=parquet&"+params, http.StatusOK)); len(got) != want {
			t.Errorf("%q: %d events, want %d", params, len(got), want)
		}
	}
}

// torn is a store that breaks off after some pieces.
type torn struct {
	*store.Store
	after int
}

func (s torn) Pieces(ctx context.Context, q query.Events, yield func(query.Piece) error) error {
	left := s.after
	return s.Store.Pieces(ctx, q, func(p query.Piece) error {
		if left--; left < 0 {
			return errors.New("read block 7: checksum does not match")
		}
		return yield(p)
	})
}

func TestParquetDownloadThatFails(t *testing.T) {
	st := openStore(t)
	fillMany(st, 200_000)
	if err := st.Seal(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	underway := serve(t, func(o *Options) { o.Store = torn{st, 2} })
	if _, err := io.Copy(io.Discard, open(t, underway+"/api/events?format=parquet&limit=0")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an answer that failed looks complete: %v", err)
	}
	early := serve(t, func(o *Options) { o.Store = torn{st, 0} })
	scenario{url: "/api/events?format=parquet&limit=0", status: 500, contains: []string{"checksum does not match"}, lacks: []string{"PAR1"}}.run(t, early)
}
