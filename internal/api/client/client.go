// Package client asks an ebpf-server over its API.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// Client asks one server.
type Client struct {
	base  *url.URL
	name  string // for people
	token string
	http  *http.Client
}

// A Refusal is what the server says when a question cannot be asked so.
type Refusal struct{ error }

// New returns a client of the server at a URL such as http://127.0.0.1:8080.
// The file, if named, holds the token that the server asks for.
func New(server, tokenFile string) (*Client, error) {
	base, err := url.Parse(server)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("server %q is no URL (want one such as http://127.0.0.1:8080)", server)
	}
	c := &Client{base: base, name: server, http: http.DefaultClient}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		c.token = strings.TrimSpace(string(token))
	}
	return c, nil
}

// Over returns a client of a server that connections made by dial lead to. The
// name is for people.
func Over(name string, dial func(context.Context) (net.Conn, error)) *Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	return &Client{base: &url.URL{Scheme: "http", Host: "localhost"}, name: name, http: &http.Client{Transport: transport}}
}

// Get asks for a path and returns the body of the answer, which the caller
// closes. An answer that is no success is an error with what the server says.
func (c *Client) Get(ctx context.Context, path string, parameters url.Values) (io.ReadCloser, error) {
	at := *c.base
	at.Path = strings.TrimSuffix(at.Path, "/") + path
	at.RawQuery = parameters.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.name, err)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no ebpf-server answers at %s: start it, name another with --server, or ask a copied file with --db", c.name)
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", c.name, err)
	case response.StatusCode == http.StatusOK:
		return response.Body, nil
	}
	defer response.Body.Close()
	return nil, c.problem(response)
}

// problem reads an RFC 9457 problem.
func (c *Client) problem(response *http.Response) error {
	var p struct{ Detail, Title string }
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&p); err != nil || p.Detail == "" {
		p.Detail = response.Status
	}
	if response.StatusCode == http.StatusUnauthorized {
		p.Detail += " (name the file with the token: --token-file)"
	}
	err := fmt.Errorf("%s answers: %s", c.name, p.Detail)
	if response.StatusCode == http.StatusBadRequest {
		return Refusal{err}
	}
	return err
}

// GetJSON asks for a path and decodes the answer.
func (c *Client) GetJSON(ctx context.Context, path string, parameters url.Values, answer any) error {
	body, err := c.Get(ctx, path, parameters)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(answer); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.name, err)
	}
	return nil
}
