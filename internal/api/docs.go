package api

import (
	"io/fs"
	"net/http"

	"github.com/labstack/echo/v4"
	echoSwagger "github.com/swaggo/echo-swagger"
	swaggerFiles "github.com/swaggo/files/v2"
)

// The pages of /docs/ work without the Internet, and this makes browsers see
// to it. Swagger UI sets styles and starts itself from within the page.
const docsPolicy = "default-src 'none'; connect-src 'self'; script-src 'self' 'unsafe-inline'; " +
	"style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

func toDocs(c echo.Context) error {
	return c.Redirect(http.StatusFound, "/docs/")
}

// docsPage serves Swagger UI showing the document beside it.
func docsPage() echo.HandlerFunc {
	page := echoSwagger.EchoWrapHandler(func(c *echoSwagger.Config) { c.URLs = []string{"openapi.json"} })
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentSecurityPolicy, docsPolicy)
		// The wrapper takes the name of the file that it serves from RequestURI.
		r := c.Request().WithContext(c.Request().Context())
		r.RequestURI = "/docs/index.html"
		c.SetRequest(r)
		return page(c)
	}
}

// docsFile serves what the page loads.
func docsFile(c echo.Context) error {
	if _, err := fs.Stat(swaggerFiles.FS, c.Param("file")); err != nil {
		return echo.ErrNotFound
	}
	http.ServeFileFS(c.Response(), c.Request(), swaggerFiles.FS, c.Param("file"))
	return nil
}

func (s *Server) docsOpenAPI(c echo.Context) error {
	return c.JSONBlob(http.StatusOK, s.openAPI)
}
