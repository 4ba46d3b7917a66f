package query

import (
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestCursor(t *testing.T) {
	for _, want := range []Cursor{
		{Time: 1700000000123456789, Type: "flow", Rank: 0, Question: 1},
		{Time: -5, Type: "x", Rank: 300000, Question: 1<<64 - 1},
		{Time: 7, Type: "x", Back: true},
	} {
		got, err := ParseCursor(want.String())
		if err != nil || *got != want {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add(Cursor{Time: 1, Type: "flow", Rank: 2, Question: 3}.String())
	f.Add("")
	f.Add("AQAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			wantParam(t, err, "cursor")
			return
		}
		if again, err := ParseCursor(c.String()); err != nil || *again != *c {
			t.Errorf("%+v became %+v, %v", c, again, err)
		}
	})
}

func TestQuestion(t *testing.T) {
	base := Events{Types: []*event.Type{flowType, dropType}, Filters: Filters{{Column: "pid", Values: []string{"1", "2"}}, {Column: "command", Values: []string{"a"}}}}
	same := map[string]func(q *Events){
		"window":         func(q *Events) { q.Window.Since = time.Unix(1, 0) },
		"limit":          func(q *Events) { q.Limit = 5 },
		"order of types": func(q *Events) { q.Types = []*event.Type{dropType, flowType} },
		"order of values": func(q *Events) {
			q.Filters = Filters{{Column: "command", Values: []string{"a"}}, {Column: "pid", Values: []string{"2", "1"}}}
		},
	}
	other := map[string]func(q *Events){
		"types":   func(q *Events) { q.Types = q.Types[:1] },
		"order":   func(q *Events) { q.Ascending = true },
		"filters": func(q *Events) { q.Filters = nil },
		"value": func(q *Events) {
			q.Filters = Filters{{Column: "pid", Values: []string{"1", "3"}}, {Column: "command", Values: []string{"a"}}}
		},
		"where a value belongs": func(q *Events) {
			q.Filters = Filters{{Column: "pid", Values: []string{"1"}}, {Column: "command", Values: []string{"2", "a"}}}
		},
	}
	for name, change := range same {
		q := base
		if change(&q); q.Question() != base.Question() {
			t.Errorf("another %s makes another question", name)
		}
	}
	for name, change := range other {
		q := base
		if change(&q); q.Question() == base.Question() {
			t.Errorf("other %s make the same question", name)
		}
		q.Cursor = &Cursor{Type: "flow", Question: base.Question()}
		wantParam(t, q.Validate(), "cursor")
	}
}

func TestValidateEvents(t *testing.T) {
	types := []*event.Type{flowType}
	tests := map[string]Events{
		"type":  {},
		"limit": {Types: types, Limit: -1},
		"until": {Types: types, Window: Window{Since: time.Unix(2, 0), Until: time.Unix(1, 0)}},
	}
	for name, q := range tests {
		wantParam(t, q.Validate(), name)
	}
	for _, limit := range []int{0, MaxLimit + 1} {
		wantParam(t, Events{Types: types, Limit: limit, Cursor: &Cursor{Back: true}}.Validate(), "limit")
	}
	if err := (Events{Types: types, Window: Window{Since: time.Unix(2, 0), Until: time.Unix(2, 0)}}).Validate(); err != nil {
		t.Error(err)
	}
}
