// Package daemon wires everything together: it is the only package that knows
// the monitors, the store, the API and the configuration.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/srodi/ebpf-server/internal/api"
	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/programs"
	"github.com/srodi/ebpf-server/internal/config"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store"
)

// shutdownTime bounds how long requests and monitors may take to end.
const shutdownTime = 10 * time.Second

// Known returns the names that the configuration may use.
func Known() config.Known {
	known := config.Known{Programs: map[string]bool{}, Limits: map[string]config.DefaultLimits{}}
	for _, m := range programs.All {
		known.Types = append(known.Types, m.Type.Name)
		known.Programs[m.Type.Name] = m.Enabled
		known.Limits[m.Type.Name] = config.DefaultLimits{MaxAge: m.MaxAge, MaxSize: m.MaxSize}
	}
	return known
}

// Run records and answers until the context ends; then it ends in order, so
// that nothing is lost. What a person has to put right (rights, the db file,
// the port) is found before anything is recorded, and the error says how.
func Run(ctx context.Context, c config.Config, version string) (err error) {
	log := newLogger(c.Log)
	monitors := newMonitors(programs.All, c.Programs, log)
	if monitors.enabled() {
		if err := bpf.CheckPrivileges(); err != nil {
			return err
		}
	}
	listener, err := listen(c.Server.Address)
	if err != nil {
		return err
	}
	defer listener.Close() // Serve closes it as well; this is for the returns before that

	events, err := openStore(c, log)
	if err != nil {
		return err
	}
	// The store is the last to close: everybody else may still write to it.
	defer func() { err = errors.Join(err, events.Close()) }()

	server, err := api.New(api.Options{
		Types: types(), Store: current{events, monitors}, Programs: monitors, Version: version, Started: time.Now(), Logger: log,
		Token: c.Server.AuthToken, CertFile: c.Server.TLS.CertFile, KeyFile: c.Server.TLS.KeyFile,
	})
	if err != nil {
		return err
	}
	host, err := bpf.NewHost()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, monitors.stop()) }()
	if err := monitors.start(host, events); err != nil {
		return err
	}
	// Coverage begins when the monitors are attached, not before.
	run := store.Run{BootID: host.BootID, Kernel: host.Kernel, Host: host.Name, Version: version, Types: monitors.running()}
	if err := events.Start(run); err != nil {
		return err
	}
	go bpf.SampleRunTimes(ctx, log)

	log.Info("recording", "version", version, "programs", monitors.running(), "db", c.Storage.Path,
		"config", c.File, "api", "http://"+listener.Addr().String(), "docs", "http://"+listener.Addr().String()+"/docs/")
	return serve(ctx, server, listener, log)
}

func newLogger(c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

func types() []*event.Type {
	var all []*event.Type
	for _, m := range programs.All {
		all = append(all, m.Type)
	}
	return all
}

func openStore(c config.Config, log *slog.Logger) (*store.Store, error) {
	retention := map[string]time.Duration{}
	for name, limits := range c.Retention.Types {
		retention[name] = limits.MaxAge
	}
	return store.Open(store.Options{
		Path: c.Storage.Path, FlushInterval: c.Storage.FlushInterval, Types: types(), Retention: retention, Logger: log,
	})
}

func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program has this port (choose another one with --address or server.address)", address)
	case err != nil:
		return nil, fmt.Errorf("listen on server.address: %w", err)
	}
	return listener, nil
}

// serve answers until the context ends or the listener fails.
func serve(ctx context.Context, server *api.Server, listener net.Listener, log *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping")
	ending, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		log.Warn("requests were broken off", "error", err)
	}
	return <-served
}
