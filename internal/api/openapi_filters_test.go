package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// goodValue is one that a filter of a column takes.
func goodValue(c event.Column) string {
	switch {
	case c.Values != nil:
		return c.Values[0]
	case c.Example != "":
		return c.Example
	case c.Kind == event.KindInt:
		return "5"
	case c.Kind == event.KindIP:
		return "10.0.0.1"
	}
	return "text"
}

// The operators that a parameter lists are taken, and no others.
func TestOpenAPIOfOperators(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	content, err := OpenAPI("1.2.3", testTypes)
	if err != nil {
		t.Fatal(err)
	}
	doc := load(t, content)
	if !strings.Contains(doc.Info.Description, "| `<` `<=` `>` `>=` |") {
		t.Errorf("the document does not say what operators mean: %s", doc.Info.Description)
	}
	for path, types := range map[string][]*event.Type{
		"/api/events": testTypes, "/api/connections/summary": {connectionType}, "/api/packet_drops/summary": {dropType}, "/api/connections/at": {connectionType},
	} {
		for _, name := range query.FilterNames(types) {
			if slices.Contains(query.Presence, name) {
				continue
			}
			p := doc.Paths.Value(path).Get.Parameters.GetByInAndName("query", name)
			text, _ := json.Marshal(p.Extensions[operatorsKey])
			var operators []string
			if err := json.Unmarshal(text, &operators); err != nil || !strings.Contains(p.Description, "Operators: "+strings.Join(operators, " ")+".") {
				t.Errorf("%s: %s has the operators %s and is described as %s", path, name, text, p.Description)
			}
			value := ""
			for _, typ := range types {
				if at, ok := typ.Column(name); ok {
					value = goodValue(typ.Columns[at])
				}
			}
			for _, operator := range []string{"=", "!=", "<", "<=", ">", ">="} {
				want := http.StatusBadRequest
				if slices.Contains(operators, operator) {
					want = http.StatusOK
				}
				for _, filter := range []string{name + operator, url.QueryEscape(name + strings.TrimSuffix(operator, "="))} {
					if filter != name+operator {
						if !strings.HasSuffix(operator, "=") {
							continue
						}
						filter += "=" // as a client does that takes names and values apart
					}
					if status, problem, _ := asked(t, http.MethodGet, base+path+"?"+filter+url.QueryEscape(value), ""); status != want {
						t.Errorf("%s?%s%s is answered with %d, want %d: %s", path, filter, value, status, want, problem.Detail)
					}
				}
			}
		}
	}
}

// What the body of a summary is said to have is taken.
func TestOpenAPIOfBodies(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	content, err := OpenAPI("1.2.3", testTypes)
	if err != nil {
		t.Fatal(err)
	}
	doc := load(t, content)
	for _, typ := range testTypes {
		path := "/api/" + typ.Collection + "/summary"
		schema := doc.Paths.Value(path).Post.RequestBody.Value.Content[mimeJSON].Schema
		names := 0
		for name := range schema.Value.Properties[filtersField].Value.Properties {
			at, ok := typ.Column(strings.TrimRight(name, "!<>="))
			if !ok {
				continue // a question of its own: absent, present
			}
			names++
			value, _ := json.Marshal(goodValue(typ.Columns[at]))
			for _, form := range []string{`{%q:%s}`, `{%q:[%s]}`, `{"filters":{%q:%s}}`} {
				if typ.Columns[at].Kind == event.KindInt && !strings.ContainsAny(name, "!<>") {
					value = []byte(strings.Trim(string(value), `"`))
				}
				body := fmt.Sprintf(form, name, value)
				matches(t, schema, []byte(body))
				if status, problem, _ := asked(t, http.MethodPost, base+path, body); status != http.StatusOK {
					t.Errorf("%s %s is answered with %d: %s", path, body, status, problem.Detail)
				}
			}
		}
		want := 0
		for _, c := range typ.Columns {
			if c.Kind != event.KindTime {
				want += len(query.Operators(c.Kind))
			}
		}
		if names != want {
			t.Errorf("%s: %d filters are listed, want %d", path, names, want)
		}
		if err := schema.Value.VisitJSON(map[string]any{"command>": "x"}); err == nil {
			t.Errorf("%s: an operator that a text does not have is described", path)
		}
	}
}
