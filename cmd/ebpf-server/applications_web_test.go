package main_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

const webURL = "http://" + serviceIP + ":8080"

// nginx has a line in its log for every request.
type nginx struct {
	*hosts
	folder, log string
}

// startNginx runs it with two workers, which accept, and do so as www-data.
func startNginx(h *hosts) *nginx {
	h.Helper()
	folder := h.folder("www-data")
	config := h.write(folder, "nginx.conf", fmt.Sprintf(`
		daemon off;
		user www-data;
		worker_processes 2;
		pid %[1]s/pid;
		events {}
		http {
			log_format requests '$connection $remote_port $pid $bytes_sent $request_length';
			access_log %[1]s/access.log requests;
			client_body_temp_path %[1]s/body;
			proxy_temp_path %[1]s/proxy;
			fastcgi_temp_path %[1]s/fastcgi;
			uwsgi_temp_path %[1]s/uwsgi;
			scgi_temp_path %[1]s/scgi;
			client_max_body_size 10m;
			server {
				listen %[2]s:8080;
				root %[1]s;
				dav_methods PUT;
				location = /hello { return 200 "hello\n"; }
				location = /status { stub_status; }
			}
		}`, folder, serviceIP))
	h.write(folder, "large", strings.Repeat("0123456789abcdef", 4<<16))
	h.serve(8080, "nginx", "-p", folder, "-c", config, "-e", "stderr")
	return &nginx{h, folder, filepath.Join(folder, "access.log")}
}

// logged returns the service's ends of connections, in the order of their last
// requests, once nginx has logged requests of n.
func (n *nginx) logged(want int) []end {
	n.Helper()
	var order []int
	ends := map[int]end{}
	eventually(n, func() error {
		order = nil
		clear(ends)
		for line := range strings.Lines(n.read(n.log)) {
			var number, port, pid int
			var sent, received int64
			n.scan(line, &number, &port, &pid, &sent, &received)
			e, known := ends[number]
			if !known {
				order = append(order, number)
			}
			ends[number] = end{port, e.sent + sent, e.received + received, owner{pid, "nginx", n.installed("nginx"), "www-data"}}
		}
		if len(ends) != want {
			return fmt.Errorf("nginx has logged requests of %d connections, want %d", len(ends), want)
		}
		return nil
	})
	all := make([]end, len(order))
	for i, number := range order {
		all[i] = ends[number]
	}
	return all
}

// accepted returns how many connections nginx says it has accepted, and the one on
// which curl asked for that.
func (n *nginx) accepted() (int, end) {
	n.Helper()
	answer, curl := n.run("curl", "-s", "-w", "%{local_port}", webURL+"/status")
	asking := end{owner: curl}
	var count int
	lines := strings.Split(answer, "\n")
	n.scan(lines[2], &count)
	n.scan(lines[len(lines)-1], &asking.port)
	return count, asking
}

// used leaves out connections without a request, which nginx does not log.
func used(ends []connectionEvent) []connectionEvent {
	var some []connectionEvent
	for _, e := range ends {
		if e.Sent != 0 || e.Received != 0 {
			some = append(some, e)
		}
	}
	return some
}

// wrkRun is how many requests wrk made, and the bytes it received for them: as it
// says itself, as was recorded, and as nginx has sent them.
type wrkRun struct {
	requests             int
	told, recorded, sent int64
}

// wrk runs it, and compares both ends of its connections with nginx's log.
func (n *nginx) wrk(args ...string) (run wrkRun) {
	n.Helper()
	out, wrk := n.run("wrk", append(args, webURL+"/hello")...)
	_, total, _ := strings.Cut(out, "total")
	n.scan(total, &run.requests, &run.told)

	accepted, asking := n.accepted()
	atService := used(n.closed(n.service, accepted))
	service := n.logged(len(atService))
	n.compare(n.service, atService, service)

	want := far(service, wrk)
	last := 0 // ports are used again
	for i := range want {
		if want[i].port == asking.port {
			last = i
		}
	}
	want[last].owner = asking.owner
	for i, e := range want {
		if e.owner == wrk {
			run.sent += e.received
		}
		want[i].received = untold // wrk may have ended before it came
	}
	client := n.closed(n.client, int(n.counter(n.client, "TcpActiveOpens")))
	n.compare(n.client, used(client), want)
	_, run.recorded, _ = sums(of(client, wrk))
	return run
}

const wrkTotal = `
	function done(summary) print("total", summary.requests, summary.bytes) end`

// Each thread of wrk has one connection and stops when it has 100 answers, so that
// nothing is under way at the end.
func nginxKeepAlive(h *hosts) {
	script := h.write(h.TempDir(), "wrk.lua", `
		local answers = 0
		function response()
			answers = answers + 1
			if answers == 100 then wrk.thread:stop() end
		end`+wrkTotal)
	run := startNginx(h).wrk("-t16", "-c16", "-d2s", "-s", script)
	if run.requests != 1600 || run.recorded != run.told || run.recorded != run.sent {
		h.Errorf("wrk has 1600 answers? %+v", run)
	}
}

// As many connections as there can be in a second. When wrk ends, it leaves
// connections without a request, and answers that it does not read.
func nginxClose(h *hosts) {
	script := h.write(h.TempDir(), "wrk.lua", wrkTotal)
	run := startNginx(h).wrk("-t2", "-c10", "-d1s", "-H", "Connection: close", "-s", script)
	if run.recorded < run.told || run.recorded > run.sent {
		h.Errorf("%+v", run)
	}
}

// curl runs it, and returns its end of the connection by its own account of each
// request.
func (n *nginx) curl(args ...string) end {
	n.Helper()
	out, curl := n.run("curl", append([]string{"-s", "--remote-name-all", "--output-dir", n.TempDir(), "-w", "%{stderr}%{json}\n"}, args...)...)
	e := end{owner: curl}
	for line := range strings.Lines(out) {
		var told struct {
			Port     int   `json:"local_port"`
			Request  int64 `json:"size_request"`
			Upload   int64 `json:"size_upload"`
			Header   int64 `json:"size_header"`
			Download int64 `json:"size_download"`
		}
		if err := json.Unmarshal([]byte(line), &told); err != nil {
			n.Fatalf("%v\n%s", err, out)
		}
		e.port = told.Port
		e.sent += told.Request + told.Upload
		e.received += told.Header + told.Download
	}
	return e
}

func nginxCurl(h *hosts) {
	n := startNginx(h)
	client := []end{
		n.curl(webURL + "/hello"),
		n.curl(webURL+"/large", webURL+"/large", webURL+"/missing"), // on one connection
		n.curl("--http1.0", webURL+"/large"),
		n.curl("--head", webURL+"/large"),
		n.curl("--upload-file", n.folder+"/large", webURL+"/uploaded"),
	}
	h.compare(h.client, h.closed(h.client, len(client)), client)
	h.compare(h.service, h.closed(h.service, len(client)), n.logged(len(client)))
}

// Bytes are counted once, however often they are sent; what is sent again is told.
func nginxLoss(h *hosts) {
	h.losePackets()
	n := startNginx(h)
	client := []end{
		n.curl(webURL+"/large", webURL+"/large"),
		n.curl("--upload-file", n.folder+"/large", webURL+"/uploaded"),
	}
	h.compare(h.client, h.closed(h.client, len(client)), client)
	h.compare(h.service, h.closed(h.service, len(client)), n.logged(len(client)))

	p, service := serveIperf(h)
	out, iperf := h.run("iperf3", "-c", serviceIP, "-J", "--bidir", "--bitrate", "50M", "--time", "1")
	h.wait(p)
	_, retransmits := h.streams(h.report(out), iperf, service)
	for _, ns := range []*bpftest.NetNS{h.client, h.service} {
		for _, e := range h.closed(ns, len(client)+3) {
			if told := retransmits[ns][e.end().port]; e.Retransmits < told {
				h.Errorf("iperf3 says %d segments were sent again, recorded is %+v", told, e)
			}
		}
		if h.counter(ns, "TcpRetransSegs") == 0 {
			h.Errorf("%s sent nothing again", ns.Name)
		}
	}
}
