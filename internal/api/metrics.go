package api

import (
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func description(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ebpf_server_"+name, help, labels, nil)
}

var (
	metricInfo     = description("info", "Always 1.", "version")
	metricRunning  = description("program_running", "1 while the program records, else 0.", "program")
	metricSeen     = description("seen_total", "What there was to record since the start: the sum of events, filtered, and lost before the store (but for program_skipped, an upper bound).", "program")
	metricEvents   = description("events_total", "Events handed to the store since the start; one that stands for several counts as so many.", "program")
	metricLost     = description("lost_total", "Events lost since the start, by place.", "program", "place")
	metricFiltered = description("filtered_total", "What was seen but is no event, by reason.", "program", "reason")
	metricFile     = description("store_file_bytes", "Size of the db file.")
	metricStored   = description("store_events", "Events that can be asked for, in file and memory.", "type")
	metricPending  = description("store_pending_events", "Events in memory that are not in the file yet.")
	metricFlush    = description("store_last_flush_timestamp_seconds", "When events last went to the file.")
)

// metrics reads the state of the moment when it is asked.
type metrics struct{ *Server }

// Describe implements prometheus.Collector.
func (m metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricInfo, metricRunning, metricSeen, metricEvents, metricLost, metricFiltered, metricFile, metricStored, metricPending, metricFlush,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge(metricInfo, 1, m.Version)
	for _, p := range m.Programs.Programs() {
		running := 0.0
		if p.State == StateRunning {
			running = 1
		}
		gauge(metricRunning, running, p.Name)
		counter(metricSeen, p.Seen, p.Name)
		counter(metricEvents, p.Events, p.Name)
		for place, n := range p.Lost {
			counter(metricLost, n, p.Name, place)
		}
		for reason, n := range p.Filtered {
			counter(metricFiltered, n, p.Name, reason)
		}
	}
	status := m.Store.Status()
	gauge(metricFile, float64(status.Bytes))
	gauge(metricPending, float64(status.Pending))
	if !status.LastFlush.IsZero() {
		gauge(metricFlush, float64(status.LastFlush.UnixNano())/1e9)
	}
	for _, t := range status.Types {
		gauge(metricStored, float64(t.Events), t.Name)
	}
}

// newMetrics returns the handler of GET /metrics.
//
//	@Summary		Metrics for Prometheus
//	@Description	What each program has seen, recorded, lost and filtered, what the db file holds, and what the process takes.
//	@Tags			state
//	@ID				metrics
//	@Produce		plain
//	@Success		200		{string}	string	"Prometheus' text format."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/metrics [get]
func (s *Server) newMetrics() echo.HandlerFunc {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	handler := echo.WrapHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return func(c echo.Context) error {
		if err := noParams(c.Request()); err != nil {
			return err
		}
		return handler(c)
	}
}
