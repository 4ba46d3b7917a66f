package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// Asked are the figures of answering.
type Asked struct {
	Open       time.Duration `json:"open_ns"`      // warm, median
	OpenCold   time.Duration `json:"open_cold_ns"` // median
	PeakMemory int64         `json:"peak_memory_bytes"`
	Eviction   string        `json:"eviction"` // how the page cache was emptied, and how well
	Answers    []Answer      `json:"answers"`
	Through    *Through      `json:"through_http,omitempty"` // of the store only

	stayed float64 // share of the page cache, at the worst eviction
}

// Answer is what a peer answered to a question, and how long it took.
type Answer struct {
	Question string        `json:"question"`
	Rows     []string      `json:"rows,omitempty"`
	Events   int64         `json:"events,omitempty"` // of an export
	Digest   uint32        `json:"digest,omitempty"` // of an export: of all its lines
	Values   int64         `json:"values,omitempty"` // of an export: that were read
	Warm     time.Duration `json:"warm_ns"`          // median
	WarmRuns int           `json:"warm_runs"`
	Cold     time.Duration `json:"cold_ns"` // median; 0: not asked
	Lines    time.Duration `json:"lines_ns,omitempty"`
}

const (
	// A question is asked warmRuns times, or until it has taken warmBudget.
	warmRuns   = 21
	warmBudget = 3 * time.Second
	coldRuns   = 3
	coldBudget = 2 * time.Second
	// What takes longer than that when warm is not asked cold: the key-value
	// store would read its whole file for each question, for minutes.
	coldLimit       = 5 * time.Second
	coldLimitExport = time.Minute
)

func ask(j job) (*Asked, error) {
	result := &Asked{}
	watched := watchMemory()
	if err := openOften(j, result); err != nil {
		return nil, err
	}
	p, err := openPeer(j.Peer, j.Dir)
	if err != nil {
		return nil, err
	}
	all := questions(j.Stream)
	for _, q := range all {
		a, err := askWarm(p, q)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		result.Answers = append(result.Answers, a)
	}
	result.PeakMemory = watched.end()
	if err := check(p); err != nil {
		return nil, err
	}
	if err := p.Close(); err != nil {
		return nil, err
	}
	if j.Peer == theStore {
		if result.Through, err = askThrough(j, all, result.Answers); err != nil {
			return nil, err
		}
	}
	return result, askCold(j, all, result)
}

func openOften(j job, result *Asked) error {
	var took []time.Duration
	for range 5 {
		begin := time.Now()
		p, err := openPeer(j.Peer, j.Dir)
		if err != nil {
			return err
		}
		took = append(took, time.Since(begin))
		if err := p.Close(); err != nil {
			return err
		}
	}
	result.Open = median(took)
	return nil
}

// check lets a peer verify its whole file, if it can.
func check(p peer) error {
	if c, ok := p.(interface {
		Check(progress func(done, total int64)) error
	}); ok {
		if err := c.Check(nil); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	return nil
}

// askWarm asks once for the answer, which warms the cache, and then for the
// time. What takes longer than the budget is timed at the first asking.
func askWarm(p peer, q question) (a Answer, err error) {
	a.Question = q.name
	var first answer
	begin := time.Now()
	if q.export {
		err = exportLines(p, q, &a)
		a.Lines = time.Since(begin)
	} else {
		first, err = q.ask(p)
	}
	spent := time.Since(begin)
	a.Rows = first.text()
	took := []time.Duration{spent}
	if spent < warmBudget || q.export {
		took, spent = nil, 0
	}
	for err == nil && len(took) < warmRuns && spent < warmBudget {
		begin := time.Now()
		if q.export {
			err = exportValues(p, q, &a)
		} else {
			_, err = q.ask(p)
		}
		took = append(took, time.Since(begin))
		spent += took[len(took)-1]
	}
	a.Warm, a.WarmRuns = median(took), len(took)
	return a, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// exportLines reads all events as JSON lines and keeps their digest.
func exportLines(p peer, q question, a *Answer) error {
	var line []byte
	return p.Events(q.events, func(r row) error {
		line = append(r.AppendJSON(line[:0]), '\n')
		a.Digest = crc32.Update(a.Digest, castagnoli, line)
		a.Events++
		return nil
	})
}

// exportValues reads all events and every value in them: what an export to any
// format has to do before it writes.
func exportValues(p peer, q question, a *Answer) error {
	a.Values = 0
	return p.Events(q.events, func(r row) error {
		a.Values += int64(r.Values())
		return nil
	})
}

// askCold asks each question just after opening a file of which nothing is in
// the page cache.
func askCold(j job, all []question, result *Asked) error {
	var opened []time.Duration
	for i, q := range all {
		limit := coldLimit
		if q.export {
			limit = coldLimitExport
		}
		if result.Answers[i].Warm > limit {
			continue
		}
		took, err := result.cold(j, &opened, func(p peer) (time.Duration, error) {
			begin := time.Now()
			var err error
			if q.export {
				err = exportValues(p, q, &Answer{})
			} else {
				_, err = q.ask(p)
			}
			return time.Since(begin), err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		result.Answers[i].Cold = took
		if result.Through == nil || q.export {
			continue
		}
		result.Through.Answers[i].Cold, err = result.cold(j, &opened, func(p peer) (time.Duration, error) { return firstThrough(p, q) })
		if err != nil {
			return fmt.Errorf("through HTTP: %s: %w", q.name, err)
		}
	}
	result.OpenCold = median(opened)
	return nil
}

// cold returns the median of what ask says it took, and adds to opened how long it
// took to open the file.
func (r *Asked) cold(j job, opened *[]time.Duration, ask func(peer) (time.Duration, error)) (time.Duration, error) {
	var took []time.Duration
	for spent := time.Duration(0); len(took) < coldRuns && spent < coldBudget; {
		stayed, how, err := evict(j.Dir)
		if err != nil {
			return 0, err
		}
		if r.Eviction == "" || stayed > r.stayed {
			r.stayed, r.Eviction = stayed, fmt.Sprintf("%s; %.1f%% stayed", how, 100*stayed)
		}
		begin := time.Now()
		p, err := openPeer(j.Peer, j.Dir)
		if err != nil {
			return 0, err
		}
		*opened = append(*opened, time.Since(begin))
		answered, err := ask(p)
		if err := errors.Join(err, p.Close()); err != nil {
			return 0, err
		}
		took = append(took, answered)
		spent += time.Since(begin)
	}
	return median(took), nil
}

func median(took []time.Duration) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}
