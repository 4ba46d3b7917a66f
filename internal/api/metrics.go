package api

import (
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

func description(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ebpf_server_"+name, help, labels, nil)
}

// Labels have few values: types, places, reasons, states, hooks, routes. An
// address or a process would make a series of its own for each of its values.
var (
	metricInfo     = description("info", "Always 1.", "version")
	metricRunning  = description("program_running", "1 while the program records, 0 if it failed; nothing if it is switched off.", "program")
	metricSeen     = description("seen_total", "What there was to record since the start: the sum of events, filtered, and lost before the store (but for program_skipped, an upper bound).", "program")
	metricEvents   = description("events_total", "Events handed to the store since the start; one that stands for several counts as so many.", "program")
	metricLost     = description("lost_total", "Events lost since the start, by place.", "program", "place")
	metricFiltered = description("filtered_total", "What was seen but is no event, by reason.", "program", "reason")
	metricUnnamed  = description("unnamed_total", "Times that names were not told, because there were too many new ones at once.", "program")
	metricRuns     = description("hook_measured_runs_total", "Runs of an eBPF program that were measured: the kernel does so one second in thirty.", "program", "hook")
	metricRunTime  = description("hook_measured_run_seconds_total", "How long the measured runs took.", "program", "hook")
	metricFile     = description("store_file_bytes", "Size of the db file.")
	metricFree     = description("store_free_bytes", "Of the file, pages that are used again before it grows.")
	metricStored   = description("store_events", "Events that can be asked for, in file and memory.", "type")
	metricBytes    = description("store_event_bytes", "What they take in the file.", "type")
	metricOldest   = description("store_oldest_event_timestamp_seconds", "Time of the oldest of them.", "type")
	metricPending  = description("store_pending_events", "Events in memory that are not in the file yet.")
	metricFlush    = description("store_last_flush_timestamp_seconds", "When events last went to the file, or a sign of life where there were none.")
)

// typeMetrics are those that follow from the declaration of a type.
type typeMetrics struct {
	counts *prometheus.Desc
	sums   map[string]*prometheus.Desc // by column
}

func newTypeMetrics(t *event.Type) typeMetrics {
	m := typeMetrics{
		counts: description(t.Name+"_events_total", "Events of type "+t.Name+" since the start, by "+t.Breakdown+"; one that stands for several counts as so many.", t.Breakdown),
		sums:   map[string]*prometheus.Desc{},
	}
	for _, c := range t.Columns {
		if c.Sum {
			m.sums[c.Name] = description(t.Name+"_"+unitLast(c)+"_total", "Sum of "+c.Name+" of all events since the start. "+c.Description)
		}
	}
	return m
}

// unitLast returns the name of a column with its unit at the end, as
// Prometheus wants it: bytes_sent is sent_bytes.
func unitLast(c event.Column) string {
	if c.Unit == "" {
		return c.Name
	}
	return strings.TrimPrefix(c.Name, c.Unit+"_") + "_" + c.Unit
}

// metrics reads the state of the moment when it is asked.
type metrics struct {
	*Server
	types map[string]typeMetrics
}

func (s *Server) metricsOfTypes() metrics {
	m := metrics{s, map[string]typeMetrics{}}
	for _, t := range s.Types {
		m.types[t.Name] = newTypeMetrics(t)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricInfo, metricRunning, metricSeen, metricEvents, metricLost, metricFiltered, metricUnnamed, metricRuns, metricRunTime,
		metricFile, metricFree, metricStored, metricBytes, metricOldest, metricPending, metricFlush,
	} {
		to <- d
	}
	for _, t := range m.types {
		to <- t.counts
		for _, d := range t.sums {
			to <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(to chan<- prometheus.Metric) {
	gauge(to, metricInfo, 1, m.Version)
	for _, p := range m.Programs.Programs() {
		if p.State != StateDisabled {
			m.program(to, p)
		}
	}
	storeMetrics(to, m.Store.Status())
}

func gauge(to chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func counter(to chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

func (m metrics) program(to chan<- prometheus.Metric, p Program) {
	running := 0.0
	if p.State == StateRunning {
		running = 1
	}
	gauge(to, metricRunning, running, p.Name)
	counter(to, metricSeen, float64(p.Seen), p.Name)
	counter(to, metricEvents, float64(p.Events), p.Name)
	counter(to, metricUnnamed, float64(p.Unnamed), p.Name)
	for place, n := range p.Lost {
		counter(to, metricLost, float64(n), p.Name, place)
	}
	for reason, n := range p.Filtered {
		counter(to, metricFiltered, float64(n), p.Name, reason)
	}
	for value, n := range p.Counts {
		counter(to, m.types[p.Name].counts, float64(n), value)
	}
	for column, n := range p.Sums {
		counter(to, m.types[p.Name].sums[column], float64(n))
	}
	for _, h := range p.Hooks {
		if h.Attached {
			counter(to, metricRuns, float64(h.Runs), p.Name, h.Name)
			counter(to, metricRunTime, h.RunTime.Seconds(), p.Name, h.Name)
		}
	}
}

func storeMetrics(to chan<- prometheus.Metric, status query.Status) {
	gauge(to, metricFile, float64(status.Bytes))
	gauge(to, metricFree, float64(status.FreeBytes))
	gauge(to, metricPending, float64(status.Pending))
	if !status.LastFlush.IsZero() {
		gauge(to, metricFlush, float64(status.LastFlush.UnixNano())/1e9)
	}
	for _, t := range status.Types {
		gauge(to, metricStored, float64(t.Events), t.Name)
		gauge(to, metricBytes, float64(t.Bytes), t.Name)
		if !t.Oldest.IsZero() {
			gauge(to, metricOldest, float64(t.Oldest.UnixNano())/1e9, t.Name)
		}
	}
}

// newMetrics returns the handler of GET /metrics.
//
//	@Summary		Metrics for Prometheus
//	@Description	What each program has seen, recorded (by state or reason, with sums of bytes), lost and filtered, what its hooks cost, what the db file holds and how long writes to it take, how long requests take, and what the process takes.
//	@Tags			state
//	@ID				metrics
//	@Produce		plain
//	@Success		200		{string}	string	"Prometheus' text format."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/metrics [get]
func (s *Server) newMetrics() echo.HandlerFunc {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.metricsOfTypes(), s.Timings.requests, s.Timings.flushes, s.Timings.failedFlushes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	handler := echo.WrapHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return func(c echo.Context) error {
		if err := noParams(c.Request()); err != nil {
			return err
		}
		return handler(c)
	}
}
