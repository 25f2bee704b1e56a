package soak

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"distmsg/internal/usage"
	"distmsg/loadtest/internal/scrape"
	"distmsg/loadtest/result"
)

// probe measures this process and that of the server.
type probe struct {
	pid int
	url string
}

func newProbe(cfg *Config) probe { return probe{pid: cfg.ServerPID, url: cfg.Metrics} }

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
	found, err := scrape.Get(p.url)
	var missing error
	fill := func(to **uint64, v *uint64, name string) {
		if *to == nil {
			*to = v
		}
		if *to == nil && err == nil {
			missing = errors.Join(missing, fmt.Errorf("%s has no %s", p.url, name))
		}
	}
	fill(&u.Goroutines, found.Goroutines, "go_goroutines")
	fill(&u.RSS, found.RSS, "process_resident_memory_bytes")
	fill(&u.FDs, found.FDs, "process_open_fds")
	if found.CPU != nil && u.CPU == nil {
		u.CPU = new(result.Of(*found.CPU))
	}
	return errors.Join(err, missing)
}
