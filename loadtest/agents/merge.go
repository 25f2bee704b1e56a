package agents

import (
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest"
	"distmsg/loadtest/internal/shape"
	"distmsg/loadtest/internal/traffic"
	"distmsg/loadtest/result"
)

// A merger makes one time series of those of all agents. The seconds since messages began are the
// same for all of them, up to the precision of their clocks. It passes a second on when each agent
// has given its part of it.
type merger struct {
	begin    result.Seconds // when messages began, on the clock of the time series
	first    []float64      // by agent: when its first sample began, on the clock of its run
	through  []int          // by agent: it has given all of the seconds up to this one
	last     []result.Point // by agent: the latest point that was passed on
	seconds  map[int]*second
	next     int                       // the first second that was not passed on
	measured []*hdrhistogram.Histogram // by agent: of the whole run
	both     *hdrhistogram.Histogram   // scratch: all messages of one second
	points   []result.Point
	tell     func(*loadtest.Sample)
	print    func(line string)
}

// A second is what the agents did in one second of the run.
type second struct {
	loadtest.Sample
	last map[int]result.Point // by agent: its latest point in this second
}

func newMerger(agents int, tell func(*loadtest.Sample), print func(string)) *merger {
	m := &merger{first: make([]float64, agents), through: make([]int, agents), last: make([]result.Point, agents),
		seconds: make(map[int]*second), tell: tell, print: print,
		measured: make([]*hdrhistogram.Histogram, agents), both: traffic.NewHistogram()}
	for i := range agents {
		m.first[i], m.through[i], m.measured[i] = math.NaN(), -1, traffic.NewHistogram()
	}
	return m
}

// add adds a sample of an agent.
func (m *merger) add(agent int, s *sample) error {
	measured, err := hdrhistogram.Decode(s.Measured)
	if err != nil {
		return fmt.Errorf("its histogram: %w", err)
	}
	other, err := hdrhistogram.Decode(s.Other)
	if err != nil {
		return fmt.Errorf("its histogram: %w", err)
	}
	m.measured[agent].Merge(measured)
	p := s.Point
	if math.IsNaN(m.first[agent]) {
		m.first[agent] = float64(p.At)
	}
	p.At += m.shift(agent)
	// a run of 1.4 s has its first second, and then the rest
	at := max(int(math.Round(float64(p.At+p.Length-m.begin))), m.next)
	part := m.seconds[at]
	if part == nil {
		part = &second{Sample: loadtest.Sample{Point: p, Measured: measured, Other: other}, last: map[int]result.Point{agent: p}}
		m.seconds[at] = part
	} else {
		part.Measured.Merge(measured)
		part.Other.Merge(other)
		join(&part.Point, &p)
		part.last[agent] = p
	}
	m.through[agent] = max(m.through[agent], at)
	m.pass()
	return nil
}

// shift is what turns the time of an agent's run into that of the time series.
func (m *merger) shift(agent int) result.Seconds {
	return m.begin - result.Seconds(m.first[agent])
}

// join adds another point about the same second.
func join(p, other *result.Point) {
	end := max(p.At+p.Length, other.At+other.Length)
	p.At = min(p.At, other.At)
	p.Length = end - p.At
	p.Sent, p.Delivered, p.Completed = p.Sent+other.Sent, p.Delivered+other.Delivered, p.Completed+other.Completed
	p.LostConnections, p.Moves = p.LostConnections+other.LostConnections, p.Moves+other.Moves
	for word, n := range other.Outcomes {
		p.Outcomes[word] += n
	}
}

// finish records that an agent gives no more samples.
func (m *merger) finish(agent int) {
	m.through[agent] = math.MaxInt
	m.pass()
}

// lose records that an agent has died. Nothing of it is in flight any more, and it has no
// connections.
func (m *merger) lose(agent int) {
	m.last[agent].InFlight, m.last[agent].DownConnections = 0, 0
	for _, s := range m.seconds {
		if p, given := s.last[agent]; given {
			p.InFlight, p.DownConnections = 0, 0
			s.last[agent] = p
		}
	}
	m.finish(agent)
}

// flush passes on what is left, after the last event of the run.
func (m *merger) flush() {
	for i := range m.through {
		m.finish(i)
	}
}

// pass passes on the seconds that are complete.
func (m *merger) pass() {
	complete := math.MaxInt
	for _, t := range m.through {
		complete = min(complete, t)
	}
	for ; m.next <= complete && len(m.seconds) > 0; m.next++ {
		if s := m.seconds[m.next]; s != nil {
			delete(m.seconds, m.next)
			m.publish(s)
		}
	}
}

func (m *merger) publish(s *second) {
	for agent, p := range s.last {
		m.last[agent] = p
	}
	s.InFlight, s.DownConnections, s.Faults = 0, 0, 0
	for i := range m.last { // what agents that gave no sample in this second had before
		s.InFlight += m.last[i].InFlight
		s.DownConnections += m.last[i].DownConnections
		s.Faults += m.last[i].Faults
	}
	m.both.Reset()
	m.both.Merge(s.Measured)
	m.both.Merge(s.Other)
	s.Latency = result.LatencyOf(m.both)
	m.points = append(m.points, s.Point)
	if m.tell != nil {
		m.tell(&s.Sample)
	}
	m.print(s.Line() + "\n")
}

// report makes the report of the run, of what the agents found that have not died.
func (f *fleet) report() *loadtest.Report {
	var parts []*result.Report
	measured := traffic.NewHistogram()
	about := make([]result.Agent, len(f.reports))
	for i, r := range f.reports {
		about[i] = f.about(i)
		if r == nil {
			continue
		}
		part := *r
		part.Begun = f.begun.Round(time.Millisecond)
		if !math.IsNaN(f.merger.first[i]) {
			part.MaxSilenceAt += f.merger.shift(i)
		}
		parts = append(parts, &part)
		measured.Merge(f.merger.measured[i])
	}
	r := result.Together(parts, about)
	c, all := &r.Config, f.load
	c.Conns, c.Rate, c.Seed, c.Stages = all.Conns, all.Rate, all.Seed, shape.FormatStages(all.Stages)
	c.ChurnBinds, c.ChurnMoves, c.ChurnReconnects = all.Churn.Binds, all.Churn.Moves, all.Churn.Reconnects
	if len(all.Nodes) > 0 {
		c.Nodes = all.Nodes
	}
	f.server.report(r)
	r.Timeline = f.merger.points
	r.Latency, r.Distribution = result.LatencyOf(measured), result.DistributionOf(measured)
	r.Rounds = []result.Round{r.Round()}
	return r
}

// about says what an agent did.
func (f *fleet) about(i int) result.Agent {
	l, r := f.links[i], f.reports[i]
	a := result.Agent{Address: l.addr, Version: l.program, ClockOffset: result.Of(l.first.offset), ClockBound: result.Of(l.first.bound), Late: result.Of(f.late[i])}
	a.ClockDrift, a.ClockDriftBound = l.drift()
	if r == nil {
		a.Failed, a.Conns, a.Faults = f.lost[i].Error(), share(f.load, i, len(f.links)).Conns, f.merger.last[i].Faults
		return a
	}
	a.Run, a.Machine, a.Conns, a.Measured = r.Config.Run, r.Machine, r.Config.Conns, r.Measured
	a.Sent, a.Delivered, a.Acked, a.Faults = r.Sent, r.Delivered, r.Acked, r.Faults.Total()
	a.Rate, a.Latency, a.DriverCPU = r.Rate, r.Latency, r.DriverCPU
	return a
}
