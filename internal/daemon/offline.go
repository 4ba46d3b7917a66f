package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/srodi/ebpf-server/internal/api"
	"github.com/srodi/ebpf-server/internal/api/client"
	"github.com/srodi/ebpf-server/internal/store"
)

// Offline returns a client of a db file that no server holds. The file is asked
// through the same API as a running server, in this process: one question has
// one answer, whoever gives it. End closes the file.
func Offline(path, version string) (c *client.Client, end func() error, err error) {
	file, err := store.Open(store.Options{Path: path, Types: Types(), ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	server, err := api.New(api.Options{
		Types: file.Types(), Store: file, Programs: noPrograms{}, Version: version, Started: time.Now(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	listener := newMemoryListener()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return client.Over(path, listener.dial), func() error {
		ending, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		return errors.Join(server.Shutdown(ending), <-served, file.Close())
	}, nil
}

// noPrograms are those of a file: nothing records into it.
type noPrograms struct{}

// Programs implements api.Programs.
func (noPrograms) Programs() []api.Program { return nil }

// memoryListener takes connections from this process, through memory.
type memoryListener struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    func()
}

func newMemoryListener() *memoryListener {
	l := &memoryListener{accepted: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.accepted <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *memoryListener) Close() error {
	l.close()
	return nil
}

// Addr implements net.Listener.
func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "this process" }
