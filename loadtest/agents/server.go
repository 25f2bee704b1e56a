package agents

import (
	"fmt"
	"time"

	"distmsg/internal/usage"
	"distmsg/loadtest"
	"distmsg/loadtest/internal/scrape"
	"distmsg/loadtest/result"
)

// A server is the processes of Config.ServerPID, on the coordinator's machine, or those of
// Config.Metrics. It measures what they use from the end of the warm-up to the end of the measured
// time. It belongs to the goroutine of Run.
type server struct {
	use              func() (used, error) // nil: there is nothing to measure
	pid              int                  // 0: none
	metrics          []string
	build            scrape.Process // what the first metrics said
	warmup, measured time.Duration
	due              <-chan time.Time // when to call mark; nil: never
	timer            *time.Timer
	marks            []used // at both ends of the measured time
	err              error  // why the usage is not known
}

// used is what the processes have used so far.
type used struct {
	cpu time.Duration
	rss uint64
}

// newServer fails if the processes cannot be measured.
func newServer(load *loadtest.Config) (*server, error) {
	s := new(server)
	s.warmup, s.measured = load.Times()
	s.pid, s.metrics = load.ServerPID, load.Metrics
	if len(s.metrics) > 0 {
		var err error
		if s.build, err = scrape.Reach(s.metrics); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		s.use = s.scraped
	}
	if s.pid == 0 {
		return s, nil
	}
	pids := append([]int{load.ServerPID}, load.MoreServerPIDs...)
	s.use = func() (u used, err error) {
		u.cpu, u.rss, err = usage.Total(pids...)
		return u, err
	}
	if _, err := s.use(); err != nil {
		return nil, fmt.Errorf("server-pid: with agents, it is a process of the coordinator's machine: %w", err)
	}
	return s, nil
}

func (s *server) scraped() (u used, err error) {
	u.cpu, u.rss, err = scrape.Usage(s.metrics)
	return u, err
}

// start says that messages begin to flow in this time.
func (s *server) start(in time.Duration) {
	if s.use != nil {
		s.timer = time.NewTimer(in + s.warmup)
		s.due = s.timer.C
	}
}

// mark begins or ends the measured time.
func (s *server) mark() {
	u, err := s.use()
	if s.marks = append(s.marks, u); s.err == nil {
		s.err = err
	}
	s.timer.Stop()
	s.due = nil
	if len(s.marks) == 1 && s.measured > 0 {
		s.timer.Reset(s.measured)
		s.due = s.timer.C
	}
}

// end ends the measured time now, if it has begun and not ended.
func (s *server) end() {
	if len(s.marks) == 1 {
		s.mark()
	} else if s.timer != nil {
		s.timer.Stop()
		s.due = nil
	}
}

// report adds to a report what was found.
func (s *server) report(r *loadtest.Report) {
	if s.use == nil {
		return
	}
	s.end()
	r.Config.ServerPID, r.Config.Metrics = s.pid, s.metrics
	if s.pid != 0 {
		r.Versions.Server, r.Versions.ServerGo = loadtest.ProgramVersion(s.pid)
	}
	if r.Versions.Server == "" && s.build.Version != "" {
		r.Versions.Server, r.Versions.ServerGo = s.build.Version, s.build.Go
	}
	switch {
	case s.err != nil:
		r.ServerError = s.err.Error()
	case len(s.marks) == 2:
		from, to := s.marks[0], s.marks[1]
		r.ServerCPU, r.ServerRSS = result.PerMessage(to.cpu-from.cpu, r.Completed), &to.rss
	}
}
