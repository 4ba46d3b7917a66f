package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"

	apidocs "github.com/srodi/ebpf-server/docs/api"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
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
	doc.Components.Schemas["EventPage"].Value.Properties["events"].Value.Items = openapi3.NewSchemaRef(schemas+"Event", nil)

	op := doc.Paths.Value("/api/events").Get
	content := op.Responses.Value("200").Value.Content
	content[mimeNDJSON] = openapi3.NewMediaType().WithSchemaRef(openapi3.NewSchemaRef(schemas+"Event", nil))
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

// filterSchema is one wanted value of a column.
func filterSchema(c event.Column) *openapi3.Schema {
	schema := columnSchema(c)
	switch {
	case c.Kind == event.KindIP:
		schema.Description += " An address, or a network such as 10.0.0.0/8."
	case c.Unit == "bytes":
		return orText(schema, " A number, or a size such as 64kB or 1MiB.")
	case c.Unit == "ns" || c.Unit == "us":
		return orText(schema, " A number, or a time span such as 250ms.")
	}
	return schema
}

func orText(number *openapi3.Schema, description string) *openapi3.Schema {
	either := openapi3.NewOneOfSchema(openapi3.NewInt64Schema(), openapi3.NewStringSchema())
	either.Description, either.Example, either.Extensions = number.Description+description, number.Example, number.Extensions
	return either
}

// addFilters adds a query parameter for every column of the types, and those that
// ask whether there is a value. OpenAPI has no way to describe the operators, which
// are in the names of parameters; the text of the operations does.
func addFilters(op *openapi3.Operation, types []*event.Type) {
	for _, name := range query.FilterNames(types) {
		if slices.Contains(query.Presence, name) {
			op.AddParameter(filterParameter(name, "Columns, also with commas between them: events in which each is "+name+".", openapi3.NewStringSchema()))
			continue
		}
		var schema *openapi3.Schema
		var owners []string
		for _, t := range types {
			i, ok := t.Field(name)
			if !ok {
				continue
			}
			owners = append(owners, t.Name)
			mine := filterSchema(t.Shown()[i])
			if schema == nil {
				schema = mine
			}
			if len(mine.Enum) == 0 || len(schema.Enum) == 0 {
				schema.Enum = nil // a type that takes any value
			}
			for _, value := range mine.Enum {
				if len(schema.Enum) > 0 && !slices.Contains(schema.Enum, value) {
					schema.Enum = append(schema.Enum, value)
				}
			}
		}
		description := "Filter. " + schema.Description
		if len(owners) < len(types) {
			description += " Only " + strings.Join(owners, ", ") + "."
		}
		op.AddParameter(filterParameter(name, description, schema))
	}
}

func filterParameter(name, description string, of *openapi3.Schema) *openapi3.Parameter {
	p := openapi3.NewQueryParameter(name).WithSchema(openapi3.NewArraySchema().WithItems(of))
	p.Description = description
	p.Style, p.Explode = openapi3.SerializationForm, openapi3.Ptr(true)
	return p
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

// summaryBody is the object that POST takes: the parameters of GET, with the
// columns both beside them and in "filters".
func summaryBody(t *event.Type, parameters openapi3.Parameters) *openapi3.MediaType {
	operated := openapi3.NewSchema() // whose names OpenAPI cannot list
	operated.Description = "A value, or a list of values, of a column with an operator behind its name: command!=, or of numbers also <, <=, > and >=."
	filters := openapi3.NewObjectSchema().WithAdditionalProperties(operated)
	filters.Description = "A value, or a list of values, for each of some columns, or under absent and present a list of columns. All of it is also taken outside of this object."
	for _, c := range t.Shown() {
		if c.Kind == event.KindTime {
			continue
		}
		one := filterSchema(c)
		either := openapi3.NewOneOfSchema(one, openapi3.NewArraySchema().WithItems(one).WithMinItems(1))
		either.Description = one.Description
		filters.WithProperty(c.Name, either)
	}
	for _, name := range query.Presence {
		filters.WithProperty(name, openapi3.NewOneOfSchema(openapi3.NewStringSchema(), openapi3.NewArraySchema().WithItems(openapi3.NewStringSchema())))
	}
	body := openapi3.NewObjectSchema().WithAdditionalProperties(operated)
	maps.Copy(body.Properties, filters.Properties)
	body.WithProperty(filtersField, filters)
	for _, p := range parameters {
		schema := *p.Value.Schema.Value
		if schema.Type.Is(openapi3.TypeString) {
			schema = *openapi3.NewOneOfSchema(openapi3.NewStringSchema(), openapi3.NewFloat64Schema()) // times and time spans
		}
		schema.Description = p.Value.Description
		body.WithProperty(p.Value.Name, &schema)
	}
	media := openapi3.NewMediaType().WithSchema(body)
	media.Example = map[string]any{"duration": 60}
	return media
}
