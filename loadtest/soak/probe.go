package soak

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"distmsg/internal/usage"
	"distmsg/loadtest/result"
)

// probe measures this process and that of the server.
type probe struct {
	pid    int
	url    string
	client http.Client
}

// patience is how long a server may take to answer with its metrics.
const patience = 2 * time.Second

func newProbe(cfg *Config) probe {
	return probe{pid: cfg.ServerPID, url: cfg.Metrics, client: http.Client{Timeout: patience}}
}

// measure fills in what the processes use now.
func (p *probe) measure(s *result.SoakSample) {
	busy, err := usage.Busy() // read with the rest, as the server's metrics may take longer
	s.Tool, _ = ofPID(os.Getpid())
	s.Tool.Goroutines = new(uint64(runtime.NumGoroutine()))
	if err == nil {
		defer func() { s.Others = p.others(s, result.Of(busy)) }()
	}
	if p.pid == 0 && p.url == "" {
		return
	}
	var server result.Usage
	var errs []error
	if p.pid != 0 {
		var err error
		server, err = ofPID(p.pid)
		errs = append(errs, err)
	}
	if p.url != "" {
		errs = append(errs, p.scrape(&server))
	}
	if err := errors.Join(errs...); err != nil {
		s.ServerError = err.Error()
	}
	if server != (result.Usage{}) {
		s.Server = &server
	}
}

// others returns what is left of the machine's CPU time without that of this process and of the
// server. A server that is not named by its PID stays in it.
func (p *probe) others(s *result.SoakSample, busy result.Seconds) *result.Seconds {
	if s.Tool.CPU == nil {
		return nil
	}
	rest := busy - *s.Tool.CPU
	if p.pid != 0 && s.Server != nil && s.Server.CPU != nil {
		rest -= *s.Server.CPU
	}
	return &rest
}

// ofPID returns what the kernel says of a process.
func ofPID(pid int) (u result.Usage, err error) {
	cpu, err1 := usage.CPU(pid)
	rss, err2 := usage.RSS(pid)
	fds, err3 := usage.FDs(pid)
	if err1 == nil {
		u.CPU = new(result.Of(cpu))
	}
	if err2 == nil {
		u.RSS = &rss
	}
	if err3 == nil {
		u.FDs = &fds
	}
	return u, errors.Join(err1, err2, err3)
}

// scrape fills in from the server's metrics what is not known yet.
func (p *probe) scrape(u *result.Usage) error {
	answer, err := p.client.Get(p.url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", p.url, answer.Status)
	}
	found := make(map[string]float64)
	decoder := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header))
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			break // the end, or what is no metric: known is what came before
		}
		if list := f.GetMetric(); len(list) == 1 {
			found[f.GetName()] = list[0].GetGauge().GetValue() + list[0].GetCounter().GetValue() + list[0].GetUntyped().GetValue()
		}
	}
	var missing error
	fill := func(to **uint64, name string) {
		v, ok := found[name]
		switch {
		case !ok && *to == nil:
			missing = errors.Join(missing, fmt.Errorf("%s has no %s", p.url, name))
		case *to == nil:
			*to = new(uint64(v))
		}
	}
	fill(&u.Goroutines, "go_goroutines")
	fill(&u.RSS, "process_resident_memory_bytes")
	fill(&u.FDs, "process_open_fds")
	if v, ok := found["process_cpu_seconds_total"]; ok && u.CPU == nil {
		u.CPU = new(result.Seconds(v))
	}
	return missing
}
