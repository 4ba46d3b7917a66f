package store

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// gap is a span in which one type was not recorded, or its events are gone.
type gap struct {
	span
	reason string
}

// coverage tells how far an answer about these types and this window can be
// trusted.
func (v *view) coverage(types []*event.Type, w query.Window) (query.Coverage, error) {
	c := query.Coverage{Until: v.now, Gaps: []query.Gap{}, Lost: map[string]int64{}, Filtered: map[string]map[string]int64{}}
	runs, err := v.runs()
	if err != nil {
		return c, err
	}
	if c.Oldest, err = v.oldest(types, runs); err != nil {
		return c, err
	}
	if !w.Until.IsZero() && w.Until.Before(v.now) {
		c.Until = w.Until.UTC()
	}
	switch {
	case !w.Since.IsZero():
		c.From = w.Since.UTC()
	case !c.Oldest.IsZero():
		c.From = c.Oldest
	default:
		c.From = c.Until
	}
	since, until := query.Window{Since: c.From, Until: c.Until}.Bounds()
	asked := span{since, max(since, until)}
	perType := make([][]gap, len(types))
	for i, t := range types {
		missing, err := v.missing(t.Name)
		if err != nil {
			return c, err
		}
		perType[i] = gapsOf(runs, v.present, t.Name, missing)
		lost, err := v.lost(t.Name, asked)
		if err != nil {
			return c, err
		}
		if lost > 0 {
			c.Lost[t.Name] = lost
		}
		filtered, err := v.filtered(t.Name, asked)
		if err != nil {
			return c, err
		}
		if len(filtered) > 0 {
			c.Filtered[t.Name] = filtered
		}
	}
	c.Gaps = mergeGaps(types, perType, asked)
	addFuture(&c, w, v.now)
	c.Complete = isComplete(c)
	return c, nil
}

func isComplete(c query.Coverage) bool {
	return len(c.Gaps) == 0 && len(c.Lost) == 0 && !c.Oldest.IsZero()
}

// coverageOfOpen is that of an answer about what was open at a moment: what was
// carried over is not missing.
func (v *view) coverageOfOpen(t *event.Type, w query.Window, at int64) (query.Coverage, error) {
	c, err := v.coverage([]*event.Type{t}, w)
	if err != nil {
		return c, err
	}
	shown, err := v.visible(t.Name, span{at, at + 1})
	if err != nil || len(shown) == 0 { // of what lived and died with that time nothing is left
		return c, err
	}
	since := time.Unix(0, v.carriedSince(t.Name)).UTC()
	c.Gaps = slices.DeleteFunc(c.Gaps, func(g query.Gap) bool { return g.Reason == query.GapRetention && !g.From.Before(since) })
	for i, g := range c.Gaps {
		if g.Reason == query.GapRetention && g.Until.After(since) {
			c.Gaps[i].Until = since
		}
	}
	c.Complete = isComplete(c)
	return c, nil
}

// addFuture adds the part of the window that is still to come.
func addFuture(c *query.Coverage, w query.Window, now time.Time) {
	if !w.Until.After(now) && !c.From.After(now) {
		return
	}
	from := now
	if c.From.After(now) {
		from = c.From
	}
	if c.Until = w.Until.UTC(); w.Until.IsZero() {
		c.Until = from
	}
	c.Gaps = append(c.Gaps, query.Gap{From: from, Until: c.Until, Reason: query.GapNotYet})
}

// runs returns all runs, oldest first.
func (v *view) runs() (runs []*run, err error) {
	err = forEachRun(v.tx, func(key []byte, r *run) error {
		if v.present != nil && bytes.Equal(key, v.presentKey) {
			r = v.present // what is in memory is newer
		}
		runs = append(runs, r)
		return nil
	})
	return runs, err
}

// oldest returns the time of the oldest event or recording that there is of
// the types, zero if there is none.
func (v *view) oldest(types []*event.Type, runs []*run) (time.Time, error) {
	oldest := int64(math.MaxInt64)
	for _, t := range types {
		ofType, err := v.oldestEvent(t.Name)
		if err != nil {
			return time.Time{}, err
		}
		for _, r := range runs {
			for _, recorded := range r.Recorded {
				if recorded.Type == t.Name {
					first, err := v.firstVisible(t.Name, recorded.Since.UnixNano())
					if err != nil {
						return time.Time{}, err
					}
					ofType = min(ofType, first)
				}
			}
		}
		oldest = min(oldest, ofType)
	}
	if oldest == math.MaxInt64 {
		return time.Time{}, nil
	}
	return time.Unix(0, oldest).UTC(), nil
}

// lost adds up what was lost of a type, in file and memory.
func (v *view) lost(typeName string, in span) (int64, error) {
	sum, err := lossesIn(v.tx, typeName, in)
	for _, p := range v.parts {
		from, until := lossSpan(p, v.now)
		if from >= in.until || until < in.from {
			continue
		}
		for key, n := range p.lost {
			if key.typeName == typeName {
				sum += n
			}
		}
	}
	return sum, err
}

// missing returns what was recorded of a type and cannot be shown, in order.
func (v *view) missing(typeName string) (missing []gap, err error) {
	visible, err := v.visible(typeName, allTime)
	at := allTime.from
	for _, s := range append(visible, span{allTime.until, allTime.until}) {
		if at < s.from && len(visible) > 0 {
			missing = append(missing, gap{span{at, s.from}, query.GapRetention})
		}
		at = s.until
	}
	v.s.damaged.Range(func(id, of any) bool {
		if id.(blockID).typeName == typeName {
			missing = append(missing, gap{of.(span), query.GapDamaged})
		}
		return true
	})
	slices.SortFunc(missing, func(a, b gap) int { return cmp.Compare(a.from, b.from) })
	return missing, err
}

// gapsOf returns the gaps of a type over all time, in order, with what is
// missing where it was recorded.
func gapsOf(runs []*run, present *run, typeName string, missing []gap) []gap {
	var gaps []gap
	add := func(from, until int64, reason string) {
		if n := len(gaps); n > 0 {
			from = max(from, gaps[n-1].until) // a clock set back makes runs overlap
		}
		if from < until {
			gaps = append(gaps, gap{span{from, until}, reason})
		}
	}
	at, reason := int64(math.MinInt64), query.GapNotRunning
	for _, r := range runs {
		end := r.end(r == present)
		add(at, r.Start.UnixNano(), reason)
		at = r.Start.UnixNano()
		for _, recorded := range r.Recorded {
			if recorded.Type != typeName {
				continue
			}
			from, until := recorded.Since.UnixNano(), end
			if !recorded.Until.IsZero() {
				until = recorded.Until.UnixNano()
			}
			add(at, from, query.GapDisabled)
			for _, m := range missing {
				add(max(from, m.from), min(until, m.until), m.reason)
			}
			at = until
		}
		add(at, end, query.GapDisabled)
		at, reason = end, r.gapAfter()
	}
	add(at, math.MaxInt64, reason)
	return gaps
}

// end returns the time up to which a run is known to have recorded.
func (r *run) end(present bool) int64 {
	switch {
	case present:
		return math.MaxInt64
	case r.End.IsZero():
		return r.Alive.UnixNano()
	}
	return r.End.UnixNano()
}

// gapAfter says why nothing was recorded after a run. One without an end is
// the last in a copy, which says nothing about what came after it.
func (r *run) gapAfter() string {
	if r.Clean || r.End.IsZero() {
		return query.GapNotRunning
	}
	return query.GapCrashed
}

// mergeGaps cuts gaps to what is asked and joins those that all types share.
func mergeGaps(types []*event.Type, perType [][]gap, asked span) []query.Gap {
	edges := []int64{asked.from, asked.until}
	for _, gaps := range perType {
		for _, g := range gaps {
			edges = append(edges, g.from, g.until)
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)

	merged := gapList{list: []query.Gap{}, open: make(map[openGap]int)}
	next := make([]int, len(types)) // the first gap of each type that is not over
	reasons := make([]string, len(types))
	for i, from := range edges {
		if from < asked.from || from >= asked.until {
			continue
		}
		for t, gaps := range perType {
			for next[t] < len(gaps) && gaps[next[t]].until <= from {
				next[t]++
			}
			reasons[t] = ""
			if next[t] < len(gaps) && gaps[next[t]].from <= from {
				reasons[t] = gaps[next[t]].reason
			}
		}
		piece := span{from, edges[i+1]}
		if len(slices.Compact(slices.Clone(reasons))) == 1 {
			merged.add(piece, "", reasons[0])
			continue
		}
		for t, reason := range reasons {
			merged.add(piece, types[t].Name, reason)
		}
	}
	return merged.list
}

// gapList joins gaps that touch.
type gapList struct {
	list []query.Gap
	open map[openGap]int // position in list
}

// openGap is what a gap ends with: the same thing beginning there continues it.
type openGap struct {
	until            int64
	typeName, reason string
}

func (l *gapList) add(s span, typeName, reason string) {
	if reason == "" {
		return
	}
	until := time.Unix(0, s.until).UTC()
	i, ok := l.open[openGap{s.from, typeName, reason}]
	if ok {
		l.list[i].Until = until
	} else {
		i = len(l.list)
		l.list = append(l.list, query.Gap{From: time.Unix(0, s.from).UTC(), Until: until, Type: typeName, Reason: reason})
	}
	l.open[openGap{s.until, typeName, reason}] = i
}
