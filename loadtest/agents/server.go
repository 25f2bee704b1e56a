package agents

import (
	"fmt"
	"time"

	"distmsg/internal/usage"
	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// A server is the processes of Config.ServerPID, on the coordinator's machine. It measures what
// they use from the end of the warm-up to the end of the measured time. It belongs to the goroutine
// of Run.
type server struct {
	pids             []int // empty: there is nothing to measure
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
	if load.ServerPID == 0 {
		return s, nil
	}
	s.pids = append([]int{load.ServerPID}, load.MoreServerPIDs...)
	if _, _, err := usage.Total(s.pids...); err != nil {
		return nil, fmt.Errorf("server-pid: with agents, it is a process of the coordinator's machine: %w", err)
	}
	return s, nil
}

// start says that messages begin to flow in this time.
func (s *server) start(in time.Duration) {
	if len(s.pids) > 0 {
		s.timer = time.NewTimer(in + s.warmup)
		s.due = s.timer.C
	}
}

// mark begins or ends the measured time.
func (s *server) mark() {
	cpu, rss, err := usage.Total(s.pids...)
	if s.marks = append(s.marks, used{cpu, rss}); s.err == nil {
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
	if len(s.pids) == 0 {
		return
	}
	s.end()
	r.Config.ServerPID = s.pids[0]
	r.Versions.Server, r.Versions.ServerGo = loadtest.ProgramVersion(s.pids[0])
	switch {
	case s.err != nil:
		r.ServerError = s.err.Error()
	case len(s.marks) == 2:
		from, to := s.marks[0], s.marks[1]
		r.ServerCPU, r.ServerRSS = result.PerMessage(to.cpu-from.cpu, r.Completed), &to.rss
	}
}
