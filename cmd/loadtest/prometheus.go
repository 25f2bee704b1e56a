package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// metrics serves what a run has counted so far. The figures are a second old at most. The nil value
// serves nothing.
type metrics struct {
	server *http.Server
	ended  chan struct{}

	counts   *prometheus.CounterVec // by what: sent, delivered, completed, …
	outcomes *prometheus.CounterVec // by outcome
	gauges   *prometheus.GaugeVec   // by what: in_flight, connections_down
	faults   prometheus.Counter
	latency  *latencies
	round    int    // the last one that was observed
	before   uint64 // faults that it had at its last sample
}

// serveMetrics serves metrics at addr, unless that is empty.
func serveMetrics(addr string) (*metrics, error) {
	if addr == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &metrics{
		ended:    make(chan struct{}),
		counts:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "loadtest_messages_total", Help: "Messages by what happened to them."}, []string{"event"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "loadtest_outcomes_total", Help: "Outcomes of messages."}, []string{"outcome"}),
		gauges:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "loadtest_now", Help: "What is so at the moment."}, []string{"what"}),
		faults:   prometheus.NewCounter(prometheus.CounterOpts{Name: "loadtest_ledger_faults_total", Help: "Faults that the ledger has found."}),
		latency:  newLatencies(),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.counts, m.outcomes, m.gauges, m.faults, m.latency)
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	// close waits for answers that are under way
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	go func() {
		defer close(m.ended)
		_ = m.server.Serve(listener) // close ends it
	}()
	return m, nil
}

// observe adds what happened in one second. The counters go on over all rounds.
func (m *metrics) observe(p *loadtest.Sample, round int) {
	if m == nil {
		return
	}
	for event, n := range map[string]uint64{"sent": p.Sent, "delivered": p.Delivered, "completed": p.Completed} {
		m.counts.WithLabelValues(event).Add(float64(n))
	}
	for word, n := range p.Outcomes {
		m.outcomes.WithLabelValues(word).Add(float64(n))
	}
	m.gauges.WithLabelValues("in_flight").Set(float64(p.InFlight))
	m.gauges.WithLabelValues("connections_down").Set(float64(p.DownConnections))
	if round != m.round {
		m.round, m.before = round, 0
	}
	m.faults.Add(float64(p.Faults - m.before))
	m.before = p.Faults
	m.latency.observe(p)
}

func (m *metrics) close() {
	if m == nil {
		return
	}
	_ = m.server.Shutdown(context.Background())
	<-m.ended
}

// latencies is a summary whose quantiles are those of the last second.
type latencies struct {
	what  *prometheus.Desc
	mu    sync.Mutex
	last  *result.Latency // guarded by mu, and so are count and sum
	count uint64
	sum   float64 // in seconds
}

func newLatencies() *latencies {
	return &latencies{what: prometheus.NewDesc("loadtest_latency_seconds", "Latency of the messages that completed; quantiles of the last second.", nil, nil)}
}

func (l *latencies) observe(p *loadtest.Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = p.Latency
	l.count += p.Completed
	l.sum += (p.Measured.Mean()*float64(p.Measured.TotalCount()) + p.Other.Mean()*float64(p.Other.TotalCount())) / 1e9
}

// Describe and Collect implement prometheus.Collector.
func (l *latencies) Describe(to chan<- *prometheus.Desc) { to <- l.what }

func (l *latencies) Collect(to chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	quantiles := make(map[float64]float64)
	if v := l.last; v != nil {
		quantiles = map[float64]float64{0.5: float64(v.P50), 0.9: float64(v.P90), 0.99: float64(v.P99), 0.999: float64(v.P999), 1: float64(v.Max)}
	}
	to <- prometheus.MustNewConstSummary(l.what, l.count, l.sum, quantiles)
}
