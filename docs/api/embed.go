// Package apidocs holds the part of the API's description that is generated
// from comments in the code.
package apidocs

import _ "embed"

// Swagger is what swag made of the comments on the handlers in internal/api:
// an OpenAPI 2 document. The server serves an OpenAPI 3 document, to which it
// adds what follows from the declared event types; see OpenAPI there,
// and the command that writes the file.
//
//go:embed swagger.json
var Swagger []byte
