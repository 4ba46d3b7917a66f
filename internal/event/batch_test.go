package event_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

var testType = event.MustType(event.Type{
	Name: "test", Collection: "tests", Summary: "Events of these tests.",
	Breakdown: "state", Top: []string{"command"},
	Columns: []event.Column{
		{Name: "state", Kind: event.KindString, Description: "State.", Values: []string{"open", "closed"}},
		{Name: "bytes", Kind: event.KindInt, Description: "Bytes.", Sum: true},
		{Name: "address", Kind: event.KindIP, Description: "Address."},
		{Name: "socket", Kind: event.KindID, Description: "Socket."},
	},
})

var (
	colState   = testType.MustColumn("state")
	colBytes   = testType.MustColumn("bytes")
	colAddress = testType.MustColumn("address")
	colSocket  = testType.MustColumn("socket")
)

// full adds an event that has every column of its own type, sparse one that
// has nothing but its time.
func full(b *event.Batch, t int64, state string) {
	b.Append(t)
	b.SetInt(event.PID, 42)
	b.SetString(event.Command, "curl")
	b.SetString(colState, state)
	b.SetInt(colBytes, t*10)
	b.SetIP(colAddress, netip.MustParseAddr("::ffff:10.0.0.1"))
	b.SetID(colSocket, "boot", -t)
}

func sparse(b *event.Batch, t int64) { b.Append(t) }

func texts(b *event.Batch) []string {
	var rows []string
	for i := range b.Len() {
		rows = append(rows, string(event.Row{Batch: b, Index: i}.AppendJSON(nil)))
	}
	return rows
}

func TestJSON(t *testing.T) {
	b := event.NewBatch(testType, 2)
	full(b, 1, "open")
	sparse(b, -1)
	b.Append(2)
	b.SetBytes(event.Command, []byte("a\"<\x80\n"))
	b.SetInt(colBytes, 0)
	b.SetIP(colAddress, netip.MustParseAddr("fe80::1"))
	b.SetIP(colAddress, netip.Addr{}) // changes nothing
	want := []string{
		`{"time":"1970-01-01T00:00:00.000000001Z","type":"test","pid":42,"command":"curl","state":"open","bytes":10,"address":"10.0.0.1","socket":"boot-ffffffffffffffff"}`,
		`{"time":"1969-12-31T23:59:59.999999999Z","type":"test"}`,
		`{"time":"1970-01-01T00:00:00.000000002Z","type":"test","command":"a\"\u003c\ufffd\n","bytes":0,"address":"fe80::1"}`,
	}
	got := texts(b)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, text := range got {
		if !json.Valid([]byte(text)) {
			t.Errorf("%s is not JSON", text)
		}
	}
}

func TestAppendText(t *testing.T) {
	b := event.NewBatch(testType, 1)
	full(b, 1, "open")
	sparse(b, 2)
	for column, want := range map[int]string{event.Time: "1970-01-01T00:00:00.000000001Z", event.PID: "42", colState: "open", colAddress: "10.0.0.1", colSocket: "boot-ffffffffffffffff"} {
		text, ok := event.Row{Batch: b}.AppendText([]byte(">"), column)
		if !ok || string(text) != ">"+want {
			t.Errorf("column %d: got %q, %v", column, text, ok)
		}
		if text, ok := (event.Row{Batch: b, Index: 1}).AppendText(nil, column); column != event.Time && (ok || len(text) > 0) {
			t.Errorf("absent column %d: got %q, %v", column, text, ok)
		}
	}
}

func TestAppendRows(t *testing.T) {
	from := event.NewBatch(testType, 0)
	full(from, 1, "open")
	sparse(from, 2)
	full(from, 3, "closed")
	from.SetString(colState, "open") // leaves "closed" in the dictionary, unused

	tests := map[string][]int32{"all": nil, "none": {}, "some": {2, 0}, "twice": {1, 1, 2}}
	for name, rows := range tests {
		t.Run(name, func(t *testing.T) {
			quick, slow := event.NewBatch(testType, 0), event.NewBatch(testType, 0)
			full(quick, 9, "closed")
			full(slow, 9, "closed")
			quick.AppendRows(from, rows)
			if rows == nil {
				rows = []int32{0, 1, 2}
			}
			for _, row := range rows {
				appendRow(slow, from, int(row))
			}
			if got, want := texts(quick), texts(slow); !reflect.DeepEqual(got, want) {
				t.Errorf("AppendRows: got %v, want %v", got, want)
			}
			if quick.Len() != 1+len(rows) {
				t.Errorf("%d rows, want %d", quick.Len(), 1+len(rows))
			}
			sparse(quick, 5) // can still be written to
			quick.SetString(colState, "open")
		})
	}
}

func TestAppendRowsTakesOnlyWhatIsUsed(t *testing.T) {
	from := event.NewBatch(testType, 0)
	full(from, 1, "open")
	from.SetString(colState, "closed")
	to := event.NewBatch(testType, 0)
	to.AppendRows(from, nil)
	if dict := to.Columns[colState].Dict; !reflect.DeepEqual(dict, []string{"closed"}) {
		t.Errorf("dictionary is %q", dict)
	}
}

// appendRow adds a copy of one row of another batch, value by value.
func appendRow(b, from *event.Batch, row int) {
	b.Append(from.Columns[event.Time].Ints[row])
	for i, c := range b.Type.Columns {
		src := &from.Columns[i]
		switch c.Kind {
		case event.KindInt:
			if src.Valid[row] {
				b.SetInt(i, src.Ints[row])
			}
		case event.KindString, event.KindIP:
			if code := src.Codes[row]; code != 0 {
				b.SetString(i, src.Dict[code-1])
			}
		case event.KindID:
			if code := src.Codes[row]; code != 0 {
				b.SetID(i, src.Dict[code-1], src.Ints[row])
			}
		}
	}
}

// A batch that was read has a dictionary but no index of it yet.
func TestWritingToWhatWasRead(t *testing.T) {
	b := event.NewBatch(testType, 0)
	full(b, 1, "open")
	read := &event.Batch{Type: testType, Columns: make([]event.Vector, len(b.Columns))}
	for i, v := range b.Columns {
		read.Columns[i] = event.Vector{Ints: v.Ints, Valid: v.Valid, Codes: v.Codes, Dict: v.Dict}
	}
	read.Append(2)
	read.SetString(colState, "open")
	if dict := read.Columns[colState].Dict; len(dict) != 1 {
		t.Errorf("a value that is known got another code: %q", dict)
	}
}
