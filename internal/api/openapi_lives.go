package api

import (
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/srodi/ebpf-server/internal/event"
)

// describeLives puts paths per type with a life in place of those in the comments.
func describeLives(doc *openapi3.T, types []*event.Type) {
	story, open := doc.Paths.Value(anyStory).Get, doc.Paths.Value(anyOpen).Get
	doc.Paths.Delete(anyStory)
	doc.Paths.Delete(anyOpen)
	doc.Components.Schemas["StoryPage"].Value.Properties["events"].Value.Items = openapi3.NewSchemaRef(schemas+"Event", nil)
	page := doc.Components.Schemas["OpenPage"].Value
	delete(doc.Components.Schemas, "OpenPage")
	for _, t := range types {
		if t.Life == nil {
			continue
		}
		one, opened := *story, *open
		for _, op := range []*openapi3.Operation{&one, &opened} {
			op.OperationID += "-" + t.Collection
			op.Summary = strings.ReplaceAll(t.Collection, "_", " ") + ": " + op.Summary
		}
		id := *story.Parameters.GetByInAndName(openapi3.ParameterInPath, "id")
		id.Name = t.Life.ID
		one.Parameters = append(openapi3.Parameters{{Value: &id}}, story.Parameters[1:]...)
		doc.Paths.Set("/api/"+t.Collection+"/{"+t.Life.ID+"}", &openapi3.PathItem{Get: &one})

		opened.Parameters = slices.Clone(open.Parameters)
		addFilters(&opened, []*event.Type{t})
		answer := *open.Responses.Value("200").Value
		answer.Content = openapi3.Content{mimeJSON: openapi3.NewMediaType().WithSchema(openPageSchema(page, t))}
		opened.Responses = openapi3.NewResponsesWithCapacity(open.Responses.Len())
		for status, response := range open.Responses.Map() {
			opened.Responses.Set(status, response)
		}
		opened.Responses.Set("200", &openapi3.ResponseRef{Value: &answer})
		doc.Paths.Set("/api/"+t.Collection+"/at", &openapi3.PathItem{Get: &opened})
	}
}

// openPageSchema is the answer for a type: its events, with their age.
func openPageSchema(page *openapi3.Schema, t *event.Type) *openapi3.Schema {
	age := openapi3.NewInt64Schema()
	age.Description = "How long it had been open. Left out where that is not known. Unit: ns."
	own := *page
	own.Properties = maps.Clone(page.Properties)
	own.Properties["events"] = openapi3.NewSchemaRef("", openapi3.NewArraySchema().WithItems(eventSchema(t).WithProperty("age_ns", age)))
	return &own
}
