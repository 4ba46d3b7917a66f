package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// goal is what issue 3 wants of the store; the zero value wants nothing.
type goal struct {
	limit   float64
	atLeast bool
}

func atLeast(x float64) goal { return goal{x, true} }
func atMost(x float64) goal  { return goal{x, false} }

func (g goal) missed(x float64) bool {
	return g.limit != 0 && x != 0 && (g.atLeast && x < g.limit || !g.atLeast && x > g.limit)
}

func (g goal) String() string {
	switch {
	case g.limit == 0:
		return ""
	case g.atLeast:
		return ">= " + number(g.limit)
	}
	return "<= " + number(g.limit)
}

// line is one figure of all peers.
type line struct {
	name string
	goal goal
	of   func(*PeerReport) float64 // 0: not measured
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
func mb(bytes int64) float64     { return float64(bytes) / 1e6 }

// goalOf is for questions of which issue 3 speaks.
func goalOf(q question, d time.Duration) goal {
	if q.goal == 0 {
		return goal{}
	}
	return atMost(ms(d))
}

func (r *Report) lines() []line {
	size := 24.0
	if r.Events >= 100_000_000 {
		size = 23
	}
	lines := []line{
		{"ingest, events/s", atLeast(1.2e6), func(p *PeerReport) float64 { return p.Ingested.EventsPerSecond }},
		{"ingest, CPU seconds per million", atMost(0.8), func(p *PeerReport) float64 { return p.Ingested.CPUPerMillion }},
		{"ingest, peak memory, MB", atMost(150), func(p *PeerReport) float64 { return mb(p.Ingested.PeakMemory) }},
		{"file, bytes per event", atMost(size), func(p *PeerReport) float64 { return p.Ingested.BytesPerEvent }},
		{"answers, peak memory, MB", atMost(150), func(p *PeerReport) float64 { return mb(p.Asked.PeakMemory) }},
		{"open, ms", atMost(100), func(p *PeerReport) float64 { return ms(p.Asked.Open) }},
		{"open cold, ms", goal{}, func(p *PeerReport) float64 { return ms(p.Asked.OpenCold) }},
	}
	all := r.questions()
	for i, q := range all {
		if q.export {
			perSecond := func(took func(Answer) time.Duration) func(*PeerReport) float64 {
				return func(p *PeerReport) float64 {
					if t := took(p.Asked.Answers[i]); t > 0 {
						return float64(p.Ingested.Events) / t.Seconds()
					}
					return 0
				}
			}
			lines = append(lines,
				line{q.name + ", events/s", atLeast(exportGoal), perSecond(func(a Answer) time.Duration { return a.Warm })},
				line{q.name + " as JSON lines, events/s", goal{}, perSecond(func(a Answer) time.Duration { return a.Lines })},
				line{q.name + " cold, events/s", goal{}, perSecond(func(a Answer) time.Duration { return a.Cold })})
			continue
		}
		lines = append(lines, line{q.name + ", ms", goalOf(q, q.goal), func(p *PeerReport) float64 { return ms(p.Asked.Answers[i].Warm) }})
	}
	lines = append(lines, throughLines(all)...)
	for i, q := range all {
		if !q.export {
			lines = append(lines, line{"cold: " + q.name + ", ms", goalOf(q, coldGoal(q)), func(p *PeerReport) float64 { return ms(p.Asked.Answers[i].Cold) }})
		}
	}
	return lines
}

func coldGoal(q question) time.Duration { return max(10*q.goal, 50*time.Millisecond) }

// throughLines are the same questions over HTTP, with the same goals.
func throughLines(all []question) (lines []line) {
	of := func(figure func(*Through) float64) func(*PeerReport) float64 {
		return func(p *PeerReport) float64 {
			if p.Asked.Through == nil {
				return 0
			}
			return figure(p.Asked.Through)
		}
	}
	perSecond := func(took func(*Through) time.Duration) func(*PeerReport) float64 {
		return func(p *PeerReport) float64 {
			return of(func(t *Through) float64 { return float64(p.Ingested.Events) / took(t).Seconds() })(p)
		}
	}
	const name = "HTTP: "
	for i, q := range all {
		if !q.export {
			lines = append(lines, line{name + q.name + ", ms", goalOf(q, q.goal), of(func(t *Through) float64 { return ms(t.Answers[i].Warm) })})
			continue
		}
		lines = append(lines,
			line{name + q.name + " as JSON lines, events/s", goal{}, perSecond(func(t *Through) time.Duration { return t.Answers[i].Warm })},
			line{name + q.name + " as Parquet, events/s", goal{}, perSecond(func(t *Through) time.Duration { return t.Parquet })})
	}
	for i, q := range all {
		if !q.export {
			lines = append(lines, line{name + "cold: " + q.name + ", ms", goalOf(q, coldGoal(q)), of(func(t *Through) float64 { return ms(t.Answers[i].Cold) })})
		}
	}
	return append(lines,
		line{name + "answers and JSON lines, peak memory, MB", atMost(150), of(func(t *Through) float64 { return mb(t.PeakMemory) })},
		line{name + "export as Parquet, peak memory, MB", atMost(150), of(func(t *Through) float64 { return mb(t.ParquetMemory) })})
}

// write prints the report for people.
func (r *Report) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', tabwriter.AlignRight)
	own, missed := r.peer(theStore), 0
	head := []string{grouped(r.Events) + " events", "goal"}
	for _, p := range r.Peers {
		head = append(head, p.Name, "")
		if n := p.Ingested.Events; n != r.Events {
			head[len(head)-1] = "of " + grouped(n)
		}
	}
	rows := [][]string{head}
	for _, l := range r.lines() {
		cells := []string{l.name, l.goal.String()}
		for i := range r.Peers {
			p := &r.Peers[i]
			x, note := l.of(p), ""
			switch {
			case p == own && l.goal.missed(x):
				note = "!"
				missed++
			case p != own && own != nil && x > 0 && l.of(own) > 0:
				note = "(" + ratio(x/l.of(own)) + ")"
			}
			cells = append(cells, number(x), note)
		}
		rows = append(rows, cells)
	}
	for _, l := range r.madeTimeLines() {
		cells := []string{l.name, l.goal.String(), number(l.of(nil)), ""}
		if l.goal.missed(l.of(nil)) {
			cells[3] = "!"
			missed++
		}
		rows = append(rows, cells)
	}
	for _, cells := range rows {
		cells[0] = fmt.Sprintf("%-*s", nameWidth, cells[0]) // numbers stand right, names left
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")+"\t"); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return r.writeNotes(w, missed)
}

const nameWidth = 54

// madeTimeLines are figures of the store alone.
func (r *Report) madeTimeLines() (lines []line) {
	add := func(name string, g goal, x float64) {
		lines = append(lines, line{name, g, func(*PeerReport) float64 { return x }})
	}
	if r.Quiet != nil {
		add("quiet host, bytes per event", atMost(60), r.Quiet.BytesPerEvent)
	}
	if r.Retained != nil {
		add("48 h kept over 14 days, file to live data", atMost(1.7), r.Retained.Worst)
		add("the same, growth after day 4", atMost(1.01), r.Retained.Growth)
		add("the same, growth by a snapshot of an hour", goal{}, r.Retained.Snapshot)
	}
	return lines
}

func (r *Report) writeNotes(w io.Writer, missed int) error {
	var notes []string
	if r.Retained != nil {
		for _, d := range r.Retained.Days {
			notes = append(notes, fmt.Sprintf("day %2d of 14: %s events kept, live data %s MB, file %s MB (%.2f)", d.Day, grouped(d.Events), number(mb(d.Live)), number(mb(d.File)), float64(d.File)/float64(max(d.Live, 1))))
		}
	}
	for _, p := range r.Peers {
		n := p.Ingested.Events
		notes = append(notes, fmt.Sprintf("%s: making the events took %d ns for each, which is not counted; page cache emptied by %s", p.Name, p.Ingested.GeneratorWall.Nanoseconds()/n, p.Asked.Eviction))
	}
	if missed > 0 {
		notes = append(notes, fmt.Sprintf("!  %d goals missed (they are set for 10 million events)", missed))
	}
	for _, what := range r.NotDone {
		notes = append(notes, "not measured: "+what)
	}
	if len(r.Compared) > 0 {
		notes = append(notes, fmt.Sprintf("answers compared with those of %s: %s", theReference, strings.Join(r.Compared, ", ")))
	}
	for _, difference := range r.Different {
		notes = append(notes, "DIFFERENT: "+difference)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	return err
}

// number keeps three digits, or all before the point.
func number(x float64) string {
	switch {
	case x == 0:
		return "-"
	case x >= 1000:
		return grouped(int64(x + 0.5))
	case x >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case x >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}

func ratio(x float64) string {
	if x >= 100 {
		return grouped(int64(x+0.5)) + "x"
	}
	return strconv.FormatFloat(x, 'g', 2, 64) + "x"
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
