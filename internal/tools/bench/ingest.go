package main

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

const (
	batchRows  = 1024      // as a monitor hands them over
	flushRows  = 64 * 1024 // one transaction, or one flush
	quietAfter = 3 * time.Second
)

// Ingested are the figures of storing all events. They hold all work until the
// file is closed, also that of the background, but not the making of the events.
type Ingested struct {
	Events          int64         `json:"events"`
	Wall            time.Duration `json:"wall_ns"`
	CPU             time.Duration `json:"cpu_ns"`
	GeneratorWall   time.Duration `json:"generator_wall_ns"`
	Bytes           int64         `json:"bytes"`
	PeakMemory      int64         `json:"peak_memory_bytes"`
	EventsPerSecond float64       `json:"events_per_second"`
	CPUPerMillion   float64       `json:"cpu_seconds_per_million"`
	BytesPerEvent   float64       `json:"bytes_per_event"`
}

// finisher has something to do when the last events are ingested; it is part of
// the work that is measured.
type finisher interface{ Finish() error }

func ingest(j job) (*Ingested, error) {
	watched := watchMemory()
	p, err := openPeer(j.Peer, j.Dir)
	if err != nil {
		return nil, err
	}
	events := stream.New(j.Stream)
	var generator aside
	var idle time.Duration
	begin, cpu := time.Now(), cpuOf(unix.RUSAGE_SELF)
	for err == nil {
		var batches []*event.Batch
		generator.do(func() { batches = take(events) })
		if batches == nil {
			break
		}
		err = p.Ingest(batches)
	}
	if f, ok := p.(finisher); ok && err == nil {
		err = f.Finish()
	}
	if err == nil {
		last := settle(quietAfter)
		idle = time.Since(last)
	}
	if err := errors.Join(err, p.Close()); err != nil {
		return nil, err
	}
	r := &Ingested{Events: j.Stream.Events, GeneratorWall: generator.wall, PeakMemory: watched.end()}
	r.Wall = time.Since(begin) - idle - generator.wall + generator.background
	r.CPU = cpuOf(unix.RUSAGE_SELF) - cpu - generator.cpu
	r.Bytes, err = sizeOf(j.Dir)
	n := float64(r.Events)
	r.EventsPerSecond, r.CPUPerMillion, r.BytesPerEvent = n/r.Wall.Seconds(), r.CPU.Seconds()/n*1e6, float64(r.Bytes)/n
	return r, err
}

// take makes the events of one flush.
func take(s *stream.Stream) (all []*event.Batch) {
	for rows := 0; rows < flushRows; {
		batches := s.Next(batchRows)
		if batches == nil {
			break
		}
		for _, b := range batches {
			rows += b.Len()
		}
		all = append(all, batches...)
	}
	return all
}
