package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
	"github.com/srodi/ebpf-server/internal/transfer"
)

var (
	flowType = event.MustType(event.Type{
		Name: "flow", Collection: "flows", Breakdown: "state",
		Columns: []event.Column{
			{Name: "state", Kind: event.KindString, Values: []string{"open", "closed"}, Description: "State."},
			{Name: "flow_id", Kind: event.KindID, Description: "Id."},
			{Name: "address", Kind: event.KindIP, Description: "Address."},
			{Name: "port", Kind: event.KindInt, Description: "Port."},
			{Name: "sent", Kind: event.KindInt, Description: "Bytes."},
		},
	})
	dropType = event.MustType(event.Type{
		Name: "drop", Collection: "drops", Breakdown: "reason",
		Columns: []event.Column{
			{Name: "reason", Kind: event.KindString, Description: "Reason."},
			{Name: "address", Kind: event.KindIP, Description: "Address."},
		},
	})
	types = []*event.Type{flowType, dropType}
	begin = time.Date(2025, 11, 21, 3, 0, 0, 0, time.UTC)
)

// events makes n events from some time on, a fifth of them drops, with values
// absent here and there.
func events(r *rand.Rand, from time.Time, over time.Duration, n int) []*event.Batch {
	flows, drops := event.NewBatch(flowType, n), event.NewBatch(dropType, n)
	for i := range n {
		at := from.Add(over / time.Duration(n) * time.Duration(i)).UnixNano()
		address := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(40)), byte(r.IntN(256))})
		if r.IntN(4) == 0 {
			address = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(r.IntN(256))})
		}
		if r.IntN(5) == 0 {
			drops.Append(at)
			drops.SetString(dropType.MustColumn("reason"), []string{"NO_SOCKET", "<none>", "a, \"b\""}[r.IntN(3)])
			drops.SetIP(dropType.MustColumn("address"), address)
			continue
		}
		flows.Append(at)
		flows.SetString(event.Command, []string{"curl", "línea", "ssh"}[r.IntN(3)])
		flows.SetString(flowType.MustColumn("state"), []string{"open", "closed"}[i%2])
		flows.SetInt(flowType.MustColumn("port"), r.Int64N(65536))
		if r.IntN(3) > 0 {
			flows.SetInt(event.PID, r.Int64N(500))
			flows.SetID(flowType.MustColumn("flow_id"), "6f1c2a90-61a4", r.Int64())
			flows.SetIP(flowType.MustColumn("address"), address)
			flows.SetInt(flowType.MustColumn("sent"), r.Int64()-r.Int64())
		}
	}
	return []*event.Batch{flows, drops}
}

func open(t testing.TB, name string) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Path: filepath.Join(t.TempDir(), name), Types: types, FlushInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Check(nil); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// filled returns a store with events in blocks, which overlap here and there,
// in rows and in memory.
func filled(t testing.TB) *store.Store {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	s := open(t, "filled.db")
	add := func(batches []*event.Batch) {
		for _, b := range batches {
			s.Append(b)
		}
	}
	for hour := range 60 { // they become one block for each day
		add(events(r, begin.Add(time.Duration(hour)*time.Hour), time.Hour, 400))
	}
	if err := s.Seal(context.Background(), true, nil); err != nil {
		t.Fatal(err)
	}
	add(events(r, begin.Add(5*time.Hour+10*time.Minute), 80*time.Minute, 300))
	if err := s.Seal(context.Background(), true, nil); err != nil {
		t.Fatal(err)
	}
	add(events(r, begin.Add(15*time.Hour+30*time.Minute), time.Minute, 100))
	add(events(r, begin.Add(60*time.Hour), 2*time.Hour, 900))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	add(events(r, begin.Add(50*time.Hour), 20*time.Hour, 50))
	return s
}

func questions(t *testing.T) map[string]query.Events {
	t.Helper()
	filters, err := query.ParseFilters(types, map[string][]string{"address": {"10.0.1.0/24", "2001:db8::7"}, "command": {"curl"}})
	if err != nil {
		t.Fatal(err)
	}
	window := query.Window{Since: begin.Add(4*time.Hour + 17*time.Minute), Until: begin.Add(60*time.Hour + 40*time.Minute)}
	return map[string]query.Events{
		"all":                 {Types: types},
		"one type":            {Types: types[1:]},
		"a window":            {Types: types, Window: window},
		"filters":             {Types: types, Filters: filters},
		"filters in a window": {Types: types, Window: window, Filters: filters},
		"an hour":             {Types: types, Window: query.Window{Since: begin.Add(2 * time.Hour), Until: begin.Add(3 * time.Hour)}},
		"where nothing is":    {Types: types, Window: query.Window{Until: begin}},
		"the last of it":      {Types: types, Window: query.Window{Since: begin.Add(59 * time.Hour)}},
	}
}

func export(t testing.TB, from transfer.Source, name string) []byte {
	t.Helper()
	var out bytes.Buffer
	var told int64
	if err := transfer.Export(context.Background(), from, &out, name, types, func(n int64) { told = n }); err != nil {
		t.Fatal(err)
	}
	if name == format.NDJSON && told > int64(bytes.Count(out.Bytes(), []byte("\n"))) {
		t.Errorf("%d events are said to be written", told)
	}
	return out.Bytes()
}

// importInto imports a file that has this content.
func importInto(t testing.TB, s *store.Store, data []byte, skipBad bool) (transfer.Result, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	im := transfer.Import{Store: s, Types: types, SkipBad: skipBad, Passed: func(int64) {}}
	return im.File(context.Background(), file)
}

// lines returns what a question is answered with, each type by itself, in the
// order in which it comes.
func lines(t *testing.T, s *store.Store, q query.Events) []string {
	t.Helper()
	var all []string
	for _, typ := range types {
		q.Types = []*event.Type{typ}
		q.Ascending = true
		if _, err := s.Events(context.Background(), q, func(row event.Row) error {
			all = append(all, string(row.AppendJSON(nil)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// What is exported and imported again is the same, wherever it was in the file
// and whatever was asked for.
func TestExportAndImport(t *testing.T) {
	s := filled(t)
	for what, q := range questions(t) {
		for _, name := range []string{format.NDJSON, format.Parquet} {
			data := export(t, transfer.File{Store: s, Query: q}, name)
			other := open(t, "other.db")
			result, err := importInto(t, other, data, false)
			if err != nil {
				t.Fatalf("%s, %s: %v", what, name, err)
			}
			if len(q.Types) == 1 { // the others are not there
				for _, typ := range types {
					if typ != q.Types[0] && len(lines(t, other, query.Events{})) != int(result.Events) {
						t.Errorf("%s, %s: %d events", what, name, result.Events)
					}
				}
				continue
			}
			want, got := lines(t, s, q), lines(t, other, query.Events{})
			if !slices.Equal(got, want) || result.Events != int64(len(want)) {
				t.Errorf("%s, %s: %d events, %d imported, want %d, or others", what, name, len(got), result.Events, len(want))
			}
		}
		all := export(t, transfer.File{Store: s, Query: q}, format.NDJSON)
		if got, want := bytes.Count(export(t, transfer.File{Store: s, Query: q}, format.CSV), []byte("\n")), bytes.Count(all, []byte("\n")); got != want+1 {
			t.Errorf("%s: CSV has %d lines, want %d", what, got, want+1)
		}
	}
}

// Parquet has the events of a type in order of time, each row group of one type
// only, and blocks of the file become row groups.
func TestParquetOrder(t *testing.T) {
	s := filled(t)
	data := export(t, transfer.File{Store: s, Query: query.Events{Types: types}}, format.Parquet)
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]int64{}
	for _, group := range f.RowGroups() {
		found := map[string]bool{}
		rows := make([]parquet.Row, group.NumRows())
		in := group.Rows()
		defer in.Close()
		if n, err := in.ReadRows(rows); n < len(rows) && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		for _, row := range rows {
			at, name := row[0].Int64(), row[1].String()
			if found[name] = true; at < last[name] {
				t.Fatalf("%s: %d comes after %d", name, at, last[name])
			}
			last[name] = at
		}
		if len(found) != 1 {
			t.Errorf("a row group has events of %d types", len(found))
		}
	}
	if n := len(f.RowGroups()); n != 2*3 || len(last) != 2 { // before, of and after the block of the second day
		t.Errorf("%d row groups of %d types", n, len(last))
	}
}

// An export from a server is the same as one from its file.
func TestExportFromAServer(t *testing.T) {
	s := filled(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := r.URL.Query()
		if name := got.Get("format"); (name != format.NDJSON && name != format.Parquet) || got.Get("order") != "asc" || got.Get("limit") != "0" || r.URL.Path != "/api/events" {
			http.Error(w, "not what is asked", http.StatusBadRequest)
			return
		}
		if err := transfer.Export(r.Context(), transfer.File{Store: s, Query: query.Events{Types: types}}, w, got.Get("format"), types, func(int64) {}); err != nil {
			t.Error(err)
		}
	}))
	defer api.Close()
	c, err := client.New(api.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	server, file := transfer.Server{Client: c, Types: types, Parameters: url.Values{}}, transfer.File{Store: s, Query: query.Events{Types: types}}
	for _, name := range format.Names {
		if !bytes.Equal(export(t, server, name), export(t, file, name)) {
			t.Errorf("%s: it is not the same", name)
		}
	}
	other := open(t, "other.db")
	if _, err := importInto(t, other, export(t, server, format.Parquet), false); err != nil {
		t.Fatal(err)
	}
	if want, got := lines(t, s, query.Events{}), lines(t, other, query.Events{}); !slices.Equal(got, want) {
		t.Errorf("%d events, want %d, or others", len(got), len(want))
	}
	server.Types = types[:1]
	if err := transfer.Export(context.Background(), server, io.Discard, format.CSV, types, func(int64) {}); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("error is %v", err)
	}
}

func TestExportFails(t *testing.T) {
	s := filled(t)
	full := errors.New("disk is full")
	for _, name := range format.Names {
		from := transfer.File{Store: s, Query: query.Events{Types: types}}
		if err := transfer.Export(context.Background(), from, failing{full}, name, types, func(int64) {}); !errors.Is(err, full) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if err := transfer.Export(context.Background(), transfer.File{Store: s, Query: query.Events{Types: types}}, io.Discard, "xml", types, nil); err == nil || !strings.Contains(err.Error(), "parquet") {
		t.Errorf("error is %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// A file with bad records is imported whole or not at all.
func TestImportOfBadRecords(t *testing.T) {
	good := `{"time":"2025-11-21T03:12:00Z","type":"flow","pid":1}` + "\n"
	bad := `{"time":"2025-11-21T03:12:00Z","type":"flow","pid":"1"}` + "\n"
	s := open(t, "events.db")
	_, err := importInto(t, s, []byte(good+bad+good+strings.Repeat(bad, 20)), false)
	for _, want := range []string{"record 2: pid: is not a number", "21 records", "and 11 more", "--skip-bad"} {
		if !errors.Is(err, transfer.ErrBadRecords) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if n := len(lines(t, s, query.Events{})); n != 0 {
		t.Errorf("%d events are there", n)
	}
	result, err := importInto(t, s, []byte(good+bad+good), true)
	if err != nil || result.Events != 2 || result.Skipped != 1 || len(lines(t, s, query.Events{})) != 2 {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := importInto(t, s, []byte("PAR1 but no more"), false); err == nil || !strings.Contains(err.Error(), "read Parquet") {
		t.Errorf("error is %v", err)
	}
}
