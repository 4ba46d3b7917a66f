package format

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

var lineType = event.MustType(event.Type{
	Name: "flow", Collection: "flows", Breakdown: "state",
	Derived: []event.Derived{{
		Column: event.Column{Name: "shout", Kind: event.KindString, Description: "State, louder."}, From: []string{"state"},
		Append: func(dst []byte, row event.Row, from []int) ([]byte, bool) {
			dst, ok := row.AppendText(dst, from[0])
			return append(dst, '!'), ok
		},
	}},
	Columns: []event.Column{
		{Name: "state", Kind: event.KindString, Values: []string{"open", "closed"}, Description: "State."},
		{Name: "flow_id", Kind: event.KindID, Description: "Id."},
		{Name: "address", Kind: event.KindIP, Description: "Address."},
		{Name: "sent", Kind: event.KindInt, Description: "Bytes."},
	},
})

// plainLines are parsed without encoding/json.
var plainLines = []string{
	`{"time":"2026-11-21T03:12:00.123456789Z","type":"flow","pid":12,"command":"curl","state":"open","flow_id":"a-b-ff","address":"10.0.0.1","sent":0}`,
	`{"time":"2026-11-21T05:12:00+02:00","type":"flow","state":"open","shout":"open!"}`, `{"shout":5,"time":"2026-11-21T05:12:00+02:00","type":"flow","shout":"no"}`,
	`{"time":"2026-11-21T05:12:00+02:00","type":"flow"}`, `{"time":"2026-11-21T3:12:00,5Z","type":"flow"}`,
	"\t{ \"sent\" : -5 , \"address\" : \"2001:db8::1\",\"type\": \"flow\" ,\"time\":\"2026-11-21T03:12:00Z\" } ",
	`{"time":"2026-11-21T03:12:00Z","type":"flow","pid":null,"command":"","colour":null,"sent":-0,"uid":999999999999999999}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","sent":-9223372036854775808,"pid":9223372036854775807,"uid":1000000000000000000}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","command":"a\"b\\\u003c\ud834\ud834\udd1e","container_id":"\"","p\u0069d":3}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","command":"línea 𝄞","address":"::ffff:10.0.0.1","container_id":"` + "\x7f" + `"}`,
}

// otherLines are not.
var otherLines = []string{
	``, `{}`, `null`, `[]`, `{"time":"2026-11-21T03:12:00Z","type":"flow"`, `{"time":"2026-11-21T03:12:00Z","type":"flow"}}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow",}`, `{"time":"2026-11-21T03:12:00Z" "type":"flow"}`, `{"time":"2026-11-21T03:12:00Z","type":"flow"} {}`,
	"{\"time\":\"2026-11-21T03:12:00Z\",\"type\":\"flow\"}\v", "{\"time\":\"2026-11-21T03:12:00Z\",\"type\":\"flow\",\"command\":\"a\tb\"}",
	"{\"time\":\"2026-11-21T03:12:00Z\",\"type\":\"flow\",\"command\":\"\xff\"}",
	`{"time":"2026-11-21T03:12:00Z","type":"flow","pid":1,"pid":2}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","pid":"1","pid":2}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","pid":1,"pid":null}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","type":"flow"}`,
	`{"time":"2026-11-21T03:12:00Z","time":"2026-11-21T03:13:00Z","type":"flow"}`, `{"type":"flow","time":null}`, `{"type":null,"time":"2026-11-21T03:12:00Z"}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","command":"\x"}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","command":"\`, `{"time":"2026-11-21T03:12:00Z","type":"flow","command":"\"`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","sent":1.0}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","sent":1e3}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","sent":01}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","sent":+1}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","sent":-}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","sent":9223372036854775808}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","sent":true}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","sent":nul}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","type":null}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","time":null}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","sent":{"a":1}}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","flow_id":"12"}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","flow_id":"-12"}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","flow_id":"a-1ffffffffffffffff"}`,
	`{"time":"2026-11-21T03:12:00Z","type":"flow","state":"ajar"}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","address":"10.0.0.0/8"}`, `{"time":"2026-11-21T03:12:00Z","type":"flow","address":"fe80::1%eth0"}`,
	`{"time":"0001-01-01T00:00:00Z","type":"flow"}`, `{"Time":"2026-11-21T03:12:00Z","type":"flow"}`,
}

// compare checks that a line that is parsed without encoding/json is an event,
// and this one. It tells whether it is parsed so.
func compare(t *testing.T, r *Reader, parser *lineParser, line []byte) bool {
	t.Helper()
	at := func(batches []*event.Batch) error {
		t.Error("there should be one event")
		return nil
	}
	quick, slow := collector{take: at}, collector{take: at}
	typ, when, values, ok := parser.parse(line, r.types)
	if !ok {
		return false
	}
	if err := r.anyLine(line, &slow); err != nil {
		t.Errorf("%q should be refused: %v", line, err)
		return true
	}
	if err := quick.add(typ, when, values); err != nil {
		t.Error(err)
	}
	got, want := event.Row{Batch: quick.batches[0]}.AppendJSON(nil), event.Row{Batch: slow.batches[0]}.AppendJSON(nil)
	if string(got) != string(want) {
		t.Errorf("%q\n is   %s\n want %s", line, got, want)
	}
	return true
}

func TestLines(t *testing.T) {
	r, parser := NewReader([]*event.Type{lineType}), new(lineParser)
	for _, line := range plainLines {
		if !compare(t, r, parser, []byte(line)) {
			t.Errorf("%s is not parsed", line)
		}
	}
	for _, line := range otherLines {
		if compare(t, r, parser, []byte(line)) {
			t.Errorf("%s should be left to encoding/json", line)
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	parsed := 0
	for range 200_000 {
		line := []byte(plainLines[random.IntN(len(plainLines))])
		for range 1 + random.IntN(3) {
			at := random.IntN(len(line))
			switch random.IntN(3) {
			case 0:
				line[at] = `{}[]",:\0123456789.-+eE truefalsn`[random.IntN(33)]
			case 1:
				line = slices.Delete(line, at, at+1)
			case 2:
				other := plainLines[random.IntN(len(plainLines))]
				line = slices.Insert(line, at, []byte(other[random.IntN(len(other)):])...)
			}
		}
		if compare(t, r, parser, line) {
			parsed++
		}
	}
	if parsed < 1000 {
		t.Errorf("only %d lines were parsed", parsed)
	}
}

// FuzzLine looks for lines that the two ways to read them take differently.
func FuzzLine(f *testing.F) {
	for _, line := range slices.Concat(plainLines, otherLines) {
		f.Add([]byte(line))
	}
	r, parser := NewReader([]*event.Type{lineType}), new(lineParser)
	f.Fuzz(func(t *testing.T, line []byte) { compare(t, r, parser, line) })
}
