package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store/block"
)

// merge returns all sources that may have events, ready to be read in order.
func (r *search) merge(v *view, want int) (*merge, error) {
	m := &merge{search: r, view: v, want: want}
	for i, t := range r.types {
		if r.matchers[i].Nothing() {
			continue
		}
		parts, err := v.visible(t.Name, r.rest())
		if err != nil {
			return nil, err
		}
		if r.hidden {
			parts = []span{r.rest()}
		}
		for _, in := range parts {
			if err := m.addType(i, in); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m *merge) addType(typeIndex int, in span) error {
	t := m.search.types[typeIndex]
	err := forEachSegment(m.view.tx, t.Name, func(g segment, r segmentRecord) error {
		if in.overlaps(r.min, r.max) {
			src := &source{typeIndex: typeIndex, in: in}
			src.parts = func() error { return m.addBlocks(src, g) }
			m.add(src, r.min, r.max)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = forEachHour(m.view.tx, t.Name, func(hour int64, h hourRecord) error {
		if in.overlaps(h.min, h.max) {
			src := &source{typeIndex: typeIndex, in: in}
			src.parts = func() error { return m.addChunks(src, hour) }
			m.add(src, h.min, h.max)
		}
		return nil
	})
	if err != nil {
		return err
	}
	number := int64(0)
	m.view.batches(t.Name, func(b memoryBatch) {
		if number++; in.overlaps(b.min, b.max) {
			m.add(&source{
				typeIndex: typeIndex, in: in, order: order{inMemory, number},
				load: func() (contents, error) {
					return contents{batch: m.search.shown(typeIndex, b.Batch), rows: m.search.selected(typeIndex, b.Batch, in)}, nil
				},
			}, b.min, b.max)
		}
	})
	return nil
}

func (m *merge) addBlocks(of *source, g segment) error {
	t := m.search.types[of.typeIndex]
	if len(m.search.matchers[of.typeIndex].Filters()) > 0 && !m.view.s.wasReadAhead(t.Name, g.first) { // others will follow
		day := segment{dayOf(g.first), hoursOfDay}.span()
		m.view.readAheadBlocks(t.Name, span{max(day.from, of.in.from), min(day.until, of.in.until)})
	}
	return m.view.blocks(t, g, of.in, m.search.wanted[of.typeIndex], func(b storedBlock) error {
		m.view.fetch(&b)
		m.add(&source{
			typeIndex: of.typeIndex, in: of.in, order: order{inBlock, b.number}, block: true,
			load: func() (contents, error) { return m.loadBlock(b, of.typeIndex, of.in) },
		}, b.min, b.max)
		return nil
	})
}

func (m *merge) addChunks(of *source, hour int64) error {
	t := m.search.types[of.typeIndex]
	return m.view.chunks(t.Name, hour, of.in, func(sequence int64, h chunkHeader, value []byte) error {
		m.add(&source{
			typeIndex: of.typeIndex, in: of.in, order: order{inChunk, sequence},
			load: func() (contents, error) {
				c, err := m.loadChunk(value, of.typeIndex, of.in)
				if err != nil {
					err = fmt.Errorf("%s of hour %s: chunk %d: %w", t.Name, hourStart(hour).Format(time.RFC3339), sequence, err)
				}
				return c, err
			},
		}, h.min, h.max)
		return nil
	})
}

func (m *merge) loadBlock(b storedBlock, typeIndex int, in span) (contents, error) {
	search := m.search
	if whole, ok := search.whole[b.blockID]; ok {
		return contents{batch: whole, rows: search.selected(typeIndex, whole, in), id: &b.blockID}, nil
	}
	t, matcher := search.types[typeIndex], search.matchers[typeIndex]
	var whole *event.Batch
	var rows []int32
	read := m.view.s.readBlock
	if search.once {
		read = m.view.s.readOnce
	}
	err := read(b, t, func(opened *block.Block) (err error) {
		if len(matcher.Filters()) == 0 && m.want >= opened.Rows()/2 { // most of it will be read
			whole, err = opened.Read(search.columns[typeIndex])
		} else {
			rows, err = findRows(nil, opened, b, in, filtersOf(matcher))
		}
		return err
	})
	if err != nil {
		return contents{}, err
	}
	if whole != nil {
		whole = search.shown(typeIndex, whole)
		return contents{batch: whole, rows: search.selected(typeIndex, whole, in), id: &b.blockID}, nil
	}
	if !search.ascending {
		slices.Reverse(rows)
	}
	return contents{rest: rows, build: func(rows []int32) (some *event.Batch, err error) {
		err = read(b, t, func(opened *block.Block) (err error) {
			some, err = opened.ReadRows(search.columns[typeIndex], rows)
			return err
		})
		if err != nil {
			return nil, err
		}
		return search.shown(typeIndex, some), nil
	}}, nil
}

// findRows finds the events of a block in a time span that filters let through, in
// the memory of into if it is large enough.
func findRows(into []int32, opened *block.Block, b storedBlock, in span, filters []block.Filter) ([]int32, error) {
	first, end := 0, opened.Rows()
	if b.min < in.from || b.max >= in.until {
		var err error
		if first, end, err = opened.Between(in.from, in.until); err != nil {
			return nil, err
		}
	}
	return opened.Find(into, first, end, filters)
}

func filtersOf(m query.Matcher) []block.Filter {
	var filters []block.Filter
	for _, c := range m.Filters() {
		filters = append(filters, c)
	}
	return filters
}

// loadChunk decodes the other columns when the first row is built. Only rows
// that match stay in memory: what is found in many chunks must not keep all of them.
// A chunk in which none does leaves its memory to the next.
func (m *merge) loadChunk(value []byte, typeIndex int, in span) (contents, error) {
	t, k := m.search.types[typeIndex], m.search.chunk
	if k == nil {
		k = &chunk{reuse: true}
	}
	m.search.chunk = nil
	if err := m.view.s.codec.openInto(k, value, m.view.s.schemas); err != nil {
		return contents{}, err
	}
	batch, err := k.batch(t, m.search.matchers[typeIndex].Columns())
	if err != nil {
		return contents{}, err
	}
	rows := m.search.selected(typeIndex, batch, in)
	if len(rows) == 0 {
		m.search.chunk = k
		return contents{}, nil
	}
	build := func(rows []int32) (*event.Batch, error) {
		if err := k.fill(batch, m.search.columns[typeIndex]); err != nil {
			return nil, err
		}
		some := event.NewBatch(t, len(rows))
		some.AppendRows(m.search.shown(typeIndex, batch), rows)
		return some, nil
	}
	return contents{rest: rows, build: build}, nil
}

// selected returns the rows of a batch that match, in the order of the search.
func (r *search) selected(typeIndex int, b *event.Batch, in span) []int32 {
	rows := r.matchers[typeIndex].Select(b, in.window(), make([]int32, 0, 64))
	times := b.Columns[event.Time].Ints
	byTime := func(x, y int32) int { return cmp.Compare(times[x], times[y]) }
	if !slices.IsSortedFunc(rows, byTime) {
		slices.SortStableFunc(rows, byTime)
	}
	if !r.ascending {
		slices.Reverse(rows)
	}
	return rows
}

// keepWhole keeps the blocks that were read as a whole and are not through: the
// next step goes on with them.
func (r *search) keepWhole(m *merge) {
	r.whole = make(map[blockID]*event.Batch)
	for _, src := range m.sources {
		if src.isOpen() && src.id != nil {
			r.whole[*src.id] = src.batch
		}
	}
}
