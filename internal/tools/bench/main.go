// Bench measures the project's store beside other ways to keep the same events:
// one JSON value per key in bbolt, SQLite, and DuckDB.
//
//	go run . --events=10000000
//	go run . --events=1000000 --peers=store,sqlite --json
//	go run . --events=100000000 --peer-events=10000000
//
// (make bench EVENTS=10000000 does the first.) It needs cgo and a C++ compiler,
// for the peers; that is why it is a module of its own, which the program does
// not depend on. 10 million events take about half an hour and 10 GB of disk, nearly
// all of that for the peers.
//
// The events are made (see the package stream): a busy host's connections and
// dropped packets over 7 days, the same for every peer and every run with the
// same seed. They are handed over in batches of 1,024, and every 65,536 events must
// be safe on disk before the next ones come. Each peer ingests in one child
// process and answers in another, so that memory and processor time are its own.
//
// How to read the table. Each peer has its figure and, in brackets, that figure
// divided by the store's: 4x at milliseconds or bytes is four times worse than
// the store, 0.25x at events/s is four times slower. The goals are those of
// issue 3, for 10 million events; "!" stands behind the store's figure where it
// misses one.
//
//   - ingest: the median of up to 3 runs in 15 seconds, each until nothing goes on
//     in the background and the file is closed, with all that it takes
//     (indexes, sealing, checkpoints), without the time in which the events are
//     made. What a peer does in the background in that time is charged as if it
//     had been waited for.
//   - memory: the peak of RssAnon, the anonymous memory of the process; mapped files do
//     not count. While ingesting it includes the events in hand: with no peer at
//     all it would be 48 MB.
//   - questions: the median of up to 21 runs in 3 seconds, after one that
//     warms up and gives the answer.
//   - cold: the median of up to 3 runs, each after the page cache was emptied and the
//     file opened again; opening has its own line. Below a virtual machine
//     the host may have cached the disk all the same. What takes more than 5
//     seconds when warm (an export: a minute) is not asked cold, and shows "-".
//   - export: events of which every value was read; then as JSON lines with a digest.
//   - HTTP: the same questions to the API over the store, in the same process, by a
//     client on loopback that keeps its connection, until it has the last byte, which is
//     compared with what the store answers. Goals are those of the store itself; a
//     download has none, as it also makes text or Parquet of every event. Cold, the
//     server has just begun, and the client has to connect.
//
// Every answer is compared with SQLite's, row by row, the export by digest. One
// that differs is printed and makes the exit status 1, as every other error does.
// A missed goal does not.
//
// The quiet host (one event a second for three days) and retention (48 hours kept
// over 14 days, with a reader who takes an hour on day 6 and a snapshot that does on day
// 10) happen in made time, in memory, with the store's ordinary flushes and timers.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) == 2 && os.Args[1] == childArgument {
		return runChild()
	}
	o, err := parseOptions()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := o.measure(ctx)
	if err != nil {
		return err
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	} else {
		err = r.write(os.Stdout)
	}
	if err == nil && len(r.Different) > 0 {
		err = fmt.Errorf("%d answers differ", len(r.Different))
	}
	return err
}

// options are what the user wants.
type options struct {
	stream     stream.Options
	peers      []string
	peerEvents int64
	dir        string
	json       bool
	madeTime   bool
	profile    string
}

const span = 7 * 24 * time.Hour

func parseOptions() (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.Int64Var(&o.stream.Events, "events", 10_000_000, "how many events")
	f.Int64Var(&o.peerEvents, "peer-events", 0, "at most so many events for all but the store; 0: as many (answers are compared only where there are as many)")
	names := f.String("peers", strings.Join(peerNames(), ","), "what to measure")
	f.Uint64Var(&o.stream.Seed, "seed", 1, "another one makes other events")
	end := f.String("end", "", "when the events end, RFC 3339 (default: now)")
	f.StringVar(&o.dir, "dir", "", "folder for the files, on the disk to be measured (default: the system's for temporary files)")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	f.BoolVar(&o.madeTime, "made-time", true, "also measure the quiet host and retention")
	f.StringVar(&o.profile, "profile", "", "folder for CPU profiles of each kind of work, one file per peer (go tool pprof)")
	_ = f.Parse(os.Args[1:]) // ExitOnError
	o.stream.Span, o.stream.End = span, time.Now().UTC().Truncate(time.Second)
	if *end != "" {
		if o.stream.End, err = time.Parse(time.RFC3339, *end); err != nil {
			return o, fmt.Errorf("--end: %w", err)
		}
	}
	if o.peerEvents == 0 {
		o.peerEvents = o.stream.Events
	}
	if min(o.stream.Events, o.peerEvents) < stream.MinEvents {
		return o, fmt.Errorf("--events and --peer-events must be %d or more", stream.MinEvents)
	}
	o.peers = strings.Split(*names, ",")
	for _, name := range o.peers {
		if !slices.Contains(peerNames(), name) {
			return o, fmt.Errorf("--peers: no peer is named %q (there are %s)", name, strings.Join(peerNames(), ", "))
		}
	}
	return o, nil
}

// measure does everything, in child processes one after the other.
func (o options) measure(ctx context.Context) (r *Report, err error) {
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r = &Report{Events: o.stream.Events, Seed: o.stream.Seed, End: o.stream.End}
	for _, name := range o.peers {
		j := job{Peer: name, Dir: filepath.Join(dir, name), Stream: o.stream, Profile: o.profile}
		if name != theStore {
			j.Stream.Events = min(o.stream.Events, o.peerEvents)
		}
		p, err := measurePeer(ctx, j)
		if err != nil {
			return nil, err
		}
		r.Peers = append(r.Peers, p)
	}
	if err := o.measureMadeTime(ctx, dir, r); err != nil {
		return nil, err
	}
	r.compare(o.stream)
	return r, nil
}

func measurePeer(ctx context.Context, j job) (p PeerReport, err error) {
	p.Name, j.Kind = j.Peer, kindIngest
	if p.Ingested, err = ingestOften(ctx, j); err != nil {
		return p, err
	}
	j.Kind = kindAsk
	announce(j)
	r, err := inChild(ctx, j)
	if err != nil {
		return p, err
	}
	p.Asked = r.Asked
	return p, os.RemoveAll(j.Dir) // the next one may need the space
}

const (
	ingestRuns   = 3
	ingestBudget = 15 * time.Second
)

// ingestOften returns the median of some runs, of one if that takes long: a
// second in which the disk is busy with something else would be all that one sees.
func ingestOften(ctx context.Context, j job) (*Ingested, error) {
	var runs []*Ingested
	for spent := time.Duration(0); len(runs) < ingestRuns && spent < ingestBudget; {
		if err := errors.Join(os.RemoveAll(j.Dir), os.Mkdir(j.Dir, 0o700)); err != nil {
			return nil, err
		}
		announce(j)
		r, err := inChild(ctx, j)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r.Ingested)
		spent += r.Ingested.Wall
	}
	slices.SortFunc(runs, func(a, b *Ingested) int { return cmp.Compare(a.Wall, b.Wall) })
	return runs[len(runs)/2], nil
}

func announce(j job) {
	fmt.Fprintf(os.Stderr, "%s: %s %s events\n", j.Peer, j.Kind, grouped(j.Stream.Events))
}

// mostRetained keeps what is measured in memory small.
const mostRetained = 20_000_000

func (o options) measureMadeTime(ctx context.Context, dir string, r *Report) error {
	if !o.madeTime || !slices.Contains(o.peers, theStore) {
		r.NotDone = append(r.NotDone, "the quiet host and retention (they need --made-time and the store)")
		return nil
	}
	for _, kind := range []string{kindQuiet, kindRetention} {
		fmt.Fprintf(os.Stderr, "%s: %s\n", theStore, kind)
		j := job{Kind: kind, Peer: theStore, Dir: dir, Stream: o.stream}
		j.Stream.Events = min(2*o.stream.Events, mostRetained) // as many a day, over twice the days
		done, err := inChild(ctx, j)
		if err != nil {
			return err
		}
		if done.Quiet != nil {
			r.Quiet = done.Quiet
		}
		if done.Retained != nil {
			r.Retained = done.Retained
		}
	}
	return nil
}
