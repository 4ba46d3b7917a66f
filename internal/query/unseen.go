package query

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// Unseen are groups of which it is asked whether earlier events have them: those
// that no event had so far. Any number of goroutines may drop some, each with a
// Looker of its own.
type Unseen struct {
	query Summary
	list  *groupList
	seen  []atomic.Bool // by group
	left  atomic.Int64
}

// Unseen returns the groups of a summary with keys, but for those in which a
// column has no value. The aggregator cannot be used any more.
func (a *Aggregator) Unseen() *Unseen {
	l := a.lists[0]
	u := &Unseen{query: a.query, list: l, seen: make([]atomic.Bool, l.cells.len())}
	for g, n := range l.cells.count {
		k := l.key(g)
		if n == 0 || slices.Contains(k[:len(l.columns)], 0) {
			u.seen[g].Store(true)
		} else {
			u.left.Add(1)
		}
	}
	return u
}

// Left returns how many no event had so far.
func (u *Unseen) Left() int { return int(u.left.Load()) }

func (u *Unseen) drop(g uint32) {
	if !u.seen[g].Load() && !u.seen[g].Swap(true) {
		u.left.Add(-1)
	}
}

// History returns the question about the events before the window.
func (u *Unseen) History() Summary {
	q := Summary{Type: u.query.Type, Filters: u.query.Filters, GroupBy: u.query.GroupBy}
	q.Window.Until = u.query.Window.Since
	return q
}

// Exact returns a filter for each column that lets through the values of those
// that are left, for an index of values; none if they are more than some.
func (u *Unseen) Exact(most int) (all []Exact) {
	if u.Left() > most {
		return nil
	}
	for i, c := range u.list.columns {
		if c.networks != nil || c.Kind == event.KindID {
			continue
		}
		e := Exact{Name: c.Name}
		for g := range u.seen {
			if u.seen[g].Load() {
				continue
			}
			v := c.values[u.list.key(g)[i]]
			switch c.Kind {
			case event.KindInt:
				e.Numbers = append(e.Numbers, v.number)
			case event.KindString:
				e.Texts = append(e.Texts, v.text)
			case event.KindIP:
				ip, _ := netip.AddrFromSlice([]byte(v.text))
				e.Addresses = append(e.Addresses, ip)
			}
		}
		all = append(all, e)
	}
	return all
}

// Looker drops the groups that events have. It is for one goroutine.
type Looker struct {
	*Unseen
	codes [maxGroupBy][]uint32 // scratch: of each column, of the selected rows; 0 also for values that no group has
}

// Columns returns the columns of batches that Add reads.
func (u *Looker) Columns() []int {
	var columns []int
	for _, c := range u.list.columns {
		columns = append(columns, c.column)
	}
	return columns
}

// Add drops the groups of the selected rows of a batch.
func (u *Looker) Add(b *event.Batch, sel []int32) error {
	u.eachGroup(b, sel, func(_ int, g uint32) { u.drop(g) })
	return nil
}

// Keep returns the rows of a selection whose groups are left, in its memory.
func (u *Looker) Keep(b *event.Batch, sel []int32) []int32 {
	kept := sel[:0]
	u.eachGroup(b, sel, func(i int, g uint32) {
		if !u.seen[g].Load() {
			kept = append(kept, sel[i])
		}
	})
	return kept
}

// eachGroup finds the group of each selected row that is of one.
func (u *Looker) eachGroup(b *event.Batch, sel []int32, do func(i int, g uint32)) {
	for k, c := range u.list.columns {
		u.codes[k] = c.codesOf(&b.Columns[c.column], sel, u.codes[k][:0], c.known)
	}
	if len(u.list.columns) == 1 {
		for i, code := range u.codes[0] {
			if code != 0 && int(code) < len(u.seen) {
				do(i, code)
			}
		}
		return
	}
	for i := range sel {
		var k groupKey
		for column := range u.list.columns {
			k[column] = u.codes[column][i]
		}
		if g := u.list.groups.find(k.packed()); g != 0 {
			do(i, uint32(g-1))
		}
	}
}

// AddRollup drops the groups that a rollup has. The sections are those that the
// question History names; it must be one that rollups can answer.
func (u *Looker) AddRollup(_ time.Time, sections [][]byte) error {
	q := u.History()
	keep := func(value, bool) bool { return true }
	if m := q.Filters.Compile(q.Type); m.Nothing() {
		return nil
	} else if len(m.columns) > 0 {
		keep = m.value
	}
	var s section
	if err := newAggregator(Summary{Type: q.Type}).openSection(&s, q.Sections()[1], sections[1]); err != nil {
		return err
	}
	c := u.list.columns[0]
	s.eachValue(func(text []byte, number int64) {
		if code, known := c.find(text, number); known && int(code) < len(u.seen) && keep(value{string(text), number}, true) {
			u.drop(code)
		}
	})
	if s.bad {
		return errSection
	}
	return nil
}

// FirstSeen returns the answer, without its coverage, of which a tells what is
// there of all events, and news, which has seen no others, of the groups.
func (a *Aggregator) FirstSeen(news *Aggregator) *SummaryResult {
	r := a.totals()
	a.addSeries(r)
	news.setNames()
	r.Groups, r.GroupsTotal = news.top(news.lists[0], false)
	return r
}
