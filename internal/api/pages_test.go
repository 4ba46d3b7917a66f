package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store"
)

// pagedEvents is how many events TestPagesWhileEventsComeIn goes through.
func pagedEvents(t *testing.T) int64 {
	text := os.Getenv("EBPF_SERVER_TEST_EVENTS") // a million take 40 s
	if text == "" {
		return 100_000
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("EBPF_SERVER_TEST_EVENTS: %q is no number of events", text)
	}
	return n
}

const (
	pagedHours = 6
	lateEvents = 1 << 40 // their pids begin here
)

// addPaged appends an event of either type; many share a time.
func addPaged(batches map[*event.Type]*event.Batch, at time.Time, pid int64) {
	typ := testTypes[pid/3%2]
	if batches[typ] == nil {
		batches[typ] = event.NewBatch(typ, 0)
	}
	batches[typ].Append(at.UnixNano())
	batches[typ].SetInt(event.PID, pid)
	batches[typ].SetString(event.Command, "curl")
}

func openPaged(t *testing.T, path string) *store.Store {
	t.Helper()
	st, err := store.Open(store.Options{Path: path, FlushInterval: time.Hour, Types: testTypes})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// disturb adds events anywhere in the window, writes and seals until the context
// ends. It returns how many it added.
func disturb(ctx context.Context, t *testing.T, st *store.Store, next int64) int64 {
	r := rand.New(rand.NewPCG(1, uint64(next)))
	for round := 1; ctx.Err() == nil; round++ {
		batches := map[*event.Type]*event.Batch{}
		for range 20 {
			addPaged(batches, start.Add(time.Duration(r.Int64N(int64(pagedHours*time.Hour/time.Second)))*time.Second), next)
			next++
		}
		for _, b := range batches {
			st.Append(b)
		}
		var err error
		switch {
		case round%20 == 0:
			err = st.Seal(context.Background(), true, nil)
		case round%4 == 0:
			err = st.Flush()
		}
		if err != nil {
			t.Error(err)
			return next
		}
		time.Sleep(5 * time.Millisecond)
	}
	return next
}

// reader goes through pages and notes what they hold.
type reader struct {
	t     *testing.T
	order string
	seen  map[int64]bool
	last  time.Time
	pages int
}

func (r *reader) read(p page, back bool) {
	r.t.Helper()
	r.pages++
	ascending := r.order == "asc"
	for i := range p.Events {
		e := p.Events[i]
		if back { // from the end
			e = p.Events[len(p.Events)-1-i]
		}
		if r.seen[e.PID] {
			r.t.Fatalf("event %d comes twice", e.PID)
		}
		r.seen[e.PID] = true
		if d := e.Time.Sub(r.last); !r.last.IsZero() && d != 0 && (d > 0) != (ascending != back) {
			r.t.Fatalf("page %d: %v comes after %v", r.pages, e.Time, r.last)
		}
		r.last = e.Time
	}
}

func (r *reader) check(n int64) {
	r.t.Helper()
	for pid := range n {
		if !r.seen[pid] {
			r.t.Fatalf("event %d of %d is missing", pid, n)
		}
	}
}

// Every event comes once over all pages, forth and back, while others come in
// everywhere, are written and sealed, and while the program is started again.
func TestPagesWhileEventsComeIn(t *testing.T) {
	n := pagedEvents(t)
	for _, order := range []string{"desc", "asc"} {
		t.Run(order, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events.db")
			st := openPaged(t, path)
			batches := map[*event.Type]*event.Batch{}
			for pid := range n {
				addPaged(batches, start.Add(time.Duration(pid*pagedHours*3600/n)*time.Second), pid)
				if (pid+1)%50_000 == 0 || pid == n-1 {
					for _, b := range batches {
						if err := st.AppendWait(t.Context(), b); err != nil {
							t.Fatal(err)
						}
					}
					clear(batches)
				}
			}
			limit := min(10_000, n/100)
			question := fmt.Sprintf("/api/events?fields=pid,time&limit=%d&order=%s", limit, order)
			next := int64(lateEvents)
			// visit goes through some pages while it is disturbed, and returns the cursor of the next.
			visit := func(cursor string, pages int, do func(p page) string) string {
				base := serve(t, func(o *Options) { o.Store = st })
				ctx, stop := context.WithCancel(t.Context())
				var disturbing sync.WaitGroup
				disturbing.Go(func() { next = disturb(ctx, t, st, next) })
				defer disturbing.Wait()
				defer stop()
				for more := true; more && pages > 0; pages-- {
					url := base + question
					if cursor != "" {
						url += "&cursor=" + cursor
					}
					cursor = do(getPage(t, url))
					more = cursor != ""
				}
				return cursor
			}
			restart := func() {
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
				st = openPaged(t, path)
			}

			forth := reader{t: t, order: order, seen: map[int64]bool{}}
			lastPrev := ""
			goForth := func(p page) string {
				forth.read(p, false)
				if p.PrevCursor != "" {
					lastPrev = p.PrevCursor
				}
				return p.NextCursor
			}
			cursor := visit("", 10, goForth)
			restart()
			visit(cursor, 1<<30, goForth)
			forth.check(n)

			// From the last page that has a page before it, back to the first one. The
			// events of that page are not seen again.
			back := reader{t: t, order: order, seen: map[int64]bool{}}
			goBack := func(p page) string {
				back.read(p, true)
				return p.PrevCursor
			}
			cursor = visit(lastPrev, 10, goBack)
			restart()
			visit(cursor, 1<<30, goBack)
			missing := int64(0)
			for pid := range n {
				if !back.seen[pid] {
					missing++
				}
			}
			if missing > limit {
				t.Errorf("going back, %d events were not seen; the last page had at most %d", missing, limit)
			}
			t.Logf("%d events, and %d that came meanwhile: %d pages forth, %d back", n, next-lateEvents, forth.pages, back.pages)
			if err := st.Check(nil); err != nil {
				t.Error(err)
			}
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What prev_cursor leads to is the page before, and its next_cursor leads here.
func TestPrevCursor(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	for _, order := range []string{"desc", "asc"} {
		question := base + "/api/events?limit=4&order=" + order
		var pages []page
		for cursor := ""; cursor != "" || len(pages) == 0; {
			url := question
			if cursor != "" {
				url += "&cursor=" + cursor
			}
			p := getPage(t, url)
			pages = append(pages, p)
			cursor = p.NextCursor
		}
		if len(pages) != 4 || pages[0].PrevCursor != "" {
			t.Fatalf("%d pages, the first with the page %q before it", len(pages), pages[0].PrevCursor)
		}
		for i := len(pages) - 1; i > 0; i-- {
			before := getPage(t, question+"&cursor="+pages[i].PrevCursor)
			if fmt.Sprint(before.Events) != fmt.Sprint(pages[i-1].Events) {
				t.Errorf("before page %d are %v, want %v", i, before.Events, pages[i-1].Events)
			}
			if (before.PrevCursor == "") != (i == 1) {
				t.Errorf("page %d has the page %q before it", i-1, before.PrevCursor)
			}
			if again := getPage(t, question+"&cursor="+before.NextCursor); fmt.Sprint(again.Events) != fmt.Sprint(pages[i].Events) {
				t.Errorf("after page %d are %v, want %v", i-1, again.Events, pages[i].Events)
			}
		}
		for _, refused := range []string{"format=ndjson&limit=0&order=" + order, "limit=4&order=" + map[string]string{"asc": "desc", "desc": "asc"}[order]} {
			scenario{url: "/api/events?" + refused + "&cursor=" + pages[1].PrevCursor, status: 400, contains: []string{`"field":"`}}.run(t, base)
		}
	}
}
