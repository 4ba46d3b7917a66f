package api

import (
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	operatorsKey  = "x-operators" // of a parameter: what may stand between its name and its value
	operandSchema = "FilterOperand"
)

// describeFilters adds what stands behind an operator in the JSON of a body.
func describeFilters(doc *openapi3.T) {
	one := func() *openapi3.Schema {
		return openapi3.NewOneOfSchema(openapi3.NewStringSchema(), openapi3.NewFloat64Schema())
	}
	operand := openapi3.NewOneOfSchema(openapi3.NewStringSchema(), openapi3.NewFloat64Schema(), openapi3.NewArraySchema().WithItems(one()).WithMinItems(1))
	operand.Description = "A value of the column, or a list: behind != of values that an event must not have, behind < <= > >= of numbers for which all of it must be true."
	doc.Components.Schemas[operandSchema] = openapi3.NewSchemaRef("", operand)
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
// ask whether there is a value. OpenAPI has no way to describe operators, which are
// in the names of parameters: each parameter lists its own (operatorsKey), and the
// text of the document says how they are written.
func addFilters(op *openapi3.Operation, types []*event.Type) {
	for _, name := range query.FilterNames(types) {
		if slices.Contains(query.Presence, name) {
			op.AddParameter(filterParameter(name, "Columns, also with commas between them: events in which each is "+name+".", openapi3.NewStringSchema()))
			continue
		}
		var schema *openapi3.Schema
		var operators []string
		var owners []string
		for _, t := range types {
			i, ok := t.Field(name)
			if !ok {
				continue
			}
			owners = append(owners, t.Name)
			mine := filterSchema(t.Shown()[i])
			if schema == nil {
				schema, operators = mine, query.Operators(t.Shown()[i].Kind)
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
		p := filterParameter(name, description+" Operators: "+strings.Join(operators, " ")+".", schema)
		p.Extensions = map[string]any{operatorsKey: operators}
		op.AddParameter(p)
	}
}

func filterParameter(name, description string, of *openapi3.Schema) *openapi3.Parameter {
	p := openapi3.NewQueryParameter(name).WithSchema(openapi3.NewArraySchema().WithItems(of))
	p.Description = description
	p.Style, p.Explode = openapi3.SerializationForm, openapi3.Ptr(true)
	return p
}

// summaryBody is the object that POST takes: the parameters of GET, with the
// columns both beside them and in "filters".
func summaryBody(t *event.Type, parameters openapi3.Parameters) *openapi3.MediaType {
	filters := openapi3.NewObjectSchema().WithoutAdditionalProperties()
	filters.Description = "A value, or a list of values, for each of some columns, with an operator behind the name or without, or under absent and present a list of columns. All of it is also taken outside of this object."
	for _, c := range t.Shown() {
		if c.Kind == event.KindTime {
			continue
		}
		one := filterSchema(c)
		either := openapi3.NewOneOfSchema(one, openapi3.NewArraySchema().WithItems(one).WithMinItems(1))
		either.Description = one.Description
		filters.WithProperty(c.Name, either)
		for _, operator := range query.Operators(c.Kind) {
			if operator != "=" {
				filters.WithPropertyRef(c.Name+operator, openapi3.NewSchemaRef(schemas+operandSchema, nil))
			}
		}
	}
	for _, name := range query.Presence {
		filters.WithProperty(name, openapi3.NewOneOfSchema(openapi3.NewStringSchema(), openapi3.NewArraySchema().WithItems(openapi3.NewStringSchema())))
	}
	body := openapi3.NewObjectSchema().WithoutAdditionalProperties()
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
