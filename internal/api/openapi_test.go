package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/srodi/ebpf-server/internal/query"
)

func TestDocs(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	scenarios(t, base, []scenario{
		{name: "page", url: "/docs/", status: 200, contentType: "text/html; charset=utf-8", contains: []string{"swagger-ui-bundle.js", `url: "openapi.json"`}, lacks: []string{"doc.json", "https://"}},
		{name: "page with a query", url: "/docs/?a=b/c", status: 200, contentType: "text/html; charset=utf-8", contains: []string{"swagger-ui-bundle.js"}},
		{name: "HEAD of the page", method: "HEAD", url: "/docs/", status: 200, contentType: "text/html; charset=utf-8"},
		{name: "script", url: "/docs/swagger-ui-bundle.js", status: 200, contentType: "text/javascript; charset=utf-8"},
		{name: "style", url: "/docs/swagger-ui.css", status: 200, contentType: "text/css; charset=utf-8"},
		{name: "no slash", url: "/docs", status: 302, header: map[string]string{"Location": "/docs/"}},
		{name: "no such file", url: "/docs/nothing.js", status: 404},
		{name: "nothing outside", url: "/docs/..%2fgo.mod", status: 404},
		{name: "document", url: "/docs/openapi.json", status: 200, contains: []string{`"openapi":"3.0.`, `"version":"1.2.3"`}},
	})
}

// Whatever the page loads is served beside it.
func TestDocsWorkOffline(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	content := get(t, base+"/docs/", http.StatusOK)
	found := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(string(content), -1)
	if len(found) < 4 {
		t.Fatalf("found only %q", found)
	}
	for _, file := range found {
		get(t, base+"/docs/"+strings.TrimPrefix(file[1], "./"), http.StatusOK)
	}
}

func get(t *testing.T, url string, status int) []byte {
	t.Helper()
	return request(t, http.MethodGet, url, "", status)
}

func request(t *testing.T, method, url, body string, status int) []byte {
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
	content, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status {
		t.Fatalf("%s %s: status %d, %v: %s", method, url, answer.StatusCode, err, content)
	}
	return content
}

func load(t *testing.T, content []byte) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(content)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	content, err := OpenAPI("1.2.3", testTypes)
	if err != nil {
		t.Fatal(err)
	}
	if err := load(t, content).Validate(t.Context()); err != nil {
		t.Error(err)
	}
	again, err := OpenAPI("1.2.3", testTypes)
	if err != nil || !bytes.Equal(content, again) {
		t.Error("the document differs from one time to the next")
	}
}

// Every route is described, every description answers, and what it answers,
// problems included, is as described.
func TestOpenAPIIsTrue(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	s, err := New(Options{Types: testTypes, Store: st, Programs: running(), Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	doc := load(t, s.openAPI)
	for _, route := range s.echo.Routes() {
		if route.Path == "/" || strings.HasPrefix(route.Path, "/docs") {
			continue // pages for people
		}
		if item := doc.Paths.Value(regexp.MustCompile(`:(\w+)`).ReplaceAllString(route.Path, "{$1}")); item == nil || item.GetOperation(route.Method) == nil {
			t.Errorf("%s %s is served but not described", route.Method, route.Path)
		}
	}
	base := serve(t, func(o *Options) { o.Store = st })
	for path, item := range doc.Paths.Map() {
		if strings.HasPrefix(path, "/api/storage/") || path == "/api/events/stream" {
			continue // TestPins, TestSnapshot and TestStream ask these
		}
		for method, op := range item.Operations() {
			query, body := "?since=2024-11-21T03:12:00Z&interval=1w&group_by=command&stats=pid&distinct=pid&compare=-2w", ""
			if !strings.HasSuffix(path, "/summary") {
				query = ""
			}
			path := strings.Replace(path, "{connection_id}", "3f2a-4", 1)
			if method == http.MethodPost {
				query, body = "", `{"since":0,"pid":[100,101]}`
				matches(t, op.RequestBody.Value.Content[mimeJSON].Schema, []byte(body))
			}
			answer := request(t, method, base+path+query, body, http.StatusOK)
			if described := op.Responses.Value("200").Value.Content; described[mimeJSON] != nil {
				matches(t, described[mimeJSON].Schema, answer)
			} else if path != "/metrics" || described["text/plain"] == nil {
				t.Errorf("%s is described as %v", path, described)
			}
			matches(t, op.Responses.Default().Value.Content[mimeProblem].Schema, request(t, method, base+path+"?colour=red", "", http.StatusBadRequest))
		}
	}
	first := doc.Paths.Value("/api/connections/summary").Get.Responses.Value("200").Value.Content[mimeJSON].Schema
	matches(t, first, get(t, base+"/api/connections/summary?since=2024-11-21T03:12:00Z&first_seen=destination_ip", http.StatusOK))
	line := doc.Paths.Value("/api/events").Get.Responses.Value("200").Value.Content[mimeNDJSON].Schema
	for _, event := range bytes.Split(bytes.TrimSpace(get(t, base+"/api/events?format=ndjson", http.StatusOK)), []byte("\n")) {
		matches(t, line, event)
	}
	page := doc.Paths.Value("/api/events").Get.Responses.Value("200").Value.Content[mimeJSON].Schema
	for _, fields := range []string{"command", "type,state,length", "time", "protocol"} {
		matches(t, page, get(t, base+"/api/events?fields="+fields, http.StatusOK))
	}
}

func matches(t *testing.T, schema *openapi3.SchemaRef, content []byte) {
	t.Helper()
	var value any
	if err := json.Unmarshal(content, &value); err != nil {
		t.Errorf("%v: %s", err, content)
	} else if err := schema.Value.VisitJSON(value); err != nil {
		t.Errorf("%v: %s", err, content)
	}
}

// Every column is a filter, with what is known of its values.
func TestOpenAPIOfColumns(t *testing.T) {
	content, err := OpenAPI("1.2.3", testTypes)
	if err != nil {
		t.Fatal(err)
	}
	doc := load(t, content)
	events := doc.Paths.Value("/api/events").Get.Parameters
	drops := doc.Paths.Value("/api/packet_drops/summary").Get.Parameters
	for _, name := range append(append([]string{}, query.EventParams...), query.FilterNames(testTypes)...) {
		if events.GetByInAndName("query", name) == nil {
			t.Errorf("/api/events: parameter %s is not described", name)
		}
	}
	protocol := events.GetByInAndName("query", "protocol").Schema.Value.Items.Value
	if len(protocol.Enum) != 3 {
		t.Errorf("protocol of either type is one of %v", protocol.Enum)
	}
	if got := len(drops.GetByInAndName("query", "protocol").Schema.Value.Items.Value.Enum); got != 2 {
		t.Errorf("protocol of drops has %d values", got)
	}
	if drops.GetByInAndName("query", "state") != nil || events.GetByInAndName("query", "time") != nil {
		t.Error("columns are described where they are no filters")
	}
	length := doc.Components.Schemas["packet_drop"].Value.Properties["length"].Value
	if length.Extensions["x-unit"] != "bytes" || !strings.Contains(length.Description, "Its size.") {
		t.Errorf("length: %+v", length)
	}
}
