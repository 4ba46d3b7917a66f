package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// With fields, the others are absent, be the events in memory, rows or blocks; and
// filters see all the same. The total is that of all pages.
func TestFieldsAndTotal(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	for i := range int64(200) {
		s.Append(flow(minute(int(i)), i))
	}
	s.Append(drop(minute(7), 7))
	c.set(minute(72 * 60))
	filters := query.Filters{{Column: "state", Values: []string{"open"}}, {Column: "sent", Op: query.Absent}}
	for _, q := range []query.Events{
		{Types: testTypes, Limit: 10},
		{Types: testTypes, Limit: 10, Ascending: true, Fields: []string{"command", "type", "reason"}},
		{Types: testTypes, Fields: []string{"address", "time"}},
		{Types: testTypes[:1], Filters: filters, Limit: 7, Fields: []string{"flow_id", "sent"}},
	} {
		q.Total = true
		var want []string
		for _, step := range []func(){func() {}, func() { flush(t, s) }, func() { sealAll(t, s) }} {
			step()
			var got []string
			p, err := s.Events(context.Background(), q, func(row event.Row) error {
				for i, column := range row.Batch.Type.Columns {
					_, has := row.AppendText(nil, i)
					if has && i != event.Time && len(q.Fields) > 0 && !slices.Contains(q.Fields, column.Name) {
						t.Fatalf("%v: an event has a %s", q.Fields, column.Name)
					}
				}
				got = append(got, string(row.AppendJSON(nil)))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if total := len(numbers(t, s, query.Events{Types: q.Types, Filters: q.Filters})); p.Total != int64(total) || total == 0 {
				t.Errorf("%+v: total is %d, want %d", q, p.Total, total)
			}
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: got %v, want %v", q, got, want)
			}
		}
		pieces := 0
		err := s.Pieces(context.Background(), q, func(p query.Piece) error {
			if pieces += p.Rows; p.Block != nil && len(q.Fields) > 0 {
				t.Error("a block is handed out with all its columns")
			}
			return nil
		})
		if err != nil || pieces == 0 {
			t.Errorf("%d events in pieces, %v", pieces, err)
		}
	}
}

// A question that is stopped says how far it came.
func TestUnfinished(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	for i := range int64(100) {
		s.Append(flow(minute(int(i)), i))
	}
	c.set(minute(72 * 60))
	sealAll(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, ascending := range []bool{false, true} {
		_, err := s.Events(ctx, query.Events{Types: testTypes, Ascending: ascending}, nil)
		want := minute(99)
		if ascending {
			want = minute(0)
		}
		if stopped := (*query.Unfinished)(nil); !errors.As(err, &stopped) || !stopped.At.Equal(want) || !errors.Is(err, context.Canceled) {
			t.Errorf("ascending %v: %v", ascending, err)
		}
	}
	within := query.Window{Since: minute(10), Until: minute(20)} // all of one day
	_, err := s.Summary(ctx, query.Summary{Type: flowType, Window: within, GroupBy: []string{"pid"}})
	if stopped := (*query.Unfinished)(nil); !errors.As(err, &stopped) || !stopped.At.Equal(within.Since) {
		t.Errorf("summary: %v", err)
	}
}
