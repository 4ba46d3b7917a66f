package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/live"
)

// hostile are values that nobody means well with. None is a number, an address, an
// id, a time, or one of a closed set.
var hostile = []string{
	"", " ", "\x00", "curl\x00", "\xff\xfe", "\xed\xa0\x80", "\u202e", "\ufeff", "💩", strings.Repeat("9", 20_000), strings.Repeat("ä", 5_000),
	"1e400", "9223372036854775808", "-9223372036854775809", "0x10", "1_000", "+-1", "NaN", "Infinity", "1.5.2", " 5", "5 ", "١٢٣",
	"' OR 1=1 --", `"; DROP TABLE events; --`, "${jndi:ldap://x}", "{{7*7}}", "<script>alert(1)</script>", "../../etc/passwd", "%s%n%x", "%00",
	"10.0.0.0/33", "1.2.3.4.5", "::g", "fe80::1%eth0", "::/-1", "*x", "a=b&c=d", "a\r\nX-Evil: 1", "-", "-ff", "now-", "--1m", "-5", ",",
	"2024-13-45T99:99:99Z", "1e3", "true;false", "[]", "{}", "null",
}

// asked sends a request as it is, and returns the answer.
func asked(t *testing.T, method, url, body string) (status int, p Problem, content []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.Header.Get("Content-Type") == mimeStream { // which has no end
		return answer.StatusCode, p, nil
	}
	content, err = io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode >= 400 {
		if err := json.Unmarshal(content, &p); err != nil {
			t.Fatalf("%v: %.300s", err, content)
		}
	}
	return answer.StatusCode, p, content
}

// takesAny are the columns of texts that may be anything.
func takesAny(name string) bool {
	for _, typ := range testTypes {
		if at, ok := typ.Column(name); ok && typ.Columns[at].Kind == event.KindString && typ.Columns[at].Values == nil {
			return true
		}
	}
	return false
}

func isText(value string) bool { return utf8.ValidString(value) && !strings.Contains(value, "\x00") }

// isGood tells the few values that some parameter takes.
func isGood(name, value string) bool {
	switch name {
	case "duration", "interval":
		return value == "1e3" || value == "1_000"
	case "compare": // seconds back
		return value == "-5"
	case "connection_id": // in which anything may stand before the number
		return value == "+-1" || value == "::/-1"
	}
	for _, typ := range testTypes {
		if at, ok := typ.Column(name); ok {
			return value == "-5" && typ.Columns[at].Kind == event.KindInt
		}
	}
	return false
}

// Every parameter of every path refuses what it cannot mean, by its name, and takes
// the rest.
func TestHostileParameters(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store, o.Feed = st, live.NewFeed() })
	content, err := OpenAPI("1.2.3", testTypes)
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range load(t, content).Paths.Map() {
		if item.Get == nil || path == "/api/storage/snapshot" {
			continue
		}
		known := map[string]bool{}
		for _, p := range item.Get.Parameters {
			known[p.Value.Name] = true
			if p.Value.In != openapi3.ParameterInQuery {
				continue
			}
			hostileValues(t, base+path, p.Value)
		}
		// Parameters that there are not.
		for _, value := range hostile {
			key := "x" + value
			status, problem, _ := asked(t, http.MethodGet, base+path+"?"+url.Values{key: {"1"}}.Encode(), "")
			if status != http.StatusBadRequest || !strings.HasPrefix(problem.Field, "x") {
				t.Errorf("%s: a parameter %.20q gets %d and is called %.40q", path, key, status, problem.Field)
			}
		}
	}
}

func hostileValues(t *testing.T, base string, p *openapi3.Parameter) {
	t.Helper()
	keys := []string{p.Name + "=%s"}
	if isColumn(p.Name) {
		keys = append(keys, p.Name+"!=%s", p.Name+"%%21%%3D%s", p.Name+"%%3E=%s", p.Name+"%%3C%s", p.Name+"=1&"+p.Name+"=%s")
	}
	for _, form := range keys {
		for _, value := range hostile {
			asks := base + "?" + fmt.Sprintf(form, url.QueryEscape(value))
			status, problem, _ := asked(t, http.MethodGet, asks, "")
			name, _ := url.QueryUnescape(fmt.Sprintf(form, "VALUE"))
			switch {
			case status == http.StatusBadRequest && problem.Field == p.Name && strings.Contains(problem.Detail, p.Name):
			case status == http.StatusBadRequest:
				t.Errorf("%s: %.20q gets a problem with %.40q: %s", name, value, problem.Field, problem.Detail)
			case status != http.StatusOK:
				t.Errorf("%s: %.20q gets %d: %s", name, value, status, problem.Detail)
			case isGood(p.Name, value):
			case value != "" && isText(value) && takesAny(p.Name) && !strings.ContainsAny(name, "<>"):
			default:
				t.Errorf("%s: %.20q is taken", name, value)
			}
		}
	}
	// Given twice.
	good := map[string]string{"since": "0", "until": "now", "limit": "5", "order": "asc", "format": "csv", "total": "true", "detail": "true", "top": "3", "interval": "1w", "duration": "60"}[p.Name]
	if good != "" {
		status, problem, _ := asked(t, http.MethodGet, base+"?"+p.Name+"="+good+"&"+p.Name+"="+good, "")
		if status != http.StatusBadRequest || problem.Field != p.Name {
			t.Errorf("%s given twice gets %d, %+v", p.Name, status, problem)
		}
	}
}

func isColumn(name string) bool {
	return slices.ContainsFunc(testTypes, func(typ *event.Type) bool { _, ok := typ.Column(name); return ok })
}

// The same in a JSON body, where values can be of any kind and of 64 KB.
func TestHostileBodies(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	content, err := OpenAPI("1.2.3", testTypes)
	if err != nil {
		t.Fatal(err)
	}
	post := load(t, content).Paths.Value("/api/connections/summary").Post
	// Of these, a column of texts takes the first ones.
	texts := []string{`1e999`, `1.5`, `99999999999999999999`, `"` + strings.Repeat("9", 64<<10) + `"`, `["\u0000"]`, `"\ud800"`, "\"\xff\"", `"' OR 1=1 --"`}
	values := slices.Concat(texts, []string{`true`, `{}`, `[]`, `[[]]`, `[null]`, `[{}]`, `""`, `[""]`})
	var names []string
	for name := range post.RequestBody.Value.Content[mimeJSON].Schema.Value.Properties {
		names = append(names, name)
		if isColumn(name) {
			names = append(names, name+"!=", name+"!", name+">=", name+">", name+"<=", name+"<")
		}
	}
	for _, name := range names {
		for _, value := range values {
			for _, body := range []string{fmt.Sprintf(`{%q:%s}`, name, value), fmt.Sprintf(`{"filters":{%q:%s}}`, name, value)} {
				status, problem, _ := asked(t, http.MethodPost, base+"/api/connections/summary", body)
				column := strings.TrimRight(name, "!<>=")
				switch {
				case status == http.StatusBadRequest && (problem.Field == name || problem.Field == column):
				case status == http.StatusOK && slices.Contains(texts, value) && value != `["\u0000"]` && takesAny(column) && !strings.ContainsAny(name, "<>"):
				case status == http.StatusOK && value == "1.5" && slices.Contains([]string{"since", "until", "duration", "interval"}, name):
				case status == http.StatusOK && value == "{}" && name == filtersField:
				default:
					t.Errorf("%.100s gets %d: %+v", body, status, problem)
				}
			}
		}
	}
	for _, field := range []string{"since", "until", "note"} {
		for _, value := range values {
			status, problem, _ := asked(t, http.MethodPost, base+"/api/storage/pins", fmt.Sprintf(`{%q:%s}`, field, value))
			if status != http.StatusBadRequest || problem.Field == "" {
				t.Errorf("a pin with %s %.40s gets %d: %+v", field, value, status, problem)
			}
		}
	}
	for _, id := range hostile[1:] {
		if status, _, _ := asked(t, http.MethodDelete, base+"/api/storage/pins/"+url.PathEscape(id), ""); status != http.StatusNotFound {
			t.Errorf("pin %.20q gets %d", id, status)
		}
	}
}

// The same filter in every way in which it can come.
func TestFiltersInBodies(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	for body, count := range map[string]int{
		`{"bytes_sent>":20}`:                                    7,
		`{"bytes_sent>=":20}`:                                   8,
		`{"bytes_sent>=":"0.02kB","bytes_sent<":[90,80]}`:       6,
		`{"filters":{"bytes_sent<=":20,"command!=":"curl"}}`:    1,
		`{"command!":["curl","nobody"]}`:                        5,
		`{"command!=":["curl","sshd"]}`:                         0,
		`{"state":"c*","absent":["uid","user"]}`:                8,
		`{"filters":{"present":"uid,pid"}}`:                     0,
		`{"state!=":"closed","present":"pid"}`:                  2,
		`{"destination_ip!=":"10.0.0.0/8"}`:                     1,
		`{"connection_id!=":"3f2a-1","destination_port>":"22"}`: 8,
	} {
		body = strings.TrimSuffix(body, "}") + `,"since":0}`
		status, problem, content := asked(t, http.MethodPost, base+"/api/connections/summary", body)
		if want := fmt.Sprintf(`"count":%d,`, count); status != http.StatusOK || !strings.Contains(string(content), want) {
			t.Errorf("%s: %d, %s, want %s in %.200s", body, status, problem.Detail, want, content)
		}
	}
}
