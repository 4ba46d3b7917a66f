package store

import (
	"bytes"
	"log/slog"
	"reflect"
	"strings"

	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// number returns one of a list by its name; 0 if it is not there.
func number(list query.Numbers, name string) int64 {
	for _, n := range list {
		if n.Name == name {
			return n.Value
		}
	}
	return 0
}

func summarise(t testing.TB, s *Store, q query.Summary) *query.SummaryResult {
	t.Helper()
	if q.Type == nil {
		q.Type = flowType
	}
	r, err := s.Summary(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A summary must be what comes out of counting the events one by one.
func TestSummaryAgainstEvents(t *testing.T) {
	s := openTest(t, Options{Path: testPath(t)})
	r := rand.New(rand.NewPCG(9, 9))
	for i := range int64(50) {
		b := event.NewBatch(flowType, 0)
		for k := range int64(100) {
			addFlow(b, begin.UnixNano()+r.Int64N(int64(6*time.Hour)), i*100+k)
		}
		s.Append(b)
		if r.IntN(5) == 0 {
			flush(t, s)
		}
	}
	filters := query.Filters{{Column: "address", Values: []string{"10.0.0.0/31", "10.0.0.4"}}}
	for round := range 40 {
		since := begin.Add(time.Duration(r.Int64N(int64(6 * time.Hour))))
		q := query.Summary{Window: query.Window{Since: since, Until: since.Add(time.Duration(r.Int64N(int64(4 * time.Hour))))}, Interval: 10 * time.Minute, Lists: []string{"command"}}
		if round%2 == 0 {
			q.Filters = filters
		}
		want := struct {
			count, open, sent int64
			commands          map[string]int64
			buckets           map[int64]int64
		}{commands: map[string]int64{}, buckets: map[int64]int64{}}
		_, err := s.Events(context.Background(), query.Events{Types: []*event.Type{flowType}, Window: q.Window, Filters: q.Filters}, func(row event.Row) error {
			want.count++
			if state, _ := row.String(colState); state == "open" {
				want.open++
			}
			sent, _ := row.Int(colSent)
			want.sent += sent
			command, _ := row.String(event.Command)
			want.commands[command]++
			want.buckets[row.Time()/int64(q.Interval)]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := summarise(t, s, q)
		if got.Count != want.count || number(got.Counts, "open") != want.open || number(got.Counts, "closed") != want.count-want.open || number(got.Sums, "sent") != want.sent {
			t.Errorf("figures are %+v, want %+v", got.Figures, want)
		}
		commands := map[string]int64{}
		for _, g := range got.Top["command"] {
			commands[g.Key[0].Value.(string)] = g.Count
		}
		if fmt.Sprint(commands) != fmt.Sprint(want.commands) {
			t.Errorf("commands are %v, want %v", commands, want.commands)
		}
		for _, b := range got.Series {
			if n := want.buckets[b.Time.UnixNano()/int64(q.Interval)]; b.Count != n {
				t.Errorf("bucket %v has %d, want %d", b.Time, b.Count, n)
			}
		}
	}
}

func TestSummaryWindow(t *testing.T) {
	c := newClock()
	s := openTest(t, Options{Path: testPath(t), now: c.now})
	got := summarise(t, s, query.Summary{})
	if got.Count != 0 || !got.Since.Equal(begin) || !got.Until.Equal(begin) || got.Coverage.Complete {
		t.Errorf("summary of nothing: %+v", got)
	}
	s.Append(flow(begin.Add(-time.Hour), 1))
	s.Append(flow(begin.Add(time.Hour), 2)) // in the time to come
	got = summarise(t, s, query.Summary{})
	if got.Count != 1 || !got.Since.Equal(begin.Add(-time.Hour)) || !got.Until.Equal(begin) {
		t.Errorf("open window: %+v", got)
	}
	_, err := s.Summary(context.Background(), query.Summary{Type: flowType, Interval: 1})
	var param *query.ParamError
	if !errors.As(err, &param) || param.Name != "interval" {
		t.Errorf("error is %v", err)
	}
	if got := summarise(t, s, query.Summary{Filters: query.Filters{{Column: "reason", Values: []string{"x"}}}}); got.Count != 0 {
		t.Errorf("a filter for a column that is not there finds %d", got.Count)
	}
}

// A damaged rollup changes no answer: its time is counted from the events.
func TestDamagedRollup(t *testing.T) {
	c := newClock()
	log := new(bytes.Buffer)
	s := openTest(t, Options{Path: testPath(t), now: c.now, Logger: slog.New(slog.NewTextHandler(log, nil))})
	start(t, s, "flow")
	for i := range int64(40) { // over two days
		s.Append(flow(minute(int(i)*60), i))
	}
	c.set(minute(72 * 60))
	sealAll(t, s)
	for i, of := range [][]byte{bucketDays, bucketRollups} {
		q := query.Summary{Window: minutes(0, 45*60), Lists: []string{"command"}, Interval: time.Duration(i) * time.Hour}
		want := summarise(t, s, q)
		var original []byte
		damage := func(with func(bucket *bbolt.Bucket, key []byte) error) {
			t.Helper()
			err := s.update(func(tx *bbolt.Tx) error {
				rollups := tx.Bucket(of).Bucket([]byte("flow"))
				hour, _ := rollups.Cursor().First()
				return with(rollups.Bucket(hour), []byte(sectionKey("command")))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		damage(func(bucket *bbolt.Bucket, key []byte) error {
			original = bytes.Clone(bucket.Get(key))
			value := bytes.Clone(original)
			value[len(value)-6] ^= 1 // before the checksum
			return bucket.Put(key, value)
		})
		if err := s.Check(nil); err == nil {
			t.Errorf("Check finds nothing wrong with %s", of)
		}
		if got := summarise(t, s, q); !reflect.DeepEqual(got, want) {
			t.Errorf("damaged %s: got %+v, want %+v", of, got, want)
		}
		if !strings.Contains(log.String(), "a rollup of the file is damaged") {
			t.Errorf("%s: the log says %q", of, log)
		}
		log.Reset()
		damage(func(bucket *bbolt.Bucket, key []byte) error { return bucket.Delete(key) })
		if got := summarise(t, s, q); !reflect.DeepEqual(got, want) {
			t.Errorf("%s without a section: got %+v, want %+v", of, got, want)
		}
		damage(func(bucket *bbolt.Bucket, key []byte) error { return bucket.Put(key, original) })
	}
}
