package bpf

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/srodi/ebpf-server/internal/event"
)

const (
	// readEvery is how long an event may wait in the ring buffer when nothing
	// wakes the reader. Drain does not wait for it.
	readEvery = 100 * time.Millisecond
	// batchRows is when a batch is handed over without waiting for more.
	batchRows = 8192
	// countEvery is how often the counters are read while events come in.
	countEvery = time.Second
	// sweepEvery is how often maps are swept (Monitor.Sweeps).
	sweepEvery = time.Second
)

// Program is a monitor that runs.
type Program struct {
	Monitor *Monitor

	hooks      []*Hook
	features   map[string]bool // found by Monitor.Features
	collection *ebpf.Collection
	rings      *rings
	decoder    Decoder
	host       *Host
	options    Options
	sink       Sink
	log        *slog.Logger

	events       atomic.Int64 // handed to the sink, by their weight
	decodeFailed atomic.Int64
	reported     counters    // what the sink was told; only the reading goroutine and, after it, Stop
	counted      time.Time   // when that was read
	swept        time.Time   // when maps were swept
	stopping     atomic.Bool // the reading goroutine ends when nobody waits for it
	done         chan struct{}

	attached sync.Mutex // guards the hooks' links, which sweeps use while Stop closes them

	mu       sync.Mutex // guards what follows
	draining []chan struct{}
	now      counters
	totals   event.Totals // of events
}

// Start loads and attaches a monitor and begins to read. On an error nothing
// stays behind; the error names the hook and what it needs.
func Start(m *Monitor, host *Host, o Options, sink Sink, log *slog.Logger) (*Program, error) {
	p := &Program{Monitor: m, host: host, options: o, sink: sink, log: log.With("program", m.Type.Name), done: make(chan struct{})}
	if err := p.load(); err != nil {
		p.free()
		return nil, fmt.Errorf("load %s: %w", m.Type.Name, err)
	}
	p.counted = time.Now()
	if err := p.attach(); err != nil {
		p.free()
		return nil, fmt.Errorf("attach %s: %w", m.Type.Name, err)
	}
	go p.read()
	go host.Names.watch(p.done)
	if err := p.iterate(slices.Values(p.Monitor.Iterators)); err != nil {
		return nil, errors.Join(fmt.Errorf("iterate %s: %w", m.Type.Name, err), p.Stop(context.Background()))
	}
	return p, nil
}

func (p *Program) load() error {
	types := typesOfKernel()
	defer runtime.KeepAlive(types)
	spec, err := p.Monitor.Load()
	if err != nil {
		return fmt.Errorf("read eBPF object: %w", err)
	}
	if err := p.findHooks(spec); err != nil {
		return err
	}
	// Before Linux 5.11, maps count as locked memory.
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("lift the limit of locked memory: %w (needs CAP_SYS_RESOURCE, or ulimit -l unlimited)", err)
	}
	if err := p.findFeatures(); err != nil {
		return fmt.Errorf("look for features: %w", err)
	}
	if p.Monitor.Prepare != nil {
		if err := p.Monitor.Prepare(spec, p.host); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	if err := p.options.set(spec); err != nil {
		return err
	}
	preallocate(spec, p.host)
	shared, err := p.host.Names.mapsOf(spec)
	if err != nil {
		return explain(err)
	}
	if err := p.host.shared.add(spec, p.Monitor.Shares, shared); err != nil {
		return explain(err)
	}
	if p.collection, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared, Cache: types}); err != nil {
		return explain(err)
	}
	for _, hook := range p.hooks {
		hook.program = p.collection.Programs[hook.Name]
	}
	if p.rings, err = openRings(p.collection); err != nil {
		return fmt.Errorf("open rings: %w", err)
	}
	p.decoder = p.Monitor.NewDecoder(p.host)
	return nil
}

var errWorthNothing = errors.New("it is worth nothing without")

// findHooks leaves out of the object what this kernel has no hook for.
func (p *Program) findHooks(spec *ebpf.CollectionSpec) error {
	missing := map[string]bool{} // features
	if p.Monitor.Spared != nil {
		spared, err := p.Monitor.Spared(p.host)
		if err != nil {
			return err
		}
		for _, name := range spared {
			delete(spec.Programs, name)
		}
	}
	for name, program := range spec.Programs {
		feature, optional := p.Monitor.Optional[name]
		hook := newHook(program, optional)
		p.hooks = append(p.hooks, hook)
		if hook.Err = hook.available(); hook.Err != nil && !optional {
			return fmt.Errorf("hook %s: %w", name, hook.Err)
		}
		missing[feature] = missing[feature] || hook.Err != nil
	}
	for _, hook := range p.hooks {
		if needed := p.Monitor.Prerequisites[p.Monitor.Optional[hook.Name]]; missing[needed] && hook.Err == nil {
			hook.Err = fmt.Errorf("%w %s", errWorthNothing, needed)
		}
		if hook.Err != nil {
			delete(spec.Programs, hook.Name)
		}
	}
	slices.SortFunc(p.hooks, func(a, b *Hook) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (p *Program) findFeatures() (err error) {
	if p.Monitor.Features == nil {
		return nil
	}
	p.features, err = p.Monitor.Features(p.host)
	for feature, found := range p.features {
		if !found {
			p.log.Warn("kernel feature is not available", "missing", feature)
		}
	}
	return err
}

// explain keeps the verifier's log, which is the only way to know why a
// program was refused, and says what to do about missing rights.
func explain(err error) error {
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return fmt.Errorf("the kernel refused the program: %+v", refused) //nolint:errorlint // only %+v prints the verifier's log
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)", err)
	}
	return err
}

func (p *Program) attach() error {
	for _, hook := range p.hooks {
		if errors.Is(hook.Err, errWorthNothing) {
			continue // what it lacks is told itself
		}
		if hook.Err != nil {
			p.log.Warn("optional hook is not available", "hook", hook.Name, "missing", p.Monitor.Optional[hook.Name], "error", hook.Err)
			continue
		}
		if hook.Err = hook.attach(p.collection.Maps[p.Monitor.Sweeps[hook.Name]]); hook.Err == nil {
			continue
		}
		if !hook.Optional {
			return fmt.Errorf("hook %s: %w", hook.Name, hook.Err)
		}
		p.log.Warn("optional hook cannot be attached", "hook", hook.Name, "missing", p.Monitor.Optional[hook.Name], "error", hook.Err)
	}
	return nil
}

// iterate runs iterators; one that is optional may be missing.
func (p *Program) iterate(names iter.Seq[string]) error {
	for name := range names {
		for _, hook := range p.hooks {
			if hook.Name != name || hook.link == nil {
				continue
			}
			if err := hook.iterate(); err != nil {
				return fmt.Errorf("run %s: %w", name, err)
			}
		}
	}
	return nil
}

// read runs until the monitor is stopped.
func (p *Program) read() {
	defer close(p.done)
	batch := p.newBatch(256)
	asked := p.asked() // who waits for what is read from now on
	for {
		record, err := p.rings.next()
		if record != nil {
			p.decode(record, batch)
			if batch.Len() < batchRows {
				continue
			}
		} else {
			p.collect(len(asked) > 0, batch)
		}
		batch = p.hand(batch)
		// Also while there is no end of events: losses belong to the time in
		// which they happened.
		if time.Since(p.counted) >= countEvery {
			p.count()
		}
		if time.Since(p.swept) >= sweepEvery {
			p.sweep()
		}
		if record != nil {
			continue
		}
		switch {
		case err != nil:
			p.log.Error("read rings", "error", err)
			time.Sleep(readEvery)
			if !p.stopping.Load() {
				continue // who asked waits for the next try
			}
		case len(asked) > 0:
			p.count()
			answer(asked)
		default:
			p.host.Clock.Follow()
			p.host.Names.follow()
			p.rings.waiter.wait(readEvery, p.isAsked)
		}
		if asked = p.asked(); len(asked) == 0 && p.stopping.Load() {
			return
		}
	}
}

func (p *Program) decode(record []byte, to *event.Batch) {
	if err := p.decoder.Decode(record, to); err != nil {
		if p.decodeFailed.Add(1) == 1 {
			p.log.Error("decode record", "error", err)
		}
		p.sink.Lost(p.Monitor.Type.Name, LostDecodeFailed, p.counted, 1)
	}
}

func (p *Program) collect(all bool, to *event.Batch) {
	collector, ok := p.decoder.(Collector)
	if !ok {
		return
	}
	if err := collector.Collect(p.collection, all, to); err != nil {
		p.log.Error("collect events", "error", err)
	}
}

func (p *Program) sweep() {
	p.swept = time.Now()
	p.attached.Lock()
	defer p.attached.Unlock()
	if err := p.iterate(maps.Keys(p.Monitor.Sweeps)); err != nil {
		p.log.Error("sweep maps", "error", err)
	}
}

// hand gives the batch to the sink, which owns it then, and returns a new one.
func (p *Program) hand(batch *event.Batch) *event.Batch {
	n := batch.Len()
	if n == 0 {
		return batch
	}
	batch.Finish()
	stand := batch.Weight()
	p.mu.Lock()
	p.totals.Add(batch)
	p.mu.Unlock()
	p.sink.Append(batch)
	p.events.Add(stand)
	return p.newBatch(min(n+n/4+16, batchRows))
}

func (p *Program) newBatch(capacity int) *event.Batch {
	batch := event.NewBatch(p.Monitor.Type, capacity)
	batch.PrepareAhead(min(capacity, 64))
	return batch
}

// count reads the counters and tells the sink what is new.
func (p *Program) count() {
	began := time.Now()
	now, err := readCounters(p.collection.Maps["counters"], p.hooks)
	if err != nil {
		p.log.Error("count lost events", "error", err)
		return
	}
	now.since(p.reported, lossCounters, func(place string, n int64) { p.sink.Lost(p.Monitor.Type.Name, place, p.counted, n) })
	now.since(p.reported, filterCounters, func(kind string, n int64) { p.sink.Filtered(p.Monitor.Type.Name, kind, p.counted, n) })
	p.reported, p.counted = now, began
	p.mu.Lock()
	p.now = now
	p.mu.Unlock()
}

// Drain returns when all events that were in the rings, or in maps (see Collector),
// before the call are with the sink, or when the context ends.
func (p *Program) Drain(ctx context.Context) error {
	drained := make(chan struct{})
	p.mu.Lock()
	p.draining = append(p.draining, drained)
	p.mu.Unlock()
	p.rings.waiter.wake()
	select {
	case <-drained:
		return nil
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isAsked reports whether the reader is not to wait: somebody drains, or it is to end.
func (p *Program) isAsked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.draining) > 0 || p.stopping.Load()
}

// asked takes over those who wait for what is in the rings now.
func (p *Program) asked() []chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.draining
	p.draining = nil
	return asked
}

func answer(asked []chan struct{}) {
	for _, waiting := range asked {
		close(waiting)
	}
}

// Stop detaches the monitor, hands over what is left and frees everything.
func (p *Program) Stop(ctx context.Context) error {
	p.detach()
	err := p.Drain(ctx)
	p.stopping.Store(true)
	p.rings.waiter.wake()
	<-p.done
	p.count()
	p.free()
	return err
}

func (p *Program) detach() {
	p.attached.Lock()
	defer p.attached.Unlock()
	for _, hook := range p.hooks {
		if hook.link != nil {
			_ = hook.link.Close() // the kernel detaches when the last reference goes
			hook.link = nil
		}
	}
}

func (p *Program) free() {
	p.detach()
	if p.rings != nil {
		p.rings.close()
	}
	if p.collection != nil {
		p.collection.Close()
	}
}
