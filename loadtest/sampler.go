package loadtest

import (
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/codec"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/traffic"
	"distmsg/loadtest/result"
)

// A Sample is a Point with the histograms that its percentiles come from, in nanoseconds. Measured
// has the messages that count for the figures of the run, and Other has the rest: those of the
// warm-up, for instance.
type Sample struct {
	result.Point
	Measured, Other *hdrhistogram.Histogram
}

// sampler makes the time series of a run. Once a second it takes the counts, and exchanges the
// meter's histograms for empty ones. So the driver's loop pays for two pointers and a copy of a
// kilobyte a second, and all the rest happens on the goroutine of the sampler.
type sampler struct {
	r        *run
	measured *hdrhistogram.Histogram // of the whole run, without what the meter still has
	both     *hdrhistogram.Histogram // scratch: all messages of one sample
	spare    [2]*hdrhistogram.Histogram
	last     tally
	points   []result.Point
	tell     func(*Sample)
	print    func(line string)
}

// tally is what a run has counted so far.
type tally struct {
	at              int64 // on the run's clock
	sent, delivered uint64
	completed       uint64
	outcomes        ledger.Outcomes
	faults          uint64
	inFlight, down  int
	lost, moves     uint64
	phase           result.Phase
}

// tallyOf returns what a run has counted so far. Its callers have the exclusive right.
func tallyOf(t *traffic.Traffic) tally {
	l := t.Ledger
	s := tally{at: t.Now, sent: l.Sent(), delivered: l.Delivered(), completed: t.Meter.Total, outcomes: l.Outcomes(),
		faults: faults(l).Total(), inFlight: l.InFlight(), down: t.DownConns(), lost: t.Lost, moves: t.Moves, phase: result.Measuring}
	switch {
	case !t.Sending:
		s.phase = result.Landing
	case t.Meter.From == ledger.Unknown:
		s.phase = result.Warmup
	}
	return s
}

func newSampler(r *run) *sampler {
	s := &sampler{r: r, measured: traffic.NewHistogram(), both: traffic.NewHistogram(), tell: r.cfg.Observe}
	s.spare = [2]*hdrhistogram.Histogram{traffic.NewHistogram(), traffic.NewHistogram()}
	r.d.Do(func() {
		r.t.Tick()
		s.last.at = r.t.Now
	})
	return s
}

// run takes a sample each second, and a last one when quit is closed.
func (s *sampler) run(quit <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	print, end := Printer(s.r.cfg.Progress)
	defer end()
	s.print = print
	for {
		select {
		case <-quit:
			s.take()
			return
		case <-tick.C:
			s.take()
			s.print(s.points[len(s.points)-1].Line() + "\n")
		}
	}
}

// take takes a sample of the time since the last one.
func (s *sampler) take() {
	var now tally
	got := s.spare
	s.r.d.Do(func() {
		s.r.t.Tick()
		now = tallyOf(s.r.t)
		m := &s.r.t.Meter
		got[0], m.Measured = m.Measured, got[0]
		got[1], m.Other = m.Other, got[1]
	})
	s.measured.Merge(got[0])
	s.both.Reset()
	s.both.Merge(got[0])
	s.both.Merge(got[1])
	point := now.since(&s.last)
	point.Latency = result.LatencyOf(s.both)
	s.last = now
	s.points = append(s.points, point)
	if s.tell != nil {
		s.tell(&Sample{Point: point, Measured: got[0], Other: got[1]})
	}
	got[0].Reset()
	got[1].Reset()
	s.spare = got
}

func (now *tally) since(last *tally) result.Point {
	p := result.Point{
		At: result.Seconds(last.at) / 1e9, Length: result.Seconds(now.at-last.at) / 1e9, Phase: now.phase, Round: 1,
		Sent: now.sent - last.sent, Delivered: now.delivered - last.delivered, Completed: now.completed - last.completed,
		Outcomes: make(map[string]uint64), InFlight: now.inFlight, DownConnections: now.down, Faults: now.faults,
		LostConnections: now.lost - last.lost, Moves: now.moves - last.moves,
	}
	for code, n := range now.outcomes {
		if n > last.outcomes[code] {
			p.Outcomes[codec.Code(code).String()] += n - last.outcomes[code]
		}
	}
	return p
}

// Printer returns a function that writes lines on a goroutine of its own, so a stopped terminal or
// a pipe without a reader cannot hold up the run. It drops a line if the line before it still
// waits. end waits for the last line, for at most a second.
func Printer(w io.Writer) (print func(line string), end func()) {
	lines, done := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(done)
		for line := range lines {
			_, _ = io.WriteString(w, line)
		}
	}()
	print = func(line string) {
		select {
		case lines <- line:
		default:
		}
	}
	end = func() {
		close(lines)
		select {
		case <-done:
		case <-time.After(time.Second):
		}
	}
	return print, end
}
