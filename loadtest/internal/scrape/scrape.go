// Package scrape reads what a server's own metrics, in the text format of Prometheus, say about its
// process.
package scrape

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// A Process is what metrics say about a process. What they do not say is nil, or empty.
type Process struct {
	RSS, FDs, Goroutines *uint64
	CPU                  *time.Duration // since the process began
	Version, Go          string         // of a node
}

// patience is how long a server may take to answer.
const patience = 2 * time.Second

// Get reads the metrics at a URL. It takes two seconds at most. The caller does without what they
// lack.
func Get(url string) (p Process, err error) {
	client := http.Client{Timeout: patience}
	answer, err := client.Get(url)
	if err != nil {
		return p, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return p, fmt.Errorf("%s: %s", url, answer.Status)
	}
	decoder := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header))
	for {
		var f dto.MetricFamily
		switch err := decoder.Decode(&f); {
		case errors.Is(err, io.EOF):
			return p, nil
		case err != nil: // what comes after something that is no metric is not known
			return p, fmt.Errorf("%s: %w", url, err)
		}
		if list := f.GetMetric(); len(list) == 1 {
			p.add(f.GetName(), list[0])
		}
	}
}

// add takes in a metric.
func (p *Process) add(name string, m *dto.Metric) {
	v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
	switch name {
	case "go_goroutines":
		p.Goroutines = new(uint64(v))
	case "process_resident_memory_bytes":
		p.RSS = new(uint64(v))
	case "process_open_fds":
		p.FDs = new(uint64(v))
	case "process_cpu_seconds_total":
		p.CPU = new(time.Duration(v * float64(time.Second)))
	case "distmsg_build_info":
		p.Version, p.Go = build(m)
	}
}

// build returns the version of a node and of its Go.
func build(m *dto.Metric) (version, goVersion string) {
	labels := make(map[string]string)
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	version = "distmsg " + labels["version"]
	revision, dirty := strings.CutSuffix(labels["revision"], "-dirty")
	if revision = revision[:min(len(revision), 12)]; revision != "unknown" && !strings.Contains(version, revision) {
		version += " " + revision
	}
	if dirty && !strings.Contains(version, "+dirty") {
		version += "+dirty"
	}
	return version, labels["goversion"]
}

// Reach reads all metrics once. It returns what the first say, and an error if some cannot be read.
func Reach(urls []string) (first Process, err error) {
	for i, url := range urls {
		p, err := Get(url)
		if err != nil {
			return first, err
		}
		if i == 0 {
			first = p
		}
	}
	return first, nil
}

// Usage adds up the CPU time and the memory of several servers.
func Usage(urls []string) (cpu time.Duration, rss uint64, err error) {
	for _, url := range urls {
		p, err := Get(url)
		switch {
		case err != nil:
			return 0, 0, err
		case p.CPU == nil || p.RSS == nil:
			return 0, 0, fmt.Errorf("%s has no process_cpu_seconds_total or no process_resident_memory_bytes", url)
		}
		cpu, rss = cpu+*p.CPU, rss+*p.RSS
	}
	return cpu, rss, nil
}
