package bpf

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/event"
)

// Status is what a running monitor tells about itself.
type Status struct {
	Hooks    []Hook
	Features map[string]bool // what optional hooks give and what Monitor.Features found, by name
	Seen     int64           // what there was to record: events, and what was lost and filtered
	Events   int64           // handed to the sink, by their weight: what they stand for
	Totals   event.Totals    // of these
	Lost     map[string]int64
	Filtered map[string]int64 // left out in the kernel, by the kind of rule
	Unnamed  int64            // recorded without names: there were too many new ones at once
}

// Status returns the state of the moment.
func (p *Program) Status() Status {
	p.mu.Lock()
	now, totals := p.now, event.Totals{Counts: maps.Clone(p.totals.Counts), Sums: maps.Clone(p.totals.Sums)}
	p.mu.Unlock()
	s := Status{
		Features: map[string]bool{},
		Events:   p.events.Load(),
		Totals:   totals,
		Lost:     now.all(lossCounters),
		Filtered: now.all(filterCounters),
		Seen: int64(now[counterRecorded] + now[counterRingBufferFull] + now[counterMapFull] + now[counterEndMissed] +
			now[counterFiltered] + now[counterExcluded]),
		Unnamed: int64(now[counterNamesFull]),
	}
	s.Lost[LostDecodeFailed] = p.decodeFailed.Load()
	maps.Copy(s.Features, p.features)
	for _, hook := range p.hooks {
		told := *hook
		if feature, optional := p.Monitor.Optional[hook.Name]; optional {
			others, shared := s.Features[feature]
			s.Features[feature] = hook.Attached && (others || !shared)
		}
		if hook.Attached {
			if stats, err := hook.program.Stats(); err == nil && stats.RunCount > 0 {
				told.Runs, told.RunTime = stats.RunCount, stats.Runtime
			}
		}
		s.Hooks = append(s.Hooks, told)
	}
	return s
}

// The kernel measures run times only while somebody asks for it, because that
// costs two readings of the clock for each run of each eBPF program of the
// host. One second in thirty is enough for an average.
const (
	sampleFor   = time.Second
	sampleEvery = 30 * time.Second
)

// SampleRunTimes lets the kernel measure run times from time to time, until
// the context ends. All eBPF programs of the host are measured, whoever loaded
// them: it need not be called in the process that runs the monitors.
func SampleRunTimes(ctx context.Context) error {
	for {
		stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
		if err != nil {
			return fmt.Errorf("enable run statistics: %w (needs CAP_SYS_ADMIN)", err)
		}
		stopped := wait(ctx, sampleFor)
		_ = stats.Close()
		if stopped || wait(ctx, sampleEvery-sampleFor) {
			return nil
		}
	}
}

func wait(ctx context.Context, d time.Duration) (stopped bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return true
	case <-timer.C:
		return false
	}
}
