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
	"os/signal"
	"slices"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/srodi/ebpf-server/internal/api"
	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/bpf/programs"
	"github.com/srodi/ebpf-server/internal/config"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/live"
	"github.com/srodi/ebpf-server/internal/store"
)

// shutdownTime bounds how long requests and monitors may take to end.
const shutdownTime = 10 * time.Second

// Known returns the names that the configuration may use.
func Known() config.Known {
	known := config.Known{Programs: map[string]config.KnownProgram{}, Limits: map[string]config.DefaultLimits{}}
	for _, m := range programs.All {
		known.Types = append(known.Types, m.Type.Name)
		known.Programs[m.Type.Name] = config.KnownProgram{Enabled: m.Enabled, Conditions: m.Conditions, HasOwnAPI: m.HasOwnAPI, HasUDPIdle: m.HasUDPIdle}
		known.Limits[m.Type.Name] = config.DefaultLimits{MaxAge: m.MaxAge, MaxSize: m.MaxSize}
	}
	return known
}

// Run records and answers until the context ends; then it ends in order, so
// that nothing is lost. What a person has to put right (rights, the db file,
// the port) is found before anything is recorded, and the error says how.
// On SIGHUP the configuration is loaded again, and how long events are kept
// follows it.
func Run(ctx context.Context, load func() (config.Config, error), version string) (err error) {
	c, err := load()
	if err != nil {
		return err
	}
	log := newLogger(c.Log)
	monitors := newMonitors(programs.All, c.Programs, log)
	if monitors.enabled() {
		if err := bpf.Check(); err != nil {
			return err
		}
	}
	listener, err := listen(c.Server.Address)
	if err != nil {
		return err
	}
	defer listener.Close() // Serve closes it as well; this is for the returns before that

	timings := api.NewTimings()
	events, err := openStore(c, timings, log)
	if err != nil {
		return err
	}
	// The store is the last to close: everybody else may still write to it.
	defer func() { err = errors.Join(err, events.Close()) }()

	monitors.store = events
	feed := live.NewFeed()
	server, err := api.New(api.Options{
		Types: Types(), Store: events, Drain: monitors.drain, Programs: monitors, Feed: feed, Version: version, Started: time.Now(), Logger: log,
		Timings: timings, Token: c.Server.AuthToken, CertFile: c.Server.TLS.CertFile, KeyFile: c.Server.TLS.KeyFile, QueryTimeout: c.Server.QueryTimeout,
	})
	if err != nil {
		return err
	}
	host, err := bpf.NewHost(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, monitors.stop()) }()
	if address, ok := listener.Addr().(*net.TCPAddr); ok {
		monitors.leaveOut(address.AddrPort(), c.Programs)
	}
	if err := monitors.start(host, sink{events, feed}); err != nil {
		return err
	}
	// Coverage begins when the monitors are attached, not before.
	run := store.Run{BootID: host.BootID, Kernel: host.Kernel, Host: host.Name, Version: version, Types: monitors.running()}
	if err := events.Start(run); err != nil {
		return err
	}
	// Before the monitors stop: while the hooks are taken off one by one, not
	// everything is recorded any more.
	defer func() { err = errors.Join(err, events.SetRecorded(nil)) }()
	if monitors.enabled() {
		if err := startSampling(log); err != nil {
			log.Warn("run times of eBPF programs are not measured", "error", err)
		}
	}
	giveUpPrivileges(load, c.Storage.Path, log)
	go reload(ctx, load, events, log)

	scheme := "http://"
	if c.Server.TLS.CertFile != "" {
		scheme = "https://"
	}
	log.Info("recording", "version", version, "programs", monitors.running(), "db", c.Storage.Path,
		"config", c.File, "api", scheme+listener.Addr().String())
	if _, err := systemd.SdNotify(true, systemd.SdNotifyReady); err != nil {
		log.Warn("systemd is not told that this is recording", "error", err)
	}
	return serve(ctx, server, listener, log)
}

func newLogger(c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// Types returns the types of all monitors.
func Types() []*event.Type {
	var all []*event.Type
	for _, m := range programs.All {
		all = append(all, m.Type)
	}
	return all
}

// Lives returns the type whose events tell of what begins and ends: connections.
func Lives() *event.Type {
	all := Types()
	return all[slices.IndexFunc(all, func(t *event.Type) bool { return t.Life != nil })]
}

func openStore(c config.Config, timings *api.Timings, log *slog.Logger) (*store.Store, error) {
	return store.Open(store.Options{
		Path: c.Storage.Path, FlushInterval: c.Storage.FlushInterval, Types: Types(), Limits: limitsOf(c.Retention),
		Flushed: timings.Flushed, Logger: log,
	})
}

func limitsOf(r config.Retention) store.Limits {
	limits := store.Limits{MaxAge: map[string]time.Duration{}, MaxSize: map[string]int64{}, MaxTotal: r.MaxSize}
	for name, own := range r.Types {
		limits.MaxAge[name], limits.MaxSize[name] = own.MaxAge, own.MaxSize
	}
	return limits
}

// reload follows the configuration whenever SIGHUP comes, until the context
// ends. A configuration with mistakes changes nothing.
func reload(ctx context.Context, load func() (config.Config, error), events *store.Store, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		c, err := load()
		if err != nil {
			log.Error("configuration is not followed", "error", err)
			continue
		}
		events.SetLimits(limitsOf(c.Retention))
		log.Info("retention follows the configuration", "config", c.File)
	}
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
