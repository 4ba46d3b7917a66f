package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

// recorded returns how many events of connections the file has, and how many bytes
// are carried over.
func (s *server) recorded() (events, carried int64) {
	s.t.Helper()
	var storage struct {
		Types []struct {
			Name   string
			Events int64
			Bytes  struct{ Carried int64 }
		}
	}
	s.get("/api/storage", nil, &storage)
	for _, t := range storage.Types {
		if t.Name == "connection" {
			events, carried = t.Events, t.Bytes.Carried
		}
	}
	return events, carried
}

// waitForRetention waits until nothing of a namespace is shown, and all events are
// removed or carried over.
func (s *server) waitForRetention(ns *bpftest.NetNS, carries bool) {
	s.t.Helper()
	eventually(s.t, func() error {
		if got := s.events(in(ns)); got.Count > 0 {
			return fmt.Errorf("%d events are shown", got.Count)
		}
		if events, carried := s.recorded(); events > 0 || carried > 0 != carries {
			return fmt.Errorf("%d events are in the file, %d bytes carried over", events, carried)
		}
		return nil
	})
}

// What listens and what is connected for longer than events are kept is told of all
// the same, with its age, also after a restart, and until it ends.
func TestOpenForLongerThanEventsAreKept(t *testing.T) {
	config := filepath.Join(t.TempDir(), "ebpf-server.yaml")
	// Nothing else of this host comes to the hour, which goes when its last event is too old.
	const text = "storage: {flush_interval: 200ms}\nretention: {max_age: 2s}\nprograms: {connection: {include: [port=7191-7192]}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	db, binary := filepath.Join(t.TempDir(), "events.db"), filepath.Join(built, "ebpf-server")
	ns := bpftest.NewNetNS(t, "carried")
	before := listenIn(t, ns, "tcp4", "127.0.0.1:7191", false)

	s := start(t, binary, db, "--config", config)
	began := time.Now()
	listener := listenIn(t, ns, "tcp4", "127.0.0.1:7192", false)
	var client, served net.Conn
	ns.Do(t, func() {
		var err error
		if client, err = net.Dial("tcp4", "127.0.0.1:7192"); err != nil {
			t.Fatal(err)
		}
		if served, err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { client.Close(); served.Close() })

	var id string
	check := func(s *server) {
		t.Helper()
		s.waitForRetention(ns, true)
		got := s.checkListening(ns)
		again, age := got.listener(t, 7192)
		if id == "" {
			id = again
		}
		if again != id || age == nil || time.Duration(*age) < 2*time.Second || time.Duration(*age) > time.Since(began) || !got.Coverage.Complete {
			t.Errorf("%s listens for %v, want %s for more than 2s; coverage %+v", again, age, id, got.Coverage)
		}
		if _, age := got.listener(t, 7191); age != nil {
			t.Error("the age of what was there before is known")
		}
		if open := s.openAt(ns, time.Time{}); open.Total != 2 || open.Events[0].AgeNS == nil {
			t.Errorf("connected: %+v", open)
		}
		var life story
		s.get("/api/connections/"+id, nil, &life)
		if len(life.Events) == 0 || life.Events[0].State != "listening" || life.Events[0].Time.Before(began) || time.Since(life.Events[0].Time) < time.Duration(*age) {
			t.Errorf("its story: %+v", life)
		}
	}
	check(s)
	table := bpftest.Run(t, binary, "connections", "--server", s.url, "netns="+ns.Inode, "state=listening")
	if !strings.Contains(table, "127.0.0.1:7191") || !strings.Contains(table, "127.0.0.1:7192") {
		t.Errorf("shown on the terminal:\n%s", table)
	}
	s.stop()
	s = start(t, binary, db, "--config", config)
	check(s)

	client.Close()
	served.Close()
	listener.Close()
	s.waitForRetention(ns, true)
	if got := s.checkListening(ns); got.Total != 1 || !got.Coverage.Complete {
		t.Errorf("listening: %+v", got)
	}
	before.Close()
	s.waitForRetention(ns, false)
	if got := s.checkListening(ns); got.Total != 0 || !got.Coverage.Complete {
		t.Errorf("listening: %+v", got)
	}
	s.stop()
	bpftest.Run(t, binary, "check", "--db", db)
}
