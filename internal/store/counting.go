package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// counter takes what a counting finds: an aggregator, or what only looks whether
// there are events of some kinds.
type counter interface {
	Columns() []int // that Add reads
	Add(b *event.Batch, sel []int32) error
	AddRollup(begin time.Time, sections [][]byte) error
}

// counting feeds counters, one for each goroutine.
type counting struct {
	ctx      context.Context
	query    query.Summary
	matcher  query.Matcher
	wanted   wanted
	rollups  bool          // the question can be answered from rollups
	sections []string      // of rollups, that hold the answer
	backward bool          // the newest days come first
	more     func() bool   // false ends it before all is counted; nil: never
	narrow   func() wanted // says before each view what else indexes are asked for; nil: nothing
	counter  func() (counter, error)
	workers  []*worker
	long     []func(w *worker) error // tasks of a view that begin before the others
	tasks    []func(w *worker) error
	work     int // in all of them

	mu      sync.Mutex // for what tasks leave
	damaged []span     // of rollups that cannot be read
}

// worker is what a goroutine counts with.
type worker struct {
	counter counter
	*workerMemory
}

// workerMemory is what workers use again, also for the next question.
type workerMemory struct {
	sel      []int32
	events   block.Memory
	sections sections
	opened   chunk
}

// workerMemories are for all stores. What nobody asks for long the garbage collector takes.
var workerMemories = sync.Pool{New: func() any { return &workerMemory{opened: chunk{reuse: true}} }}

// viewWork is how much work ends a view. Events move between rows, blocks and
// rollups only within a day, so that each day can have a view of its own; and one
// over a long window would keep the space of what is removed meanwhile from
// being used again. But each takes its time to begin: the hours of a month's rollups are two.
const (
	viewWork   = 512
	rowsWork   = 8 // of a block, a chunk or a batch
	rollupWork = 1
)

func newCounting(ctx context.Context, q query.Summary, with func() (counter, error)) *counting {
	return &counting{
		ctx: ctx, query: q, matcher: q.Filters.Compile(q.Type), wanted: wantedOf(q.Filters, q.Type),
		rollups: q.FromRollups(), sections: q.Sections(), counter: with,
	}
}

// worker makes sure that there is one with that number.
func (c *counting) worker(i int) error {
	for len(c.workers) <= i {
		with, err := c.counter()
		if err != nil {
			return err
		}
		c.workers = append(c.workers, &worker{with, workerMemories.Get().(*workerMemory)})
	}
	return nil
}

// forgetWorkers is for when all is counted.
func (c *counting) forgetWorkers() {
	for _, w := range c.workers {
		workerMemories.Put(w.workerMemory)
	}
	c.workers = nil
}

// all counts all days of the window. There is one counter at least.
func (c *counting) all(s *Store) error {
	defer c.forgetWorkers()
	if err := c.worker(0); err != nil {
		return err
	}
	var days []int64
	err := s.view(func(v *view) (err error) {
		since, until := c.query.Window.Bounds()
		days, err = v.days(c.query.Type, span{since, until})
		return err
	})
	if c.backward {
		slices.Reverse(days)
	}
	filters := c.wanted
	for err == nil && len(days) > 0 && (c.more == nil || c.more()) {
		if c.narrow != nil {
			c.wanted = slices.Concat(filters, c.narrow())
		}
		at := c.reached(days[0])
		err = s.view(func(v *view) (err error) {
			days, err = c.some(v, days)
			return err
		})
		if stopped := c.ctx.Err(); stopped != nil && errors.Is(err, stopped) {
			return &query.Unfinished{At: at, Err: stopped}
		}
	}
	return err
}

// reached is how far the counting has come when a day is the next.
func (c *counting) reached(day int64) time.Time {
	since, until := c.query.Window.Bounds()
	whole := segment{day, hoursOfDay}.span()
	if c.backward {
		return time.Unix(0, min(until, whole.until))
	}
	return time.Unix(0, max(since, whole.from))
}

// some counts the first of some days, and returns those that are left.
func (c *counting) some(v *view, days []int64) (left []int64, err error) {
	if c.matcher.Nothing() {
		return nil, nil
	}
	first := days
	for ; len(days) > 0 && c.work < viewWork; days = days[1:] {
		if err := c.day(v, days[0]); err != nil {
			return nil, err
		}
	}
	if err := c.run(); err != nil {
		return nil, err
	}
	for _, day := range first[:len(first)-len(days)] {
		whole := segment{day, hoursOfDay}.span()
		for _, in := range c.damaged {
			if in = (span{max(in.from, whole.from), min(in.until, whole.until)}); in.from < in.until {
				if err := c.addBlocks(v, day, in); err != nil {
					return nil, err
				}
			}
		}
	}
	c.damaged = c.damaged[:0]
	return days, c.run()
}

// day adds tasks for what the window has of a day.
func (c *counting) day(v *view, day int64) error {
	since, until := c.query.Window.Bounds()
	whole := segment{day, hoursOfDay}.span()
	parts, err := v.visible(c.query.Type.Name, span{max(since, whole.from), min(until, whole.until)})
	if err != nil {
		return err
	}
	for _, in := range parts {
		edges := []span{in}
		if c.rollups {
			wide, err := c.widen(v, day, in)
			if err != nil {
				return err
			}
			if edges, err = c.addRollups(v, day, wide); err != nil {
				return err
			}
		}
		for _, edge := range edges {
			if err := c.addBlocks(v, day, edge); err != nil {
				return err
			}
		}
		if err := c.addRows(v, in); err != nil {
			return err
		}
	}
	return nil
}

// widen returns a span with the parts of the day in which there are no events in
// blocks, so that a window from the first event on has no edge there.
func (c *counting) widen(v *view, day int64, in span) (span, error) {
	first, last := allTime.until, allTime.from
	segments, err := segmentsIn(v.tx, c.query.Type.Name, day, hoursOfDay)
	if err != nil {
		return in, err
	}
	for _, g := range segments {
		r, err := readSegmentRecord(v.tx.Bucket(bucketSegments).Bucket([]byte(c.query.Type.Name)).Get(g.key()))
		if err != nil {
			return in, err
		}
		first, last = min(first, r.min), max(last, r.max)
	}
	whole := segment{day, hoursOfDay}.span()
	if in.from <= first {
		in.from = whole.from
	}
	if in.until > last {
		in.until = whole.until
	}
	return in, nil
}

// addRollups adds tasks for the whole hours of a span, from rollups, and returns
// what is left to be looked for in blocks.
func (c *counting) addRollups(v *view, day int64, in span) (edges []span, err error) {
	t := c.query.Type
	hour := int64(time.Hour)
	first, until := -floor(-in.from, hour), floor(in.until, hour)
	if first >= until {
		return []span{in}, nil
	}
	for _, edge := range []span{{in.from, first * hour}, {until * hour, in.until}} {
		if edge.from < edge.until {
			edges = append(edges, edge)
		}
	}
	if first == day && until == day+hoursOfDay && c.query.Interval%(hoursOfDay*time.Hour) == 0 {
		if bucket := rollupBucket(v.tx, bucketDays, t.Name, day); bucket != nil && v.s.usable(bucket, t) {
			c.addRollup(v, bucket, segment{day, hoursOfDay})
			return edges, nil
		}
	}
	v.readAheadRollups(t.Name, day, first, until)
	err = forEachRollup(v.tx, bucketRollups, t.Name, span{first * hour, until * hour}, func(h int64, bucket *bbolt.Bucket) error {
		if v.s.usable(bucket, t) {
			c.addRollup(v, bucket, segment{h, 1})
		} else {
			edges = append(edges, segment{h, 1}.span())
		}
		return nil
	})
	return edges, err
}

func (c *counting) addRollup(v *view, bucket *bbolt.Bucket, of segment) {
	stored := readRollup(bucket, of.first, c.sections)
	c.work += rollupWork
	c.tasks = append(c.tasks, func(w *worker) error {
		err := v.s.codec.addRollup(w.counter, stored, &w.sections)
		if errors.Is(err, errDamagedRollup) {
			v.s.damageRollup(c.query.Type.Name, of, err)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.damaged, err = append(c.damaged, of.span()), nil
		}
		return err
	})
}

func floor(n, unit int64) int64 {
	q := n / unit
	if n%unit < 0 {
		q--
	}
	return q
}

func (c *counting) addBlocks(v *view, day int64, in span) error {
	return v.blocksOf(c.query.Type, day, in, c.wanted, func(b storedBlock) {
		c.long = append(c.long, func(w *worker) error { return c.block(v.s, w, b, in) })
		c.work += rowsWork
	})
}

// addRows is for what is not in blocks.
func (c *counting) addRows(v *view, in span) error {
	chunk := func(value []byte, failed func(error) error) {
		c.tasks = append(c.tasks, func(w *worker) error { return failed(c.chunk(v.s, w, value, in)) })
		c.work += rowsWork
	}
	return v.rowsIn(c.query.Type.Name, in, chunk, func(b *event.Batch) {
		c.tasks = append(c.tasks, func(w *worker) error {
			w.sel = c.matcher.Select(b, in.window(), w.sel[:0])
			return w.counter.Add(b, w.sel)
		})
		c.work += rowsWork
	})
}
