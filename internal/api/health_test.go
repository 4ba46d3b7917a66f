package api

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

// unwritable is a store whose last flush failed.
type unwritable struct{ *store.Store }

func (u unwritable) Status() query.Status {
	status := u.Store.Status()
	status.LastError = "no space left on device"
	return status
}

func TestHealth(t *testing.T) {
	st := openStore(t)
	states := func(first, second string) monitors {
		m := running()
		m[0].State, m[1].State = first, second
		m[1].Error = "attach hook: permission denied"
		return m
	}
	for name, test := range map[string]struct {
		store    Store
		programs monitors
		want     scenario
	}{
		"ok": {st, running(), scenario{status: 200, contains: []string{
			`"status":"ok"`, `"version":"1.2.3"`, `"uptime_s":6`, `"lost":{"connection":7}`, `{"name":"connection","state":"running"}`, `"file_bytes":`, `"pending":0`,
		}, lacks: []string{"last_error"}}},
		"one failed":       {st, states(StateRunning, StateFailed), scenario{status: 200, contains: []string{`"status":"degraded"`, `"error":"attach hook: permission denied"`}}},
		"one switched off": {st, states(StateRunning, StateDisabled), scenario{status: 200, contains: []string{`"status":"ok"`}}},
		"all failed":       {st, states(StateFailed, StateFailed), scenario{status: 503, contentType: "application/json", contains: []string{`"status":"down"`}}},
		"no programs":      {st, nil, scenario{status: 503, contentType: "application/json", contains: []string{`"status":"down"`, `"programs":[]`}}},
		"cannot write":     {unwritable{st}, running(), scenario{status: 503, contentType: "application/json", contains: []string{`"status":"down"`, `"last_error":"no space left`}}},
	} {
		t.Run(name, func(t *testing.T) {
			base := serve(t, func(o *Options) { o.Store, o.Programs = test.store, test.programs })
			test.want.url = "/health"
			test.want.run(t, base)
		})
	}
}

func TestMetrics(t *testing.T) {
	timings := NewTimings()
	for _, err := range []error{nil, errors.New("no space left on device"), nil} {
		timings.Flushed(30*time.Millisecond, err)
	}
	base := serve(t, func(o *Options) { o.Store, o.Timings = openStore(t), timings })
	request := func(route, class string, n int) string {
		return fmt.Sprintf("ebpf_server_http_request_duration_seconds_count{route=%q,status=%q} %d\n", route, class, n)
	}
	scenarios(t, base, []scenario{
		{name: "none", url: "/no/such/10.0.0.1", status: 404},
		{name: "not in this way", url: "/api/storage/pins/4711471147114711", status: 405},
		{name: "a parameter", method: "DELETE", url: "/api/storage/pins/4711471147114711", status: 404},
		{name: "of a type", url: "/api/connections/summary?duration=60", status: 200},
		{name: "wrong", url: "/api/connections/summary?colour=red", status: 400},
		{name: "HEAD", method: "HEAD", url: "/api/connections/summary?duration=60", status: 200},
		{name: "all", url: "/metrics", status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", contains: []string{
			`ebpf_server_info{version="1.2.3"} 1`, `ebpf_server_program_running{program="connection"} 1`,
			`ebpf_server_lost_total{place="map_full",program="connection"} 4`, `ebpf_server_seen_total{program="connection"}`,
			`ebpf_server_connection_events_total{state="closed"} 5`, `ebpf_server_connection_events_total{state="failed"} 0`,
			`ebpf_server_connection_sent_bytes_total 1700`, `ebpf_server_packet_drop_length_bytes_total 0`,
			`ebpf_server_hook_measured_runs_total{hook="handle_set_state",program="connection"} 12`,
			`ebpf_server_hook_measured_run_seconds_total{hook="handle_set_state",program="connection"} 3.72e-06`,
			"ebpf_server_store_file_bytes", "ebpf_server_store_free_bytes", `ebpf_server_store_events{type="connection"}`, "process_resident_memory_bytes",
			"ebpf_server_store_flush_duration_seconds_count 3", "ebpf_server_store_flush_failures_total 1",
			request("none", "4xx", 1), request("/api/storage/pins/:id", "4xx", 2),
			request("/api/connections/summary", "2xx", 2), request("/api/connections/summary", "4xx", 1),
		}, lacks: []string{"4711471147114711", "10.0.0.1"}},
		{name: "no parameters", url: "/metrics?a=b", status: 400, contains: []string{`"field":"a"`}},
	})
}

func TestPrograms(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	scenarios(t, base, []scenario{
		{name: "list", url: "/api/programs", status: 200, contains: []string{
			`{"programs":[{"name":"connection","collection":"connections","summary":"Connections of this host.","state":"running"`,
			`"hooks":[{"name":"handle_set_state","kind":"tp_btf","target":"inet_sock_set_state","attached":true,"optional":false,"measured_runs":12,"ns_per_run":310}]`,
			`"features":{"ring_buffer":true}`, `"lost":{"map_full":4,"ring_buffer_full":3}`, `"filtered":{}`,
			`{"name":"bytes_sent","type":"int","unit":"bytes","description":"Sent."}`, `"values":["established","failed","closed"]`,
		}, lacks: []string{"null"}},
		{name: "no parameters", url: "/api/programs?state=running", status: 400, contains: []string{`"field":"state"`, "there are none"}},
		{name: "HEAD", method: "HEAD", url: "/api/programs", status: 200},
	})
}
