package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// peer is one way to keep events: the project's store, or what it is compared with.
type peer interface {
	// Ingest stores events. They are safe on disk when it returns.
	Ingest([]*event.Batch) error
	// Summary answers a question for counts and sums. The order within a time is
	// anyone's.
	Summary(question) ([]figures, error)
	// Events hands the events asked for to do, in order.
	Events(query.Events, func(row) error) error
	Close() error
}

// row is an event as a peer hands it out. It is good until the next one.
type row interface {
	// AppendJSON appends it as the API would print it.
	AppendJSON([]byte) []byte
	// Values reads every value that there is, and counts them.
	Values() int
}

// peerKind is a peer that can be measured.
type peerKind struct {
	name string
	open func(dir string) (peer, error)
}

// Names that the harness itself speaks of.
const (
	theStore     = "store"
	theReference = "sqlite" // its answers are the ones that count
)

func peerNames() []string {
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.name
	}
	return names
}

func openPeer(name, dir string) (peer, error) {
	for _, p := range peers {
		if p.name == name {
			opened, err := p.open(dir)
			if err != nil {
				return nil, fmt.Errorf("open %s: %w", name, err)
			}
			return opened, nil
		}
	}
	return nil, fmt.Errorf("no peer is named %q (there are %s)", name, strings.Join(peerNames(), ", "))
}

// sizeOf returns what the files in a peer's folder take.
func sizeOf(dir string) (bytes int64, err error) {
	for _, path := range filesIn(dir) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		bytes += info.Size()
	}
	return bytes, nil
}

func filesIn(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, "*")) // the pattern is good
	slices.Sort(paths)
	return paths
}
