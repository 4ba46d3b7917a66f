package api

import (
	"fmt"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
)

// Timings is how long things took since the start, for /metrics. It is made
// before the server, as the store tells it of its flushes.
type Timings struct {
	requests      *prometheus.HistogramVec
	flushes       prometheus.Histogram
	failedFlushes prometheus.Counter
}

// NewTimings returns timings of nothing yet.
func NewTimings() *Timings {
	return &Timings{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ebpf_server_http_request_duration_seconds",
			Help:    "From the request's header to the end of the answer, by the route as the API describes it and the class of the status (2xx).",
			Buckets: []float64{0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60},
		}, []string{"route", "status"}),
		flushes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ebpf_server_store_flush_duration_seconds",
			Help:    "How long writes of what had come in took, failed ones too.",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10},
		}),
		failedFlushes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebpf_server_store_flush_failures_total",
			Help: "Writes that failed; what they had to write waits in memory for the next.",
		}),
	}
}

// Flushed notes that the store wrote what had come in, or could not.
func (t *Timings) Flushed(took time.Duration, err error) {
	t.flushes.Observe(took.Seconds())
	if err != nil {
		t.failedFlushes.Inc()
	}
}

// noRoute stands for requests of what there is not.
const noRoute = "none"

func (t *Timings) answered(route string, status int, took time.Duration) {
	t.requests.WithLabelValues(route, fmt.Sprintf("%dxx", status/100)).Observe(took.Seconds())
}

// noteRoute keeps which route a request took, its path with the names of
// parameters in the place of their values, for the server's outermost handler.
func noteRoute(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if out, ok := c.Response().Writer.(*response); ok && c.Path() != "" {
			out.route = c.Path()
		}
		return next(c)
	}
}
