package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
)

var configs = filepath.Join("..", "..", "configs")

// A real Prometheus scrapes the binary by the configuration that we hand out;
// what the dashboard and the alerts ask for is there.
func TestPrometheus(t *testing.T) {
	t.Setenv("EBPF_SERVER_STORAGE_FLUSH_INTERVAL", "200ms")
	s := start(t, filepath.Join(built, "ebpf-server"), filepath.Join(t.TempDir(), "events.db"))
	p := startPrometheus(t, strings.TrimPrefix(s.url, "http://"))
	ns := bpftest.NewNetNS(t, "scraped")
	var busy sync.WaitGroup
	busy.Go(func() { keepBusy(t, ns, s) })
	t.Cleanup(busy.Wait)

	metrics := scraped(t, s)
	dashboard, alerts := dashboardQuestions(t), p.alerts()
	for _, question := range slices.Concat(dashboard, alerts) {
		for _, name := range regexp.MustCompile(`ebpf_server_\w+`).FindAllString(question, -1) {
			if !strings.Contains(metrics, "\n"+name) {
				t.Errorf("there is no metric %s, which is asked for in %s", name, question)
			}
		}
	}
	// Run times are measured one second in thirty: the time of a run is not
	// known before.
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		without := slices.DeleteFunc(slices.Clone(dashboard), p.hasData)
		if len(without) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no data for\n%s\nin\n%s", strings.Join(without, "\n"), scraped(t, s))
		}
	}
	for _, alert := range alerts {
		p.ask(alert) // fails if it is not understood
	}
	if firing := p.ask(`ALERTS{alertstate="firing"}`); len(firing) > 0 {
		t.Errorf("alerts: %v", firing)
	}
	for _, program := range []string{"connection", "packet_drop"} {
		equal := fmt.Sprintf(`sum(ebpf_server_%s_events_total) > 0 == on() sum(ebpf_server_events_total{program=%q})`, program, program)
		eventually(t, func() error { // an event may come between the two
			if !p.hasData(equal) {
				return fmt.Errorf("events of %s by state or reason are not all events", program)
			}
			return nil
		})
	}
	p.checkLabels()
	checkTool(t, scraped(t, s), "promtool", "check", "metrics")
}

func TestPrometheusFiles(t *testing.T) {
	checkTool(t, "", "promtool", "check", "config", filepath.Join(configs, "prometheus.yml"))
	checkTool(t, "", "promtool", "check", "rules", filepath.Join(configs, "prometheus-alerts.yml"))
	checkTool(t, "", "promtool", "test", "rules", filepath.Join("testdata", "prometheus-alerts.test.yml"))
}

// checkTool runs a program that finds faults.
func checkTool(t *testing.T, input, name string, args ...string) {
	t.Helper()
	command := exec.Command(name, args...)
	command.Stdin = strings.NewReader(input)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%s: %v (make test installs what the tests need)\n%s", command, err, out)
	}
}

// keepBusy makes all that is counted happen, until the test ends: connections
// that are made and that fail, dropped packets, requests.
func keepBusy(t *testing.T, ns *bpftest.NetNS, s *server) {
	for t.Context().Err() == nil {
		traffic(t, ns, 20)
		ns.Do(t, func() {
			if c, err := net.Dial("tcp", "127.0.0.1:7009"); err == nil {
				c.Close()
				t.Error("connected to a closed port")
			}
			c, err := net.Dial("udp", "127.0.0.1:7009")
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("dropped")) // the second one may be told that the first was
			c.Close()
		})
		for _, path := range []string{"/api/events?limit=1", "/api/connections/summary?duration=60", "/nothing"} {
			if answer, err := http.Get(s.url + path); err == nil {
				answer.Body.Close()
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func scraped(t *testing.T, s *server) string {
	t.Helper()
	answer, err := http.Get(s.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", answer.Status, err, text)
	}
	return string(text)
}

// dashboardQuestions returns what the dashboard asks for, as Grafana would.
func dashboardQuestions(t *testing.T) (questions []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(configs, "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$instance", ".+", "$__rate_interval", "1m", "$__range", "1h")
	for _, panel := range dashboard.Panels {
		if len(panel.Targets) == 0 && panel.Type != "row" {
			t.Errorf("panel %q asks for nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			question := variables.Replace(target.Expr)
			if strings.Contains(question, "$") {
				t.Errorf("panel %q has a variable that is not known: %s", panel.Title, question)
			}
			questions = append(questions, question)
		}
	}
	return questions
}

// prometheusServer is a running Prometheus.
type prometheusServer struct {
	*testing.T
	url string
}

func startPrometheus(t *testing.T, target string) prometheusServer {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(configs, "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs(filepath.Join(configs, "prometheus-alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("127.0.0.1:8080", target, "15s", "1s", "prometheus-alerts.yml", rules).Replace(string(text))
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	command := exec.Command("prometheus", "--config.file", config, "--web.listen-address", address, "--storage.tsdb.path", t.TempDir())
	var log output
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatalf("%v: make test installs what the tests need", err)
	}
	p := prometheusServer{t, "http://" + address}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil || t.Failed() {
			t.Logf("prometheus: %v\n%s", err, &log)
		}
	})
	eventually(t, func() error {
		if up := p.ask(`up{job="ebpf-server"} == 1`); len(up) != 1 {
			return fmt.Errorf("nothing was scraped: %v", up)
		}
		return nil
	})
	return p
}

// sample is one of an instant vector.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, and the number as text
}

// ask evaluates an expression now.
func (p prometheusServer) ask(expression string) []sample {
	p.Helper()
	var answer struct{ Result []sample }
	p.get("/api/v1/query?"+url.Values{"query": {expression}}.Encode(), &answer)
	return answer.Result
}

// get asks for anything. While Prometheus is not there yet, there is no answer.
func (p prometheusServer) get(path string, data any) {
	p.Helper()
	response, err := http.Get(p.url + path)
	if err != nil {
		return
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusServiceUnavailable {
		return
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Status != "success" {
		p.Errorf("%s: %v %s", path, err, answer.Error)
	}
}

// hasData tells whether an expression has a value that is a number.
func (p prometheusServer) hasData(expression string) bool {
	return slices.ContainsFunc(p.ask(expression), func(s sample) bool {
		text, _ := s.Value[1].(string)
		n, err := strconv.ParseFloat(text, 64)
		return err == nil && !math.IsNaN(n)
	})
}

// alerts returns the expressions of all alerts, each of which was evaluated.
func (p prometheusServer) alerts() (expressions []string) {
	p.Helper()
	var answer struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError string }
		}
	}
	eventually(p.T, func() error {
		expressions = nil
		p.get("/api/v1/rules?type=alert", &answer)
		for _, group := range answer.Groups {
			for _, rule := range group.Rules {
				if rule.Health != "ok" {
					return fmt.Errorf("alert %s is %s: %s", rule.Name, rule.Health, rule.LastError)
				}
				expressions = append(expressions, rule.Query)
			}
		}
		if len(expressions) == 0 {
			return fmt.Errorf("there are no alerts")
		}
		return nil
	})
	return expressions
}

// checkLabels looks at every series: there are not many, and none is of an
// address or a process.
func (p prometheusServer) checkLabels() {
	p.Helper()
	known := strings.Fields("__name__ job instance program place reason hook type state drop_reason route status le version")
	all := p.ask(`{__name__=~"ebpf_server_.+"}`)
	if len(all) < 50 || len(all) > 1500 {
		p.Errorf("%d series", len(all))
	}
	for _, s := range all {
		for label, value := range s.Metric {
			_, err := netip.ParseAddr(value)
			if !slices.Contains(known, label) || err == nil {
				p.Errorf("series %v has the label %s=%q", s.Metric, label, value)
			}
		}
	}
	p.Logf("%d series", len(all))
}
