package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// storePeer is the project's store, used as the daemon uses it.
type storePeer struct {
	*store.Store
	started  bool
	ingested int64
}

func openStore(dir string) (peer, error) {
	s, err := store.Open(store.Options{Path: filepath.Join(dir, "events.db"), Types: stream.Types()})
	return &storePeer{Store: s}, err
}

// madeRun is the run of a monitor that never ran.
func madeRun() store.Run {
	return store.Run{BootID: "6f1c2a90-0000-4000-8000-000000000000", Kernel: "bench", Host: "bench", Version: "bench", Types: []string{"connection", "packet_drop"}}
}

func (p *storePeer) Ingest(batches []*event.Batch) error {
	if !p.started {
		if err := p.Start(madeRun()); err != nil {
			return err
		}
		p.started = true
	}
	for _, b := range batches {
		p.ingested += int64(b.Len())
		if err := p.AppendWait(context.Background(), b); err != nil {
			return err
		}
	}
	return nil
}

// Finish seals all hours, which the store does by itself after a
// minute of quiet.
func (p *storePeer) Finish() error {
	if err := p.Flush(); err != nil {
		return err
	}
	return p.Seal(context.Background(), true, nil)
}

func (p *storePeer) Summary(q question) ([]figures, error) {
	result, err := p.Store.Summary(context.Background(), q.summary)
	if err != nil {
		return nil, err
	}
	var rows []figures
	if q.summary.Interval > 0 {
		for _, bucket := range result.Series {
			for _, n := range bucket.Counts {
				if n.Value > 0 {
					rows = append(rows, figures{time: bucket.Time, key: n.Name, count: n.Value})
				}
			}
		}
		return rows, nil
	}
	for _, g := range result.Groups {
		key := noValue
		if v := g.Key[0].Value; v != nil {
			key = fmt.Sprint(v)
		}
		sums := make([]int64, len(q.sums))
		for i, column := range q.sums {
			for _, n := range g.Sums {
				if n.Name == column {
					sums[i] = n.Value
				}
			}
		}
		rows = append(rows, figures{key: key, count: g.Count, sums: sums})
	}
	return rows, nil
}

func (p *storePeer) Events(q query.Events, do func(row) error) error {
	_, err := p.Store.Events(context.Background(), q, func(r event.Row) error { return do(eventRow{r}) })
	return err
}

// Close also makes sure that what was ingested is there.
func (p *storePeer) Close() error {
	var err error
	if p.ingested > 0 {
		var events int64
		for _, t := range p.Status().Types {
			events += t.Events
			for place, n := range t.Lost {
				if n > 0 {
					err = errors.Join(err, fmt.Errorf("%d events of %s were lost: %s", n, t.Name, place))
				}
			}
		}
		if events != p.ingested {
			err = errors.Join(err, fmt.Errorf("%d events were ingested, and %d are there", p.ingested, events))
		}
	}
	return errors.Join(err, p.Store.Close())
}

// eventRow is a row of a batch.
type eventRow struct{ event.Row }

func (r eventRow) Values() int {
	n := 1 // the type
	for i, c := range r.Batch.Type.Columns {
		present := false
		switch c.Kind {
		case event.KindTime, event.KindInt:
			_, present = r.Int(i)
		default:
			_, present = r.String(i)
		}
		if present {
			n++
		}
	}
	return n
}
