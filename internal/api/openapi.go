package api

import (
	"encoding/json"
	"fmt"

	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"

	apidocs "github.com/srodi/ebpf-server/docs/api"
	"github.com/srodi/ebpf-server/internal/event"
)

//go:generate go run github.com/swaggo/swag/cmd/swag init --quiet --dir .,../query --generalInfo openapi.go --useStructName --outputTypes json --output ../../docs/api

const (
	schemas       = "#/components/schemas/"
	anySummary    = "/api/{collection}/summary" // stands for one path per type in the comments
	anyStory      = "/api/{collection}/{id}"    // and these for one per type with a life
	anyOpen       = "/api/{collection}/at"
	bearerScheme  = "token"
	mimeJSON      = "application/json"
	mimeProblem   = "application/problem+json"
	problemSchema = schemas + "Problem"
)

// OpenAPI makes the OpenAPI 3 description of the API: what swag made of the
// comments on the handlers, converted from OpenAPI 2, and with it what follows
// from the declared types: the filters, the events, and a path per summary.
//
//	@title			ebpf-server
//	@version		0
//	@description	What talked to what, what failed and what was dropped on this host, and how far the answer can be trusted.
//	@description	Times in answers are RFC 3339 in UTC. A value that is not known is left out. Unknown parameters are an error.
//	@description
//	@description	**Filters.** Every column is a parameter, and its operator stands between the name and the value: `state=failed&duration_ns>=1s&command!=sshd`. The first `=` of an operator is that of the query string, so a client that takes names and values apart sends `command!` with the value `sshd`, or `duration_ns>` with `1s`; escaped or not is the same. Each parameter has its operators in `x-operators`; in the JSON of a body, they end the name of the member (`"command!=": "sshd"`), and all such names are listed.
//	@description
//	@description	| operator | lets through |
//	@description	|---|---|
//	@description	| `=` | events with the value; repeated, with one of the values. Of an address also a network (`10.0.0.0/8`), of a text also its beginning (`ng*`; a star that is meant is `\*`) |
//	@description	| `!=` | all others, also those without a value; repeated, events that have none of the values |
//	@description	| `<` `<=` `>` `>=` | numbers alone, with units where the column has one (`1s`, `250ms`, `64kB`, `1MiB`); events without a value never match |
//	@description	| `absent=column`, `present=column` | events without a value in the column, or with one |
//	@description
//	@description	All filters must let an event through.
//	@license.name	MIT
//	@tag.name			events
//	@tag.name			summaries
//	@tag.name			state
func OpenAPI(version string, types []*event.Type) ([]byte, error) {
	var v2 openapi2.T
	if err := json.Unmarshal(apidocs.Swagger, &v2); err != nil {
		return nil, fmt.Errorf("read generated API description: %w", err)
	}
	doc, err := openapi2conv.ToV3(&v2)
	if err != nil {
		return nil, fmt.Errorf("convert API description to OpenAPI 3: %w", err)
	}
	doc.Info.Version = version
	describeToken(doc)
	describeFilters(doc)
	describeEvents(doc, types)
	describeSummaries(doc, types)
	describeLives(doc, types)
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			fixProblems(op)
		}
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write API description: %w", err)
	}
	return body, nil
}

// describeToken says that a token may be asked for, but never by /health.
func describeToken(doc *openapi3.T) {
	doc.Components.SecuritySchemes = openapi3.SecuritySchemes{bearerScheme: {
		Value: openapi3.NewSecurityScheme().WithType("http").WithScheme("bearer").
			WithDescription("Only where the server is configured with a token."),
	}}
	doc.Security = openapi3.SecurityRequirements{{}, {bearerScheme: {}}}
	doc.Paths.Value("/health").Get.Security = &openapi3.SecurityRequirements{}
}

// fixProblems gives errors their media type: OpenAPI 2 knows one for all answers.
func fixProblems(op *openapi3.Operation) {
	for _, response := range op.Responses.Map() {
		for _, media := range response.Value.Content { // of whatever kind the answer itself is
			if media.Schema != nil && media.Schema.Ref == problemSchema {
				response.Value.Content = openapi3.Content{mimeProblem: media}
			}
		}
	}
}

// describeEvents adds a schema per type and every column as a filter.
func describeEvents(doc *openapi3.T, types []*event.Type) {
	anyEvent := openapi3.NewSchema()
	anyEvent.Discriminator = &openapi3.Discriminator{PropertyName: "type", Mapping: map[string]openapi3.MappingRef{}}
	for _, t := range types {
		doc.Components.Schemas[t.Name] = openapi3.NewSchemaRef("", eventSchema(t))
		anyEvent.OneOf = append(anyEvent.OneOf, openapi3.NewSchemaRef(schemas+t.Name, nil))
		anyEvent.Discriminator.Mapping[t.Name] = openapi3.MappingRef{Ref: schemas + t.Name}
	}
	doc.Components.Schemas["Event"] = openapi3.NewSchemaRef("", anyEvent)
	doc.Components.Schemas["EventOfFields"] = openapi3.NewSchemaRef("", eventOfFields(types))
	some := openapi3.NewSchema()
	some.AnyOf = openapi3.SchemaRefs{openapi3.NewSchemaRef(schemas+"Event", nil), openapi3.NewSchemaRef(schemas+"EventOfFields", nil)}
	doc.Components.Schemas["EventPage"].Value.Properties["events"].Value.Items = openapi3.NewSchemaRef("", some)

	op := doc.Paths.Value("/api/events").Get
	content := op.Responses.Value("200").Value.Content
	content[mimeNDJSON] = openapi3.NewMediaType().WithSchema(some)
	content[mimeCSV] = openapi3.NewMediaType().WithSchema(openapi3.NewStringSchema())
	content[mimeParquet] = openapi3.NewMediaType().WithSchema(openapi3.NewStringSchema().WithFormat("binary"))
	for _, op := range []*openapi3.Operation{op, doc.Paths.Value("/api/events/stream").Get} {
		op.Parameters.GetByInAndName(openapi3.ParameterInQuery, "type").Schema.Value.Items.Value.Enum = typeNames(types)
		addFilters(op, types)
	}
}

func typeNames(types []*event.Type) []any {
	var names []any
	for _, t := range types {
		names = append(names, t.Name)
	}
	return names
}

func eventSchema(t *event.Type) *openapi3.Schema {
	schema := openapi3.NewObjectSchema().WithoutAdditionalProperties()
	schema.Description = t.Summary
	schema.Required = []string{"time", "type"}
	kind := openapi3.NewStringSchema().WithEnum(t.Name)
	kind.Description = "Type of the event."
	schema.WithProperty("type", kind)
	for _, c := range t.Shown() {
		schema.WithProperty(c.Name, columnSchema(c))
	}
	return schema
}

// eventOfFields is an event of which the parameter fields names what is told.
func eventOfFields(types []*event.Type) *openapi3.Schema {
	schema := openapi3.NewObjectSchema().WithoutAdditionalProperties()
	schema.Description = "What is left of an event with the parameter fields: of any type, and perhaps without time and type."
	for _, t := range types {
		for name, of := range eventSchema(t).Properties {
			if schema.Properties[name] != nil { // of several types, which agree on its kind
				of = openapi3.NewSchemaRef("", &openapi3.Schema{Type: of.Value.Type, Format: of.Value.Format, Description: of.Value.Description})
			}
			schema.WithPropertyRef(name, of)
		}
	}
	return schema
}

func columnSchema(c event.Column) *openapi3.Schema {
	schema := openapi3.NewStringSchema()
	switch c.Kind {
	case event.KindInt:
		schema = openapi3.NewInt64Schema()
	case event.KindTime:
		schema = openapi3.NewDateTimeSchema()
	}
	schema.Description = c.Description
	if c.Unit != "" {
		schema.Description += " Unit: " + c.Unit + "."
		schema.Extensions = map[string]any{"x-unit": c.Unit}
	}
	for _, value := range c.Values {
		schema.Enum = append(schema.Enum, value)
	}
	if c.Example != "" {
		schema.Example = c.Example
		if n, err := strconv.ParseInt(c.Example, 10, 64); err == nil && c.Kind == event.KindInt {
			schema.Example = n
		}
	}
	return schema
}

// describeSummaries puts a path per type in place of the one in the comments.
func describeSummaries(doc *openapi3.T, types []*event.Type) {
	common := doc.Paths.Value(anySummary)
	doc.Paths.Delete(anySummary)
	describeGroups(doc)
	for _, t := range types {
		get, post := *common.Get, *common.Post
		get.Parameters = slices.Clone(common.Get.Parameters)
		for _, op := range []*openapi3.Operation{&get, &post} {
			op.OperationID += "-" + t.Collection
			op.Summary = strings.ReplaceAll(t.Collection, "_", " ") + ": " + op.Summary
			op.Description = t.Summary + " " + op.Description + " Filters have the operators that /api/events describes."
		}
		body := summaryBody(t, get.Parameters)
		post.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithContent(openapi3.Content{mimeJSON: body})}
		addFilters(&get, []*event.Type{t})
		doc.Paths.Set("/api/"+t.Collection+"/summary", &openapi3.PathItem{Get: &get, Post: &post})
	}
}

// describeGroups says what the Go fields of a Group do not tell.
func describeGroups(doc *openapi3.T) {
	doc.Components.Schemas["Group"].Value.Description = "The columns that the group shares, under their own names (time: when the interval begins), and the figures of its events."
}
