// Package api answers questions about recorded events over HTTP: REST with
// JSON, errors as RFC 9457 problems, and an OpenAPI 3 description of itself.
package api

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

const (
	headerTimeout = 10 * time.Second // to send the header of a request
	bodyTimeout   = 30 * time.Second // to send its body
	writeTimeout  = time.Minute      // to take one piece of an answer
	idleTimeout   = 2 * time.Minute  // between two requests
	endTimeout    = time.Second / 2  // to take the end of a stream at Shutdown

	maxHeader = 64 << 10 // bytes, long filters in the query included
	maxBody   = 1 << 20  // bytes
)

// Store holds the events that are asked for; *store.Store is one.
type Store interface {
	Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error)
	Pieces(ctx context.Context, q query.Events, yield func(query.Piece) error) error
	Summary(ctx context.Context, q query.Summary) (*query.SummaryResult, error)
	Story(ctx context.Context, q query.Story, yield func(event.Row) error) (query.Told, error)
	At(ctx context.Context, q query.At, yield func(query.Open) error) (query.Opened, error)
	Status() query.Status
	Storage
}

// Programs lists the monitors; the daemon is one.
type Programs interface {
	// Programs returns every monitor, whatever its state, always in one order.
	Programs() []Program
}

// Options are what a Server needs. All fields without "optional" are required.
type Options struct {
	Types    []*event.Type // everything that can be asked for
	Store    Store
	Programs Programs
	Version  string
	Started  time.Time
	Logger   *slog.Logger

	// Feed has the events that Store gets, as they come. Optional: without it
	// there is no stream, as for a file that nobody records into.
	Feed Feed

	// Timings are shown at /metrics. Optional: without them those of requests
	// alone are.
	Timings *Timings

	// Drain returns when Store has all that happened before the call; so an answer
	// has everything from before its question. Optional: nothing is on its way.
	Drain func(context.Context) error

	// QueryTimeout is how long a question may look for events without sending any.
	// Optional: 0 is no limit.
	QueryTimeout time.Duration

	// Token, when not empty, must come with every request but those to
	// /health. Without one only a loopback address may be listened on, which
	// is for the caller to see to. Optional.
	Token string
	// CertFile and KeyFile hold a PEM certificate and its key; with them the
	// server speaks HTTPS only. Optional, both or none.
	CertFile, KeyFile string

	writeTimeout time.Duration // shorter in tests
	atOnce       int           // turns; fewer in tests
}

// Server is the HTTP API. Its life: New, Serve (which blocks), Shutdown.
type Server struct {
	Options

	echo    *echo.Echo
	http    *http.Server
	openAPI []byte // the document at /docs/openapi.json
	streams *streams
	ending  context.Context // ends when Shutdown begins
}

// New checks the options and prepares everything that can fail before there is
// a listener: the certificate and the API's description.
func New(o Options) (*Server, error) {
	if err := checkTypes(o.Types); err != nil {
		return nil, err
	}
	s := &Server{Options: o, echo: echo.New(), streams: newStreams()}
	if s.Timings == nil {
		s.Timings = NewTimings()
	}
	s.Store = inTurn{s.Store, s.Drain, make(turns, cmp.Or(s.atOnce, turnsOfHost()))}
	s.writeTimeout = cmp.Or(s.writeTimeout, writeTimeout)
	var err error
	if s.openAPI, err = OpenAPI(o.Version, o.Types); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	// Requests are waited for, but streams would never end by themselves.
	ending, end := context.WithCancel(context.Background())
	s.ending = ending
	s.http.RegisterOnShutdown(end)
	if o.CertFile != "" || o.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load TLS certificate %s with key %s: %w", o.CertFile, o.KeyFile, err)
		}
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	s.echo.HTTPErrorHandler = s.fail
	s.echo.Use(noteRoute, s.recoverPanic, s.guard)
	s.routes()
	return s, nil
}

// checkTypes refuses declarations that cannot be served side by side.
func checkTypes(types []*event.Type) error {
	if len(types) == 0 {
		return errors.New("prepare API: no event types are given")
	}
	reserved := slices.Concat(query.EventParams, query.SummaryParams, query.Presence, streamParams, []string{filtersField})
	seen := map[string]bool{}
	for _, t := range types {
		if seen[t.Name] || seen["/"+t.Collection] {
			return fmt.Errorf("prepare API: event type %s or its collection %s is declared twice", t.Name, t.Collection)
		}
		seen[t.Name], seen["/"+t.Collection] = true, true
		for _, c := range t.Shown() {
			if slices.Contains(reserved, c.Name) {
				return fmt.Errorf("prepare API: column %s of event type %s has the name of a parameter", c.Name, t.Name)
			}
		}
	}
	return nil
}

func (s *Server) routes() {
	s.echo.GET("/", toDocs)
	s.echo.GET("/health", s.health)
	s.echo.GET("/metrics", s.newMetrics())
	s.echo.GET("/api/programs", s.programs)
	s.echo.GET("/api/events", s.events, s.limit)
	if s.Feed != nil {
		s.echo.GET("/api/events/stream", s.stream)
	}
	for _, t := range s.Types {
		path := "/api/" + t.Collection + "/summary"
		s.echo.GET(path, s.getSummary(t), s.limit)
		s.echo.POST(path, s.postSummary(t), s.limit)
		if t.Life != nil {
			s.echo.GET("/api/"+t.Collection+"/at", s.openAt(t), s.limit)
			s.echo.GET("/api/"+t.Collection+"/:"+t.Life.ID, s.story(t), s.limit)
		}
	}
	s.echo.GET("/api/storage", s.storage)
	s.echo.GET("/api/storage/snapshot", s.snapshot)
	s.echo.GET("/api/storage/pins", s.pins)
	s.echo.POST("/api/storage/pins", s.addPin)
	s.echo.DELETE("/api/storage/pins/:id", s.removePin)
	s.echo.GET("/docs", toDocs)
	s.echo.GET("/docs/", docsPage())
	s.echo.GET("/docs/openapi.json", s.docsOpenAPI)
	s.echo.GET("/docs/:file", docsFile)
}

// Serve answers requests on l, which it closes in the end. It returns nil
// after Shutdown, and else why it had to stop.
func (s *Server) Serve(l net.Listener) error {
	serve := s.http.Serve
	if s.http.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve API on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown takes no new requests and waits for those under way. When ctx ends
// first, it breaks them off and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	_ = s.http.Close() // it fails only with what Shutdown has met already
	return fmt.Errorf("shut down API: %w", err)
}

// serve is the outermost handler: it sets time limits, logs and measures, and
// makes HEAD work wherever GET does.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	start, method := time.Now(), r.Method
	out := &response{ResponseWriter: w, control: http.NewResponseController(w), timeout: s.writeTimeout, route: noRoute, status: http.StatusOK}
	defer func() {
		s.Timings.answered(out.route, out.status, time.Since(start))
		s.Logger.Debug("request", "method", method, "uri", r.RequestURI, "status", out.status, "bytes", out.bytes,
			"took", time.Since(start), "remote", r.RemoteAddr)
	}()
	if r.ContentLength != 0 {
		// http.Server.ReadTimeout will not do: it goes on running while the
		// answer is made, and cancels the request's context when it ends.
		_ = out.control.SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	if out.head = r.Method == http.MethodHead; out.head {
		r = r.WithContext(r.Context()) // a copy: net/http leaves out the body as long as its own says HEAD
		r.Method = http.MethodGet
	}
	out.Header().Set("X-Content-Type-Options", "nosniff")
	s.echo.ServeHTTP(out, r)
	out.extend() // for what net/http still holds in its buffer
}

// response gives every write a time limit of its own: an answer may take long
// while the client keeps reading, but a client that stops is let go, and the
// events that were gathered for it with it.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	head    bool // the body goes nowhere
	route   string
	timeout time.Duration
	status  int
	bytes   int64

	mu    sync.Mutex
	ended bool // see end
}

func (r *response) extend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		_ = r.control.SetWriteDeadline(time.Now().Add(r.timeout)) // fails only on a connection that is gone
	}
}

// end leaves only a moment for what is being written and what still is.
func (r *response) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	_ = r.control.SetWriteDeadline(time.Now().Add(endTimeout))
}

func (r *response) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(p []byte) (int, error) {
	r.extend()
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// recoverPanic turns a panic into a 500. The stack goes to the log only.
func (s *Server) recoverPanic(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if cause := recover(); cause != nil {
				s.Logger.Error("request panicked", "uri", c.Request().RequestURI, "panic", cause, "stack", string(debug.Stack()))
				err = newProblem(http.StatusInternalServerError, "the server met a bug; its log has the details")
			}
		}()
		return next(c)
	}
}
