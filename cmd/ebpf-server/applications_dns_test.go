package main_test

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	queryForm   = regexp.MustCompile(`;; QUERY SIZE: (\d+)`)
	answerForm  = regexp.MustCompile(`;; MSG SIZE  rcvd: (\d+)`)
	dnsmasqForm = regexp.MustCompile(`dnsmasq\[(\d+)\]: \d+ ` + regexp.QuoteMeta(clientIP) + `/(\d+) query\[A\] (\S+) `)
)

// dig tells how long its messages are, and dnsmasq's log where they came from. dig
// connects its UDP sockets; dnsmasq does not: at its end they are flows. Of a TCP
// connection dnsmasq is the owner, and the child that it forks answers.
func dns(h *hosts) {
	p := h.serve(53, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts",
		"--bind-interfaces", "--listen-address="+serviceIP, "--address=/example/192.0.2.1", "--log-queries=extra", "--log-facility=-")
	service := h.owner(p, "dnsmasq", "root")
	var client []end
	for _, test := range []struct {
		connections int
		args        []string // the names at the end are looked up one after the other
	}{
		{1, []string{"a.example"}},
		{2, []string{"b.example", "c.example"}},
		{1, []string{"+tcp", "d.example"}},
		{1, []string{"+tcp", "+keepopen", "e.example", "f.example"}},
	} {
		out, dig := h.run("dig", append([]string{"@" + serviceIP, "+qr"}, test.args...)...)
		queries, answers := queryForm.FindAllStringSubmatch(out, -1), answerForm.FindAllStringSubmatch(out, -1)
		ends := map[int]end{}
		for i, name := range names(test.args) {
			pid, port := asked(h, p, name)
			e := end{port, ends[port].sent + h.number(queries[i][1]), ends[port].received + h.number(answers[i][1]), dig}
			if test.args[0] == "+tcp" {
				e.sent, e.received = e.sent+2, e.received+2 // the length before each message
			}
			if (pid == service.PID) == (test.args[0] == "+tcp") {
				h.Errorf("dnsmasq answers dig %v as process %d", test.args, pid)
			}
			ends[port] = e
		}
		if len(ends) != test.connections {
			h.Errorf("dig %v came from the ports %v", test.args, ends)
		}
		for _, e := range ends {
			client = append(client, e)
		}
	}
	h.compare(h.client, h.closed(h.client, len(client)), client)
	h.compare(h.service, h.closed(h.service, len(client)), far(client, service))
}

func names(args []string) []string {
	for strings.HasPrefix(args[0], "+") {
		args = args[1:]
	}
	return args
}

// asked returns which process of dnsmasq was asked for a name, and the client's
// port, by the log.
func asked(h *hosts, dnsmasq *process, name string) (pid, port int) {
	h.Helper()
	eventually(h, func() error {
		for _, m := range dnsmasqForm.FindAllStringSubmatch(dnsmasq.output.String(), -1) {
			if m[3] == name {
				pid, port = int(h.number(m[1])), int(h.number(m[2]))
				return nil
			}
		}
		return fmt.Errorf("dnsmasq was not asked for %s", name)
	})
	return pid, port
}
