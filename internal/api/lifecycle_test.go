package api

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

func TestRouting(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	allow := func(methods string) map[string]string { return map[string]string{"Allow": methods} }
	scenarios(t, base, []scenario{
		{name: "root", url: "/", status: 302, header: map[string]string{"Location": "/docs/"}},
		{name: "nothing", url: "/nothing", status: 404, contains: []string{`"title":"Not Found"`, `"instance":"/nothing"`, "/docs/"}},
		{name: "nothing with odd letters", url: "/%00%ff/%3Cscript%3E", status: 404, contains: []string{`"instance":"/%00%ff/%3Cscript%3E"`}, lacks: []string{"<script>"}},
		{name: "long path", url: "/" + strings.Repeat("x", 10_000), status: 404},
		{name: "slash at the end", url: "/api/events/", status: 404},
		{name: "wrong method", method: "DELETE", url: "/api/events", status: 405, header: allow("OPTIONS, GET, HEAD"), contains: []string{"does not take DELETE"}},
		{name: "wrong method for a summary", method: "PUT", url: "/api/connections/summary", body: "{}", status: 405, header: allow("OPTIONS, GET, POST, HEAD")},
		{name: "HEAD of nothing", method: "HEAD", url: "/nothing", status: 404},
		{name: "GET with a body", url: "/api/programs", body: "{}", status: 200, header: map[string]string{"X-Content-Type-Options": "nosniff"}},
	})
}

// A panic is answered, does not show its cause, and does not stop the server.
func TestPanic(t *testing.T) {
	var log strings.Builder
	base := serve(t, func(o *Options) {
		o.Store = openStore(t)
		o.Programs = explosive{}
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for range 2 {
		scenario{url: "/api/programs", status: 500, contains: []string{"its log"}, lacks: []string{"secret"}}.run(t, base)
	}
	if !strings.Contains(log.String(), "secret cause") || !strings.Contains(log.String(), "lifecycle_test.go") {
		t.Errorf("log lacks the cause or its place: %s", log.String())
	}
}

func TestAccessLog(t *testing.T) {
	var log strings.Builder
	base := serve(t, func(o *Options) {
		o.Store = openStore(t)
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	scenario{method: "HEAD", url: "/api/events?limit=x%0ay", status: 400}.run(t, base)
	for _, want := range []string{"level=DEBUG", "method=HEAD", `uri="/api/events?limit=x%0ay"`, "status=400", "took=", "remote=127.0.0.1:"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log %s", want, log.String())
		}
	}
}

type explosive struct{}

func (explosive) Programs() []Program { panic("secret cause") }

// slow is a store that waits in the middle of an answer.
type slow struct {
	*store.Store
	waiting, resume chan struct{}
}

func (s slow) Events(ctx context.Context, q query.Events, yield func(event.Row) error) (query.Page, error) {
	close(s.waiting)
	select {
	case <-s.resume:
	case <-ctx.Done():
		return query.Page{}, ctx.Err()
	}
	return s.Store.Events(ctx, q, yield)
}

// startSlow returns a server with a request under way in a slow store, and the
// channels that its answer and the end of Serve come through.
func startSlow(t *testing.T) (s *Server, st slow, addr string, answered, served chan error) {
	t.Helper()
	st = slow{openStore(t), make(chan struct{}), make(chan struct{})}
	s, err := New(Options{Types: testTypes, Store: st, Programs: running(), Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answered, served = make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	go func() {
		answer, err := http.Get("http://" + l.Addr().String() + "/api/events")
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		answered <- err
	}()
	<-st.waiting
	return s, st, l.Addr().String(), answered, served
}

func TestShutdownWaits(t *testing.T) {
	s, st, addr, answered, served := startSlow(t)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("new connections are taken during a shutdown")
	}
	close(st.resume)
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("shut down: %v", err)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	s, _, _, answered, served := startSlow(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shut down: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the request under way got an answer")
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestServeFailure(t *testing.T) {
	s, err := New(Options{Types: testTypes, Store: openStore(t), Programs: running(), Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("serve on a closed listener: %v", err)
	}
}

func TestNewRefusals(t *testing.T) {
	clash := event.MustType(event.Type{Name: "clash", Collection: "clashes", Breakdown: "limit",
		Columns: []event.Column{{Name: "limit", Kind: event.KindString, Description: "A parameter's name."}}})
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"no types":       {Options{}, "no event types"},
		"one type twice": {Options{Types: []*event.Type{dropType, dropType}}, "packet_drop"},
		"column clash":   {Options{Types: []*event.Type{clash}}, "limit"},
		"certificate":    {Options{Types: testTypes, CertFile: "/nonexistent/cert.pem", KeyFile: "/nonexistent/key.pem"}, "/nonexistent/cert.pem"},
		"key only":       {Options{Types: testTypes, KeyFile: "/nonexistent/key.pem"}, "/nonexistent/key.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.Logger = discard()
			if _, err := New(test.options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not name %s", err, test.want)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	certFile, keyFile, roots := makeCertificate(t)
	base := serve(t, func(o *Options) { o.Store, o.CertFile, o.KeyFile = openStore(t), certFile, keyFile })
	for _, http2 := range []bool{false, true} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}}
		for _, path := range []string{"/health", "/api/events?format=ndjson", "/docs/swagger-ui-bundle.js"} {
			answer, err := client.Get(base + path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != http.StatusOK || (answer.ProtoMajor == 2) != http2 {
				t.Errorf("%s over %s: status %d, %v", path, answer.Proto, answer.StatusCode, err)
			}
		}
		client.CloseIdleConnections()
	}
	answer, err := http.Get("http" + strings.TrimPrefix(base, "https") + "/health")
	if err == nil {
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: status %d", answer.StatusCode)
		}
	}
}

func makeCertificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	return certFile, keyFile, roots
}

// Answers without a Host header, and two on one connection.
func TestPlainHTTP(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, request := range []string{
		"OPTIONS /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"HEAD /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /api/programs HTTP/1.0\r\n\r\n",
	} {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(request, " ")
		answer, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		content, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode >= 300 || (method != "GET" && len(content) > 0) {
			t.Errorf("%s: status %d, %v: %s", request, answer.StatusCode, err, content)
		}
	}
}

// A client that stops sending in the middle of a body is told so.
func TestUnfinishedBody(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /api/connections/summary HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	if err := errors.Join(err, conn.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", answer.StatusCode)
	}
}
