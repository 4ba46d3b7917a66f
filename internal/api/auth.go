package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/labstack/echo/v4"
)

// guard lets pass only requests of people who may ask.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		switch {
		case s.Token == "" && !localHost(r.Host):
			return newProblem(http.StatusMisdirectedRequest,
				"without a token this server answers only to localhost and IP addresses, not to the name "+shorten(r.Host))
		case s.Token != "" && r.URL.Path != "/health" && !s.authorized(r):
			c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="ebpf-server"`)
			return newProblem(http.StatusUnauthorized, "send the header Authorization: Bearer TOKEN, with the token in the server's auth_token_file")
		}
		return next(c)
	}
}

// localHost says whether the Host header of a request can be trusted where no
// token is asked for. A web page on some other site can make a browser here
// send requests to this server, but cannot read the answers, unless it lets
// the site's name resolve to 127.0.0.1 (DNS rebinding): then the browser takes
// this server for that site. Such a request carries the site's name, which an
// IP address or "localhost" never is. Programs that send no Host at all are
// no browsers.
func localHost(hostPort string) bool {
	host := hostPort
	if name, _, err := net.SplitHostPort(hostPort); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "" || strings.EqualFold(host, "localhost")
}

func (s *Server) authorized(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get(echo.HeaderAuthorization), " ")
	// Sums, as the comparison takes constant time only for equal lengths.
	given, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(s.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(given[:], want[:]) == 1
}
