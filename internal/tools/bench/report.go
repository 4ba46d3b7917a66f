package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// Report is all that was measured.
type Report struct {
	Events    int64        `json:"events"`
	Seed      uint64       `json:"seed"`
	End       time.Time    `json:"end"`
	Peers     []PeerReport `json:"peers"`
	Quiet     *Quiet       `json:"quiet,omitempty"`
	Retained  *Retained    `json:"retention,omitempty"`
	NotDone   []string     `json:"not_measured,omitempty"`
	Different []string     `json:"differences,omitempty"` // answers that are not equal
	Compared  []string     `json:"compared,omitempty"`    // peers whose answers were compared with the reference's
}

// PeerReport is what was measured of one peer.
type PeerReport struct {
	Name     string    `json:"name"`
	Ingested *Ingested `json:"ingest"`
	Asked    *Asked    `json:"ask"`
}

func (r *Report) peer(name string) *PeerReport {
	for i := range r.Peers {
		if r.Peers[i].Name == name {
			return &r.Peers[i]
		}
	}
	return nil
}

// compare looks for answers that are not equal: to the reference's of as many
// events, and to what the stream has planted.
func (r *Report) compare(o stream.Options) {
	reference := r.peer(theReference)
	for i := range r.Peers {
		p := &r.Peers[i]
		r.checkPlanted(p, o)
		if p.Asked.Through != nil {
			r.Different = append(r.Different, p.Asked.Through.Different...)
		}
		switch {
		case p == reference:
			continue
		case reference == nil || p.Ingested.Events != reference.Ingested.Events:
			r.NotDone = append(r.NotDone, fmt.Sprintf("whether %s answers right: that takes %s with as many events", p.Name, theReference))
			continue
		}
		r.Compared = append(r.Compared, p.Name)
		for k := range p.Asked.Answers {
			if difference := p.Asked.Answers[k].differs(&reference.Asked.Answers[k]); difference != "" {
				r.Different = append(r.Different, fmt.Sprintf("%s and %s differ: %s: %s", p.Name, reference.Name, p.Asked.Answers[k].Question, difference))
			}
		}
	}
}

// differs returns the first difference, empty when there is none.
func (a *Answer) differs(b *Answer) string {
	if a.Events != b.Events || a.Digest != b.Digest || a.Values != b.Values {
		return fmt.Sprintf("%d events, digest %08x, %d values; want %d, %08x, %d", a.Events, a.Digest, a.Values, b.Events, b.Digest, b.Values)
	}
	for i := range max(len(a.Rows), len(b.Rows)) {
		switch {
		case i >= len(a.Rows):
			return fmt.Sprintf("%d rows instead of %d; lacks %s", len(a.Rows), len(b.Rows), b.Rows[i])
		case i >= len(b.Rows):
			return fmt.Sprintf("%d rows instead of %d; has %s", len(a.Rows), len(b.Rows), a.Rows[i])
		case a.Rows[i] != b.Rows[i]:
			return fmt.Sprintf("row %d is %s, want %s", i+1, a.Rows[i], b.Rows[i])
		}
	}
	return ""
}

func (r *Report) checkPlanted(p *PeerReport, o stream.Options) {
	planted := o.Planted()
	for _, a := range p.Asked.Answers {
		want := slices.Index([]string{questionPID, questionIP, questionFailed, questionExport, questionDaemon}, a.Question)
		got, least, most := len(a.Rows), 0, len(a.Rows)
		switch want {
		case 0, 4:
			least, most = planted.PIDEvents, planted.PIDEvents
		case 1:
			least, most = planted.IPEvents, planted.IPEvents
		case 2:
			least = planted.MinFailures
		case 3:
			got, least, most = int(a.Events), int(p.Ingested.Events), int(p.Ingested.Events)
		}
		if got < least || got > most {
			r.Different = append(r.Different, fmt.Sprintf("%s: %s: %d rows, the stream has %d", p.Name, a.Question, got, least))
		}
	}
}

// questions are those that were asked, for their names and goals.
func (r *Report) questions() []question {
	return questions(stream.Options{Events: r.Events, Seed: r.Seed, End: r.End, Span: span})
}
