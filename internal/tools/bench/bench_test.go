package main

import (
	"errors"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

var testStream = stream.Options{Events: stream.MinEvents, End: time.Date(2026, 11, 21, 15, 17, 23, 0, time.UTC), Span: span, Seed: 1}

func fill(t *testing.T, name string) *PeerReport {
	t.Helper()
	dir := t.TempDir()
	p, err := openPeer(name, dir)
	if err != nil {
		t.Fatal(err)
	}
	events := stream.New(testStream)
	for batches := events.Next(batchRows); batches != nil; batches = events.Next(batchRows) {
		if err := p.Ingest(batches); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = openPeer(name, dir); err != nil {
		t.Fatal(err)
	}
	report := &PeerReport{Name: name, Ingested: &Ingested{Events: testStream.Events}, Asked: &Asked{}}
	for _, q := range questions(testStream) {
		a := Answer{Question: q.name}
		if q.export {
			err = errors.Join(exportLines(p, q, &a), exportValues(p, q, &a))
		} else {
			var got answer
			got, err = q.ask(p)
			a.Rows = got.text()
		}
		if err != nil {
			t.Errorf("%s: %s: %v", name, q.name, err)
		}
		report.Asked.Answers = append(report.Asked.Answers, a)
	}
	if err := errors.Join(check(p), p.Close()); err != nil {
		t.Error(err)
	}
	if name == theStore {
		if report.Asked.Through, err = askThrough(job{Peer: name, Dir: dir}, questions(testStream), report.Asked.Answers); err != nil {
			t.Error(err)
		}
	}
	return report
}

// TestPeersAgree checks that the peers answer alike, and that a wrong answer would be found.
func TestPeersAgree(t *testing.T) {
	r := &Report{Events: testStream.Events}
	for _, name := range peerNames() {
		r.Peers = append(r.Peers, *fill(t, name))
	}
	r.compare(testStream)
	for _, difference := range r.Different {
		t.Error(difference)
	}
	if len(r.Compared) != len(peers)-1 {
		t.Errorf("compared: %v", r.Compared)
	}
	for i, a := range r.peer(theReference).Asked.Answers {
		if !questions(testStream)[i].export && len(a.Rows) == 0 {
			t.Errorf("%s has no rows", a.Question)
		}
	}

	if through := r.peer(theStore).Asked.Through; len(through.Answers) != len(questions(testStream)) {
		t.Errorf("%d answers through HTTP", len(through.Answers))
	}

	answers := r.peer(theStore).Asked.Answers
	answers[1].Rows[0] += "0"
	answers[4].Rows = answers[4].Rows[:99]
	answers[len(answers)-1].Digest++
	r.peer(theStore).Asked.Through.Different = []string{"an answer through HTTP"}
	r.Different, r.Compared = nil, nil
	r.compare(testStream)
	if len(r.Different) != 5 { // the process with too few events is found twice
		t.Errorf("differences: %q", r.Different)
	}
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{0: "-", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1,234", 1234567.8: "1,234,568"} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %s, want %s", x, got, want)
		}
	}
	for _, c := range []struct {
		g      goal
		x      float64
		missed bool
	}{{atLeast(2), 1, true}, {atLeast(2), 2, false}, {atMost(2), 3, true}, {atMost(2), 2, false}, {goal{}, 9, false}} {
		if c.g.missed(c.x) != c.missed {
			t.Errorf("goal %v is missed by %v: %v", c.g, c.x, !c.missed)
		}
	}
}
