package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// Quiet is what a host with one event a second needs.
type Quiet struct {
	Events        int64   `json:"events"`
	Bytes         int64   `json:"bytes"`        // of the file, a day after the last event
	BytesAtEnd    int64   `json:"bytes_at_end"` // of the file, just after the last event
	BytesPerEvent float64 `json:"bytes_per_event"`
}

// Retained is a file from which events are removed after a while.
type Retained struct {
	Days []RetainedDay `json:"days"`
	// Worst is the largest file for its live data, from the day on which it is full.
	Worst float64 `json:"worst_file_to_live"`
	// Growth is the largest file after day 4, to the largest until then, before
	// the day of the snapshot.
	Growth float64 `json:"growth_after_day_4"`
	// Snapshot is the largest file from the day on which somebody took an hour to
	// take a snapshot, to the largest before.
	Snapshot float64 `json:"growth_by_snapshot"`
}

// RetainedDay is the state at the end of a day.
type RetainedDay struct {
	Day    int   `json:"day"`
	Events int64 `json:"events"`
	Live   int64 `json:"live_bytes"` // what the store says that the events take
	File   int64 `json:"file_bytes"`
}

const (
	quietDays     = 3
	quietRest     = 26 * time.Hour // in which hours and days are sealed and merged
	retentionDays = 14
	retentionAge  = 48 * time.Hour
	fullDay       = 4  // from here on as much goes as comes
	readerDay     = 6  // on which somebody reads very slowly
	snapshotDay   = 10 // on which somebody takes a snapshot as slowly: pages that come free wait for that
	readerPause   = time.Hour
)

// inMadeTime does work where the clock is made: days pass as soon as everybody
// waits. The store needs no hook for that, since all of its clocks and timers are
// in the bubble too. Bubbles are for tests, so this acts as one, and ends the process.
func inMadeTime(work func() error) {
	os.Args = os.Args[:1] // testing looks for its own flags there
	testing.Main(
		func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: "made time", F: func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := work(); err != nil {
					t.Error(err)
				}
			})
		}}}, nil, nil)
}

// madeTimeFolder is in memory where that is possible: tens of thousands of
// flushes are measured by what they write, and need not wait for a disk.
func madeTimeFolder(dir string) (string, error) {
	if made, err := os.MkdirTemp("/dev/shm", "bench-"); err == nil {
		return made, nil
	}
	return os.MkdirTemp(dir, "made-time-")
}

// deliver appends the events of a stream when their time has come, a few at once.
func deliver(s *store.Store, events *stream.Stream, rows int, passed func(time.Time) error) error {
	for batches := events.Next(rows); batches != nil; batches = events.Next(rows) {
		var last int64
		for _, b := range batches {
			for _, at := range b.Columns[event.Time].Ints {
				last = max(last, at)
			}
		}
		time.Sleep(time.Until(time.Unix(0, last)))
		for _, b := range batches {
			s.Append(b)
		}
		if err := passed(time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func measureQuiet(dir string, seed uint64) (*Quiet, error) {
	o := stream.Options{Events: quietDays * 24 * 3600, Span: quietDays * 24 * time.Hour, Seed: seed}
	o.End = time.Now().Add(o.Span)
	path := filepath.Join(dir, "events.db")
	s, err := store.Open(store.Options{Path: path, Types: stream.Types()})
	if err != nil {
		return nil, err
	}
	q := &Quiet{Events: o.Events}
	err = s.Start(madeRun())
	if err == nil {
		err = deliver(s, stream.New(o), 1, func(now time.Time) error {
			// As the drop monitor does for about every TCP connection that ends.
			s.Filtered("packet_drop", "rule", now.Add(-time.Second), 1)
			return nil
		})
	}
	if err == nil {
		q.BytesAtEnd, err = sizeOf(dir)
		time.Sleep(quietRest)
	}
	if err := errors.Join(err, s.Check(nil), s.Close()); err != nil {
		return nil, err
	}
	q.Bytes, err = sizeOf(dir)
	q.BytesPerEvent = float64(q.Bytes) / float64(q.Events)
	return q, err
}

// measureRetention takes days that are alike, so that live data is about the same
// at the end of each: a file for busy days is no waste on quiet ones.
func measureRetention(dir string, seed uint64, events int64) (*Retained, error) {
	o := stream.Options{Events: events, Span: retentionDays * 24 * time.Hour, Seed: seed, NoWeekends: true}
	o.End = time.Now().Add(o.Span)
	keep := make(map[string]time.Duration)
	for _, t := range stream.Types() {
		keep[t.Name] = retentionAge
	}
	s, err := store.Open(store.Options{Path: filepath.Join(dir, "events.db"), Types: stream.Types(), Limits: store.Limits{MaxAge: keep}})
	if err != nil {
		return nil, err
	}
	r := &Retained{}
	readers := make(chan error, 2)
	err = s.Start(madeRun())
	if err == nil {
		err = deliver(s, stream.New(o), 32, func(now time.Time) error {
			for day := len(r.Days) + 1; now.Sub(o.Begin()) >= time.Duration(day)*24*time.Hour-time.Hour; day++ {
				switch day {
				case readerDay:
					go func() { readers <- readSlowly(s) }()
				case snapshotDay:
					go func() {
						_, err := s.Snapshot(context.Background(), new(slowWriter))
						readers <- err
					}()
				}
				if err := r.note(s, dir); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = errors.Join(<-readers, <-readers)
	}
	r.judge()
	return r, errors.Join(err, s.Check(nil), s.Close())
}

// note adds the state at the end of a day.
func (r *Retained) note(s *store.Store, dir string) error {
	d := RetainedDay{Day: len(r.Days) + 1}
	for _, t := range s.Status().Types {
		d.Events += t.Events
		d.Live += t.Bytes
		for place, n := range t.Lost {
			if n > 0 {
				return fmt.Errorf("%d events of %s were lost: %s", n, t.Name, place)
			}
		}
	}
	var err error
	d.File, err = sizeOf(dir)
	r.Days = append(r.Days, d)
	return err
}

func (r *Retained) judge() {
	filling, full, last := int64(1), int64(1), int64(0)
	for _, d := range r.Days {
		if d.Day >= fullDay {
			r.Worst = max(r.Worst, float64(d.File)/float64(max(d.Live, 1)))
		}
		switch {
		case d.Day <= fullDay:
			filling = max(filling, d.File)
		case d.Day <= snapshotDay: // whose note was made before it began
			full = max(full, d.File)
		default:
			last = max(last, d.File)
		}
	}
	r.Growth = float64(full) / float64(filling)
	r.Snapshot = float64(last) / float64(max(filling, full))
}

// slowWriter takes an hour over the first bytes.
type slowWriter struct{ begun bool }

func (w *slowWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.begun = true
		time.Sleep(readerPause)
	}
	return len(p), nil
}

var errReadEnough = errors.New("read enough")

// readSlowly is somebody who takes an hour over what an export hands out.
func readSlowly(s *store.Store) error {
	rows := 0
	_, err := s.Events(context.Background(), query.Events{Types: stream.Types(), Ascending: true}, func(event.Row) error {
		if rows++; rows == 1 {
			time.Sleep(readerPause)
		}
		if rows > 1_000_000 {
			return errReadEnough
		}
		return nil
	})
	if errors.Is(err, errReadEnough) {
		return nil
	}
	return err
}

// runMadeTime is the child process for what happens in made time.
func runMadeTime(j job) error {
	dir, err := madeTimeFolder(j.Dir)
	if err != nil {
		return err
	}
	inMadeTime(func() (err error) {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		var r result
		if j.Kind == kindQuiet {
			r.Quiet, err = measureQuiet(dir, j.Stream.Seed)
		} else {
			r.Retained, err = measureRetention(dir, j.Stream.Seed, j.Stream.Events)
		}
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	})
	return nil // not reached
}
