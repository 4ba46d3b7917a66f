package store

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/query"
)

// A call of these tests begins every ten seconds. One of fifty lasts for ever, the
// others half a minute.
const callInterval = 10 * time.Second

func callAt(n int64) time.Time { return begin.Add(time.Duration(n) * callInterval) }

func isLong(n int64) bool { return n%50 == 0 }

// carryUntilKilled goes through an hour after the other, of which two are kept.
func carryUntilKilled(path string, _ int64) error {
	c := newClock()
	s, err := Open(Options{
		Path: path, Types: lifeTypes, FlushInterval: time.Hour, now: c.now, sealAfter: time.Millisecond,
		Limits: Limits{MaxAge: map[string]time.Duration{"call": 2 * time.Hour}},
	})
	if err != nil {
		return err
	}
	if err := s.beginRun(Run{BootID: "boot", Types: []string{"call"}}); err != nil {
		return err
	}
	for n := int64(0); ; {
		for range 6 {
			var some []call
			for range 60 {
				some = append(some, call{at: callAt(n), id: n, state: "begun"})
				if ended := n - 3; ended >= 0 && !isLong(ended) {
					some = append(some, call{at: callAt(n), id: ended, state: "over"})
				}
				n++
			}
			c.set(callAt(n))
			s.Append(calls(callType, some...))
			if err := within(flushing, s.Flush); err != nil {
				return err
			}
			acknowledge("call", n)
		}
		if err := within(removing, s.retain); err != nil {
			return err
		}
	}
}

// Who is killed while hours are removed has carried over what is open, and once.
func TestKilledProcessKeepsWhatIsOpen(t *testing.T) {
	k := newKiller(t)
	for i := range kills(t, 4) {
		path, c := testPath(t), newClock()
		at := moment{removing, 10 + rand.IntN(60)}
		if i%4 == 3 {
			at.phase = flushing
		}
		v := k.run("carry", path, 0, at, nil)
		c.set(begin.Add(10_000 * time.Hour))
		s := openTest(t, Options{Path: path, Types: lifeTypes, now: c.now, ReadOnly: true})
		if err := s.Check(nil); err != nil {
			t.Fatal(err)
		}
		acknowledged := v.acknowledged["call"]
		moment := callAt(acknowledged).Add(-1)
		var want []int64
		for n := range acknowledged {
			if isLong(n) || n >= acknowledged-3 {
				want = append(want, n)
			}
		}
		pids, _, answer := openAt(t, s, query.At{Time: moment, Ascending: true})
		if !slices.Equal(pids, want) || !answer.Coverage.Complete {
			t.Fatalf("of %d calls these are open: %v, want %v; %+v", acknowledged, pids, want, answer)
		}
		t.Logf("%d calls, %d open, killed in hour %d", acknowledged, len(want), hourOf(moment.UnixNano())-hourOf(begin.UnixNano()))
	}
	k.report(removing)
}
