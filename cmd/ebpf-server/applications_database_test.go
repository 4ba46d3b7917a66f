package main_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// startPostgres makes a database cluster and serves it, as the user postgres. It
// returns where the programs are.
func startPostgres(h *hosts) (p *process, postmaster owner, programs string) {
	h.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // one for each major version
	if len(found) == 0 {
		h.Fatal("PostgreSQL is not installed: make test installs what the tests need")
	}
	program := found[len(found)-1]
	programs = filepath.Dir(program)
	folder := h.folder("postgres")
	asPostgres := []string{"--reuid=postgres", "--regid=postgres", "--clear-groups", "--"}
	h.wait(h.launch(h.service, "setpriv", append(asPostgres,
		filepath.Join(programs, "initdb"), "-D", folder, "-A", "trust", "--no-locale", "--no-sync")...))
	h.write(folder, "pg_hba.conf", "host all all "+clientIP+"/32 trust\n")
	p = h.serve(5432, "setpriv", append(asPostgres, program, "-D", folder, "-c", "listen_addresses="+serviceIP,
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "log_connections=on", "-c", "log_line_prefix=%p ")...)
	eventually(h, func() error { // it listens before it lets anybody in
		if !strings.Contains(p.output.String(), "ready to accept connections") {
			return errors.New("PostgreSQL is starting up")
		}
		return nil
	})
	return p, h.owner(p, program, "postgres"), programs
}

var postgresForm = regexp.MustCompile(`(?m)^(\d+) LOG:  connection received: host=` + regexp.QuoteMeta(clientIP) + ` port=(\d+)$`)

// PostgreSQL logs each connection with its port and the process that serves it.
// That is not its owner: the postmaster accepts all, and passes them on by fork.
func postgres(h *hosts) {
	p, postmaster, programs := startPostgres(h)
	h.countPayload(5432)
	var client []end
	for _, run := range []struct {
		args                      []string
		connections, transactions int
	}{
		{[]string{"-i", "-q"}, 1, 0},
		// One to look at the tables, then one for each client, or for each transaction.
		{[]string{"-n", "-c4", "-j2", "-t50"}, 1 + 4, 200},
		{[]string{"-n", "-c4", "-j2", "-t50", "--connect"}, 1 + 200, 200},
	} {
		out, pgbench := h.run(filepath.Join(programs, "pgbench"), append(run.args, "-h", serviceIP, "-U", "postgres", "postgres")...)
		if done := fmt.Sprintf("actually processed: %d/%[1]d\n", run.transactions); run.transactions != 0 && !strings.Contains(out, done) {
			h.Errorf("pgbench did not do %d transactions:\n%s", run.transactions, out)
		}
		var logged [][]string
		eventually(h, func() error {
			logged = postgresForm.FindAllStringSubmatch(p.output.String(), -1)[len(client):]
			if len(logged) != run.connections {
				return fmt.Errorf("PostgreSQL has logged %d connections of pgbench %v, want %d", len(logged), run.args, run.connections)
			}
			return nil
		})
		for _, line := range logged {
			if line[1] == strconv.Itoa(postmaster.PID) {
				h.Errorf("the postmaster serves a connection: %s", line[0])
			}
			client = append(client, end{port: int(h.number(line[2])), owner: pgbench})
		}
	}
	h.comparePayload(postmaster, client)
}

// Redis counts connections and bytes of all together.
func redis(h *hosts) {
	p := h.serve(6379, "redis-server", "--bind", serviceIP, "--protected-mode", "no", "--save", "", "--dir", h.TempDir())
	service := h.owner(p, "redis-server", "root")
	h.countPayload(6379)
	var benchmarks []owner
	for _, args := range [][]string{
		{"-t", "set,get", "-c", "20", "-n", "2000", "-d", "1000"},
		{"-t", "set", "-c", "20", "-n", "2000", "-P", "16"},
		{"-t", "ping_mbulk", "-c", "20", "-n", "500", "-k", "0"}, // a connection for each request
	} {
		_, benchmark := h.run("redis-benchmark", append(args, "-q", "-h", serviceIP)...)
		benchmarks = append(benchmarks, benchmark)
	}
	answer, cli := h.run("redis-cli", "-h", serviceIP, "info", "stats")
	count := func(name string) (n int64) {
		_, text, _ := strings.Cut(answer, name+":")
		h.scan(text, &n)
		return n
	}
	n := int(count("total_connections_received"))

	atClient := h.closed(h.client, n)
	var client []end
	for _, whose := range append(benchmarks, cli) {
		for _, e := range of(atClient, whose) {
			client = append(client, end{port: e.SourcePort, owner: whose})
		}
	}
	h.comparePayload(service, client)
	sent, received, _ := sums(h.closed(h.service, n))
	// The question of redis-cli is in the numbers, and the answer to it is not.
	asking := of(atClient, cli)
	if told := count("total_net_input_bytes"); len(asking) != 1 || received != told {
		h.Errorf("Redis has received %d bytes, recorded are %d", told, received)
	}
	if told := count("total_net_output_bytes"); sent-asking[0].Received != told {
		h.Errorf("Redis has sent %d bytes before the answer, recorded are %d", told, sent-asking[0].Received)
	}
}
