package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"

	"github.com/srodi/ebpf-server/internal/memory"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// Everything is measured in a child process of its own, so that memory and
// processor time are those of one peer and one kind of work.

// childArgument makes this program such a child. It reads a job from its
// standard input and writes the result to its standard output.
const childArgument = "child"

const (
	kindIngest    = "ingest"
	kindAsk       = "ask"
	kindQuiet     = "quiet"
	kindRetention = "retention"
)

type job struct {
	Kind    string
	Peer    string
	Dir     string
	Stream  stream.Options
	Profile string // folder for a profile of the processor's time; none if it is empty
}

type result struct {
	Ingested *Ingested `json:",omitempty"`
	Asked    *Asked    `json:",omitempty"`
	Quiet    *Quiet    `json:",omitempty"`
	Retained *Retained `json:",omitempty"`
}

func runChild() error {
	memory.Bound() // as cmd/ebpf-server does; for all peers
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	if j.Profile != "" {
		stop, err := profile(j)
		if err != nil {
			return err
		}
		defer stop()
	}
	var r result
	var err error
	switch j.Kind {
	case kindIngest:
		r.Ingested, err = ingest(j)
	case kindAsk:
		r.Asked, err = ask(j)
	default:
		return runMadeTime(j)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// inChild does a job in a child process.
func inChild(ctx context.Context, j job) (r result, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	input, err := json.Marshal(j)
	if err != nil {
		return r, err
	}
	var output bytes.Buffer
	c := exec.CommandContext(ctx, self, childArgument)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(input), &output, os.Stderr
	if err := c.Run(); err != nil {
		return r, fmt.Errorf("%s %s: %w %s", j.Kind, j.Peer, err, output.Bytes())
	}
	if err := json.NewDecoder(&output).Decode(&r); err != nil { // made time adds a line after it
		return r, fmt.Errorf("%s %s: read result: %w", j.Kind, j.Peer, err)
	}
	return r, nil
}

// profile starts to profile a child's use of the processor, for go tool pprof.
func profile(j job) (stop func(), err error) {
	f, err := os.Create(filepath.Join(j.Profile, j.Kind+"-"+j.Peer+".pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}
