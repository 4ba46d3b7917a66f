package format_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/format"
)

var flowType = event.MustType(event.Type{
	Name: "flow", Collection: "flows", Breakdown: "state",
	Columns: []event.Column{
		{Name: "state", Kind: event.KindString, Values: []string{"open", "closed"}, Description: "State."},
		{Name: "flow_id", Kind: event.KindID, Description: "Id."},
		{Name: "address", Kind: event.KindIP, Description: "Address."},
		{Name: "sent", Kind: event.KindInt, Description: "Bytes."},
	},
})

var dropType = event.MustType(event.Type{
	Name: "drop", Collection: "drops", Breakdown: "reason",
	Columns: []event.Column{
		{Name: "reason", Kind: event.KindString, Description: "Reason."},
		{Name: "address", Kind: event.KindIP, Description: "Address."},
	},
})

var types = []*event.Type{flowType, dropType}

// random returns events with every kind of value, present and absent.
func random(t *event.Type, n int) *event.Batch {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	texts := []string{"curl", `quo"te, and comma`, "línea\n", ""}
	b := event.NewBatch(t, n)
	for range n {
		b.Append(r.Int64N(math.MaxInt64))
		for i, c := range t.Columns {
			if i == event.Time || r.IntN(3) == 0 {
				continue
			}
			switch c.Kind {
			case event.KindInt:
				b.SetInt(i, int64(r.Uint64()))
			case event.KindString:
				if c.Values != nil {
					b.SetString(i, c.Values[r.IntN(len(c.Values))])
				} else {
					b.SetString(i, texts[r.IntN(len(texts))])
				}
			case event.KindIP:
				b.SetIP(i, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))}))
				if r.IntN(2) == 0 {
					b.SetIP(i, netip.MustParseAddr("2001:db8::1"))
				}
			case event.KindID:
				b.SetID(i, "boot-1", int64(r.Uint64()))
			}
		}
	}
	return b
}

func rows(b *event.Batch) []string {
	var lines []string
	for i := range b.Len() {
		lines = append(lines, string(event.Row{Batch: b, Index: i}.AppendJSON(nil)))
	}
	return lines
}

func write(t testing.TB, name string, batches ...*event.Batch) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := writeTo(&out, name, types, batches...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func writeTo(out io.Writer, name string, types []*event.Type, batches ...*event.Batch) error {
	if name == format.Parquet {
		w, err := format.NewParquetWriter(out, types)
		for i := 0; err == nil && i < len(batches); i++ {
			err = w.Batch(batches[i])
		}
		if err != nil {
			return err
		}
		return w.Close()
	}
	w, err := format.NewWriter(out, name, types)
	if err != nil {
		return err
	}
	for _, b := range batches {
		for i := range b.Len() {
			if err := w.Write(event.Row{Batch: b, Index: i}); err != nil {
				return err
			}
		}
	}
	return w.Close()
}

// read reads all events of a file, each as it is printed.
func read(data []byte, types []*event.Type, bad func(*format.BadRecord) error) (got []string, err error) {
	r := format.NewReader(types)
	take := func(batches []*event.Batch) error {
		for _, b := range batches {
			got = append(got, rows(b)...)
		}
		return nil
	}
	if bytes.HasPrefix(data, []byte("PAR1")) {
		return got, r.Parquet(bytes.NewReader(data), int64(len(data)), take, bad)
	}
	return got, r.NDJSON(bytes.NewReader(data), take, bad)
}

func noneBad(b *format.BadRecord) error { return b }

func sorted(texts []string) []string { return slices.Sorted(slices.Values(texts)) }

// What is written is read back as it was.
func TestRoundTrip(t *testing.T) {
	flow, drop := random(flowType, 70_000), random(dropType, 500)
	want := sorted(append(rows(flow), rows(drop)...))
	for _, name := range []string{format.NDJSON, format.Parquet} {
		t.Run(name, func(t *testing.T) {
			got, err := read(write(t, name, flow, drop), types, noneBad)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(sorted(got), want) {
				t.Errorf("%d events read, %d written, or they differ", len(got), len(want))
			}
		})
	}
}

func TestCSV(t *testing.T) {
	flow, drop := random(flowType, 100), random(dropType, 100)
	lines, err := csv.NewReader(bytes.NewReader(write(t, "csv", flow, drop))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines[0], ","); got != "time,type,pid,command,uid,cgroup_id,container_id,netns,user,executable,parent_pid,parent_command,unit,container_name,container_image,k8s_pod,k8s_namespace,k8s_container,state,flow_id,address,sent,reason" {
		t.Errorf("header %s", got)
	}
	if len(lines) != 201 {
		t.Fatalf("%d lines, want 201", len(lines))
	}
	for i, line := range lines[1:] {
		b, row := flow, i
		if i >= 100 {
			b, row = drop, i-100
		}
		for k, name := range lines[0] {
			want := ""
			if at, ok := b.Type.Column(name); ok {
				text, _ := event.Row{Batch: b, Index: row}.AppendText(nil, at)
				want = string(text)
			} else if name == "type" {
				want = b.Type.Name
			}
			if line[k] != want {
				t.Fatalf("line %d, %s: %q, want %q", i, name, line[k], want)
			}
		}
	}
}

func TestBadLines(t *testing.T) {
	const good = `{"time":"2026-11-21T03:12:00Z","type":"flow","state":"open"}`
	for _, test := range []struct{ line, want string }{
		{`{"time":"2026-11-21T03:12:00Z","type":"flow"`, "not a JSON object"},
		{`null`, "not a JSON object"},
		{good + good, "more than one"},
		{`{"time":"2026-11-21T03:12:00Z"}`, `type: ""`},
		{`{"time":"yesterday","type":"flow"}`, `time: "yesterday"`},
		{`{"type":"flow"}`, "time: is missing"},
		{`{"time":"0001-01-01T00:00:00Z","type":"flow"}`, "out of range"},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","colour":"red"}`, "colour: is not a field"},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","pid":"12"}`, "pid: is not a number"},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","pid":1.5}`, "pid: 1.5 is not a whole number"},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","address":"10.0.0.0/8"}`, "address:"},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","flow_id":"12"}`, "flow_id:"},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","state":"ajar"}`, `state: "ajar" is not one of open, closed`},
		{`{"time":"2026-11-21T03:12:00Z","type":"flow","command":"` + strings.Repeat("x", 2<<20) + `"}`, "bytes"},
	} {
		input := good + "\n\n" + test.line + "\r\n" + good
		taken := 0
		var found []*format.BadRecord
		err := format.NewReader(types).NDJSON(strings.NewReader(input), func(batches []*event.Batch) error {
			for _, b := range batches {
				taken += b.Len()
			}
			return nil
		}, func(b *format.BadRecord) error {
			found = append(found, b)
			return nil
		})
		if err != nil {
			t.Errorf("%.80s: %v", test.line, err)
		}
		if taken != 2 || len(found) != 1 || found[0].Number != 3 || !strings.Contains(found[0].Error(), test.want) {
			t.Errorf("%.80s: %d taken, bad %v; want 2 and record 3: %s", test.line, taken, found, test.want)
		}
	}
}

// A long input is parsed by several at once; numbers of lines and the order of
// what is handed on are as if it were by one.
func TestManyLines(t *testing.T) {
	const n = 100_000
	var text bytes.Buffer
	var want []int64
	for i := range n {
		switch {
		case i%9_999 == 0:
			text.WriteString("nonsense\n")
			want = append(want, int64(i)+1)
		case i%20_000 == 7:
			text.WriteString(strings.Repeat("x", 1<<20+1) + "\n")
			want = append(want, int64(i)+1)
		default:
			fmt.Fprintf(&text, `{"time":"2026-11-21T03:12:00Z","type":"flow","pid":%d,"command":"a longer text to fill some parts of the input with"}`+"\r\n\n", i)
		}
	}
	var numbers, pids []int64
	read := func(in io.Reader) error {
		return format.NewReader(types).NDJSON(in, func(batches []*event.Batch) error {
			pids = append(pids, batches[0].Columns[event.PID].Ints...)
			return nil
		}, func(b *format.BadRecord) error {
			numbers = append(numbers, b.Number)
			return nil
		})
	}
	for i := range want { // the empty lines before it count
		want[i] += want[i] - 1 - int64(i)
	}
	if err := read(bytes.NewReader(text.Bytes())); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(numbers, want) || len(pids) != n-len(want) || !slices.IsSorted(pids) {
		t.Errorf("%d events, in order: %v; bad are %v, want %v", len(pids), slices.IsSorted(pids), numbers, want)
	}
	lines := int64(bytes.Count(text.Bytes(), []byte("\n")))
	broken := errors.New("connection is broken")
	err := read(io.MultiReader(bytes.NewReader(text.Bytes()), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), fmt.Sprintf("read line %d", lines+1)) {
		t.Errorf("error is %v", err)
	}
}

func TestReadStops(t *testing.T) {
	stop := errors.New("stop")
	line := `{"type":"none"}`
	err := format.NewReader(types).NDJSON(strings.NewReader(line), func([]*event.Batch) error { return nil }, func(*format.BadRecord) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("error of bad is %v", err)
	}
	line = `{"time":"2026-11-21T03:12:00Z","type":"flow"}`
	err = format.NewReader(types).NDJSON(strings.NewReader(line), func([]*event.Batch) error { return stop }, func(b *format.BadRecord) error { return b })
	if !errors.Is(err, stop) {
		t.Errorf("error of take is %v", err)
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := format.NewWriter(nil, "xml", types); err == nil || !strings.Contains(err.Error(), "ndjson") {
		t.Errorf("error is %v", err)
	}
}

func FuzzParquet(f *testing.F) {
	f.Add(write(f, "parquet", random(flowType, 50)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !bytes.HasPrefix(data, []byte("PAR1")) {
			return
		}
		got, _ := read(data, types, func(*format.BadRecord) error { return nil })
		for _, line := range got {
			if !json.Valid([]byte(line)) {
				t.Errorf("an event that cannot be printed: %q", line)
			}
		}
	})
}
