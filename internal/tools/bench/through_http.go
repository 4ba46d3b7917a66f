package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/api"
	"github.com/srodi/ebpf-server/internal/tools/bench/stream"
)

// Through are the figures of answering over HTTP: the same questions, to the API
// over the same store, by a client on the same machine that keeps its connection.
type Through struct {
	PeakMemory int64           `json:"peak_memory_bytes"` // of server and client, without that of Parquet
	Answers    []ThroughAnswer `json:"answers"`
	Different  []string        `json:"differences,omitempty"` // answers that the store itself does not give

	Parquet       time.Duration `json:"parquet_ns"` // the export as Parquet, median
	ParquetMemory int64         `json:"parquet_peak_memory_bytes"`
}

// ThroughAnswer is how long an answer took, from the request to its last byte.
// The client does not look at what it gets.
type ThroughAnswer struct {
	Warm time.Duration `json:"warm_ns"` // median; of an export, as NDJSON
	Cold time.Duration `json:"cold_ns"` // median; 0: not asked
}

// overHTTP is the API over a store.
type overHTTP struct {
	base   string
	client http.Client
	server *api.Server
	ended  chan error
	buffer []byte
}

// noMonitors run.
type noMonitors struct{}

func (noMonitors) Programs() []api.Program { return nil }

func serveStore(p *storePeer) (*overHTTP, error) {
	server, err := api.New(api.Options{
		Types: stream.Types(), Store: p.Store, Programs: noMonitors{}, Version: "bench", Started: time.Now(),
		Logger: slog.New(slog.DiscardHandler), QueryTimeout: 30 * time.Second, // as the program has it
	})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &overHTTP{base: "http://" + l.Addr().String(), server: server, ended: make(chan error, 1), buffer: make([]byte, 256<<10)}
	go func() { h.ended <- server.Serve(l) }()
	return h, nil
}

func (h *overHTTP) close() error {
	h.client.CloseIdleConnections()
	return errors.Join(h.server.Shutdown(context.Background()), <-h.ended)
}

// get hands an answer to w.
func (h *overHTTP) get(path string, w io.Writer) error {
	answer, err := h.client.Get(h.base + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s: %s: %s", path, answer.Status, text)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, answer.Body, h.buffer)
	return err
}

// path is a question as the API is asked.
func (q question) path() string {
	v := url.Values{}
	window, filters := q.summary.Window, q.summary.Filters
	if len(q.events.Types) > 0 {
		window, filters = q.events.Window, q.events.Filters
	}
	if !window.Since.IsZero() {
		v.Set("since", window.Since.Format(time.RFC3339Nano))
	}
	if !window.Until.IsZero() {
		v.Set("until", window.Until.Format(time.RFC3339Nano))
	}
	for _, f := range filters {
		v[f.Column] = f.Values
	}
	if len(q.events.Types) > 0 {
		for _, t := range q.events.Types {
			v.Add("type", t.Name)
		}
		v.Set("limit", strconv.Itoa(cmp.Or(q.events.Limit, mostEvents)))
		if q.export {
			v.Set("limit", "0")
			v.Set("order", "asc")
		}
		return "/api/events?" + v.Encode()
	}
	for _, column := range q.summary.GroupBy {
		v.Add("group_by", column)
	}
	if q.summary.Sums != nil {
		v.Set("sums", cmp.Or(strings.Join(q.summary.Sums, ","), "none"))
	}
	if q.summary.Top > 0 {
		v.Set("top", strconv.Itoa(q.summary.Top))
	}
	if q.summary.Interval > 0 {
		v.Set("interval", q.summary.Interval.String())
	}
	return "/api/" + q.summary.Type.Collection + "/summary?" + v.Encode()
}

// mostEvents is as many as one answer can have.
const mostEvents = 10_000

// askThrough asks everything that the store was asked, and compares the answers.
func askThrough(j job, all []question, direct []Answer) (t *Through, err error) {
	opened, err := openPeer(j.Peer, j.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	h, err := serveStore(opened.(*storePeer))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	t = &Through{}
	watched := watchMemory()
	for i, q := range all {
		a, difference, err := h.ask(q, &direct[i])
		if err != nil {
			return nil, fmt.Errorf("through HTTP: %s: %w", q.name, err)
		}
		t.Answers = append(t.Answers, a)
		if difference != "" {
			t.Different = append(t.Different, fmt.Sprintf("through HTTP: %s: %s", q.name, difference))
		}
	}
	t.PeakMemory = watched.end()
	watched = watchMemory()
	t.Parquet, err = h.often(all[len(all)-1].path() + "&format=parquet") // the last is the export
	t.ParquetMemory = watched.end()
	return t, err
}

// ask asks once for the answer, which it compares, and then for the time.
func (h *overHTTP) ask(q question, direct *Answer) (a ThroughAnswer, difference string, err error) {
	if q.export {
		a.Warm, difference, err = h.export(q, direct)
		return a, difference, err
	}
	var text bytes.Buffer
	if err := h.get(q.path(), &text); err != nil {
		return a, "", err
	}
	got, err := q.read(text.Bytes())
	if err != nil {
		return a, "", err
	}
	rows := Answer{Rows: got.text(), Events: direct.Events, Digest: direct.Digest, Values: direct.Values}
	a.Warm, err = h.often(q.path())
	return a, rows.differs(direct), err
}

// firstThrough asks a server that has just begun. Its client connects first, as a
// client has to.
func firstThrough(p peer, q question) (took time.Duration, err error) {
	h, err := serveStore(p.(*storePeer))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	err = h.get(q.path(), io.Discard)
	return time.Since(begin), errors.Join(err, h.close())
}

func (h *overHTTP) often(path string) (time.Duration, error) {
	var took []time.Duration
	for spent := time.Duration(0); len(took) < warmRuns && spent < warmBudget; spent += took[len(took)-1] {
		begin := time.Now()
		if err := h.get(path, io.Discard); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	return median(took), nil
}

// lines counts lines and keeps their digest.
type lines struct {
	events int64
	digest uint32
}

func (l *lines) Write(p []byte) (int, error) {
	l.events += int64(bytes.Count(p, []byte{'\n'}))
	l.digest = crc32.Update(l.digest, castagnoli, p)
	return len(p), nil
}

func (h *overHTTP) export(q question, direct *Answer) (took time.Duration, difference string, err error) {
	path, got := q.path()+"&format=ndjson", lines{}
	if err := h.get(path, &got); err != nil {
		return 0, "", err
	}
	a := Answer{Events: got.events, Digest: got.digest, Values: direct.Values}
	took, err = h.often(path)
	return took, a.differs(direct), err
}

// read takes from an answer what the question is compared by.
func (q question) read(text []byte) (a answer, err error) {
	var page struct{ Events []json.RawMessage }
	if len(q.events.Types) > 0 {
		err := json.Unmarshal(text, &page)
		for _, e := range page.Events {
			a.rows = append(a.rows, string(e))
		}
		return a, err
	}
	var summary struct {
		Series []struct {
			Time   time.Time
			Counts map[string]int64
		}
		Groups []map[string]any
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&summary); err != nil {
		return a, err
	}
	for _, bucket := range summary.Series {
		for value, n := range bucket.Counts {
			if n > 0 {
				a.figures = append(a.figures, figures{time: bucket.Time, key: value, count: n})
			}
		}
	}
	for _, g := range summary.Groups {
		f := figures{key: noValue, count: whole(g["count"])}
		if v := g[q.summary.GroupBy[0]]; v != nil {
			f.key = fmt.Sprint(v)
		}
		sums, _ := g["sums"].(map[string]any)
		for _, column := range q.sums {
			f.sums = append(f.sums, whole(sums[column]))
		}
		a.figures = append(a.figures, f)
	}
	return a, nil
}

func whole(v any) int64 {
	number, _ := v.(json.Number)
	n, _ := number.Int64()
	return n
}
