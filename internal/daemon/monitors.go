package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"sync"

	"github.com/srodi/ebpf-server/internal/api"
	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/config"
	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/live"
	"github.com/srodi/ebpf-server/internal/store"
)

// monitors are all monitors of this program and what became of each.
type monitors struct {
	log   *slog.Logger
	store *store.Store // where they record to; set before anything starts

	mu   sync.RWMutex // guards all
	list []*monitor
}

// monitor is a declaration with, if it runs, the running program.
type monitor struct {
	*bpf.Monitor
	enabled bool
	options bpf.Options
	program *bpf.Program // nil unless it runs
	err     error        // why it does not, although it is enabled
}

func newMonitors(all []*bpf.Monitor, configured map[string]config.Program, log *slog.Logger) *monitors {
	ms := &monitors{log: log}
	for _, m := range all {
		c := configured[m.Type.Name]
		ms.list = append(ms.list, &monitor{Monitor: m, enabled: c.Enabled, options: bpf.Options{
			Exclude: rulesOf(c.Exclude), Include: rulesOf(c.Include), RingBuffer: c.RingBuffer, UDPIdle: c.UDPIdle,
		}})
	}
	return ms
}

func rulesOf(configured []config.Rule) (rules []bpf.Rule) {
	for _, r := range configured {
		rules = append(rules, bpf.Rule(r))
	}
	return rules
}

// leaveOut keeps the program's own API out of what is recorded, where the
// configuration does not want it.
func (ms *monitors) leaveOut(api netip.AddrPort, configured map[string]config.Program) {
	for _, m := range ms.list {
		if m.HasOwnAPI && !configured[m.Type.Name].OwnAPI {
			m.options.OwnAPI = api
		}
	}
}

func (ms *monitors) enabled() bool {
	for _, m := range ms.list {
		if m.enabled {
			return true
		}
	}
	return false
}

// start starts every enabled monitor. One that fails is reported and does not
// stop the others; it is an error only if none is left.
func (ms *monitors) start(host *bpf.Host, sink bpf.Sink) error {
	var failed []error
	for _, m := range ms.list {
		if !m.enabled {
			continue
		}
		program, err := bpf.Start(m.Monitor, host, m.options, sink, ms.log)
		if err != nil {
			ms.log.Error("monitor failed to start", "program", m.Type.Name, "error", err, "needs", m.Needs)
			failed = append(failed, err)
		}
		ms.mu.Lock()
		m.program, m.err = program, err
		ms.mu.Unlock()
	}
	if len(failed) > 0 && len(ms.running()) == 0 {
		return fmt.Errorf("no monitor could be started: %w", errors.Join(failed...))
	}
	return nil
}

// stop ends all monitors; what they have read is with the sink then.
func (ms *monitors) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	ms.mu.Lock()
	defer ms.mu.Unlock()
	var errs []error
	for _, m := range ms.list {
		if m.program != nil {
			errs = append(errs, m.program.Stop(ctx))
			m.program = nil
		}
	}
	return errors.Join(errs...)
}

// running names the types that are being recorded.
func (ms *monitors) running() []string {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	names := []string{}
	for _, m := range ms.list {
		if m.program != nil {
			names = append(names, m.Type.Name)
		}
	}
	return names
}

// drain waits until the sink has what the kernel had recorded before the call.
func (ms *monitors) drain(ctx context.Context) error {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	for _, m := range ms.list {
		if m.program == nil {
			continue
		}
		if err := m.program.Drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Programs implements api.Programs.
func (ms *monitors) Programs() []api.Program {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	lost := map[string]map[string]int64{}
	for _, t := range ms.store.Status().Types {
		lost[t.Name] = t.Lost
	}
	var list []api.Program
	for _, m := range ms.list {
		list = append(list, m.describe(lost[m.Type.Name]))
	}
	return list
}

// describe takes what was lost since the start, in the store as well.
func (m *monitor) describe(lost map[string]int64) api.Program {
	p := api.NewProgram(m.Type)
	maps.Copy(p.Lost, lost)
	if m.err != nil {
		p.State, p.Error, p.Needs = api.StateFailed, m.err.Error(), m.Needs
	}
	if m.program == nil {
		return p
	}
	status := m.program.Status()
	p.State, p.Features, p.Events = api.StateRunning, status.Features, status.Events
	maps.Copy(p.Counts, status.Totals.Counts)
	maps.Copy(p.Sums, status.Totals.Sums)
	maps.Copy(p.Lost, status.Lost)
	p.Seen, p.Filtered, p.Unnamed = status.Seen, status.Filtered, status.Unnamed
	for _, h := range status.Hooks {
		hook := api.Hook{
			Name: h.Name, Kind: h.Kind, Target: h.Target, Attached: h.Attached, Optional: h.Optional,
			Runs: int64(h.Runs), RunTime: h.RunTime,
		}
		if h.Runs > 0 {
			hook.NSPerRun = int64(math.Round(float64(h.RunTime.Nanoseconds()) / float64(h.Runs)))
		}
		if h.Err != nil {
			hook.Error = h.Err.Error()
		}
		p.Hooks = append(p.Hooks, hook)
	}
	return p
}

// sink takes what the monitors record: for the store, and then for those who
// follow, so that what they are told can be asked for.
type sink struct {
	*store.Store
	feed *live.Feed
}

// Append implements bpf.Sink.
func (s sink) Append(b *event.Batch) {
	s.Store.Append(b)
	s.feed.Append(b)
}
