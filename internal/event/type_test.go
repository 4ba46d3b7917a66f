package event_test

import (
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
)

func TestNewTypeRejects(t *testing.T) {
	column := func(c event.Column) []event.Column {
		return append([]event.Column{{Name: "state", Kind: event.KindString, Description: "State."}}, c)
	}
	tests := map[string]event.Type{
		"name":                 {Name: "Test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"collection":           {Name: "test", Collection: "", Breakdown: "state", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"column name":          {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "A", Kind: event.KindInt, Description: "."})},
		"the name type":        {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "type", Kind: event.KindInt, Description: "."})},
		"a common column":      {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "pid", Kind: event.KindInt, Description: "."})},
		"a second time":        {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "a", Kind: event.KindTime, Description: "."})},
		"no kind":              {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "a", Description: "."})},
		"a sum of texts":       {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "a", Kind: event.KindString, Sum: true, Description: "."})},
		"no description":       {Name: "test", Collection: "tests", Breakdown: "state", Columns: column(event.Column{Name: "a", Kind: event.KindInt})},
		"breakdown by numbers": {Name: "test", Collection: "tests", Breakdown: "a", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"an unknown top":       {Name: "test", Collection: "tests", Breakdown: "state", Top: []string{"b"}, Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"an unknown weight":    {Name: "test", Collection: "tests", Breakdown: "state", Weight: "b", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"a common weight":      {Name: "test", Collection: "tests", Breakdown: "state", Weight: "pid", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"a weight in text":     {Name: "test", Collection: "tests", Breakdown: "state", Weight: "state", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Description: "."})},
		"a sum of weights":     {Name: "test", Collection: "tests", Breakdown: "state", Weight: "a", Columns: column(event.Column{Name: "a", Kind: event.KindInt, Sum: true, Description: "."})},
	}
	for name, declaration := range tests {
		if _, err := event.NewType(declaration); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestColumn(t *testing.T) {
	if i, ok := testType.Column("pid"); !ok || i != event.PID {
		t.Errorf("pid is at %d, %v", i, ok)
	}
	if _, ok := testType.Column("nothing"); ok {
		t.Error("found a column that is not there")
	}
}
