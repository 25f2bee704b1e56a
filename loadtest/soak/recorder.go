package soak

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// A line of the file has one of these fields. The first line has the header, the last one the end.
type line struct {
	Header *result.SoakHeader `json:"header,omitempty"`
	Sample *result.SoakSample `json:"sample,omitempty"`
	End    *result.Report     `json:"end,omitempty"`
}

// Config says what to record.
type Config struct {
	// Out is the file. It must not exist.
	Out string
	// Every is the length of an interval, at least a second.
	Every time.Duration
	// MaxShare is the share of its level by which something may grow in an hour.
	MaxShare float64
	// ServerPID is the process of the server, and Metrics the URL of its metrics. Default: none.
	ServerPID int
	Metrics   string
}

// A Recorder writes the file of a soak. Run's goroutine calls Begin and End, and the goroutine of
// the samples calls Observe.
type Recorder struct {
	cfg    Config
	probe  probe
	begun  bool
	merged *hdrhistogram.Histogram // of the interval
	open   result.Point            // the interval so far

	mu     sync.Mutex
	file   *os.File // guarded by mu
	failed error    // guarded by mu: the first error of a write
}

// NewRecorder creates the file.
func NewRecorder(cfg Config) (*Recorder, error) {
	file, err := os.OpenFile(cfg.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists: a soak does not overwrite the report of another", cfg.Out)
	}
	if err != nil {
		return nil, err
	}
	return &Recorder{cfg: cfg, file: file, probe: newProbe(&cfg), merged: hdrhistogram.New(1000, int64(time.Hour), 3)}, nil
}

// Begin writes the header. known is what a run knows of itself before its first message.
func (r *Recorder) Begin(known *loadtest.Report) {
	r.begun = true
	r.write(&line{Header: &result.SoakHeader{Schema: result.SchemaSoak, Begun: known.Begun, Every: result.Of(r.cfg.Every), MaxShare: r.cfg.MaxShare,
		Machine: known.Machine, Versions: known.Versions, Config: known.Config, Metrics: r.cfg.Metrics}})
}

// Observe adds what happened in one second, and writes a line if the interval is over. A server
// that does not answer holds it up, for two seconds at most.
func (r *Recorder) Observe(s *loadtest.Sample) {
	p := &r.open
	if p.Length == 0 {
		*p = result.Point{At: s.At, Round: s.Round, Outcomes: make(map[string]uint64)}
	}
	r.merged.Merge(s.Measured)
	r.merged.Merge(s.Other)
	p.Length += s.Length
	p.Phase, p.InFlight, p.DownConnections, p.Faults = s.Phase, s.InFlight, s.DownConnections, s.Faults
	p.Sent, p.Delivered, p.Completed = p.Sent+s.Sent, p.Delivered+s.Delivered, p.Completed+s.Completed
	p.LostConnections, p.Moves = p.LostConnections+s.LostConnections, p.Moves+s.Moves
	for word, n := range s.Outcomes {
		p.Outcomes[word] += n
	}
	// A tick may come a little early or late.
	if p.Length.Duration()+500*time.Millisecond < r.cfg.Every && s.Phase != result.Landing {
		return
	}
	p.Latency = result.LatencyOf(r.merged)
	sample := &result.SoakSample{Point: *p}
	r.probe.measure(sample)
	r.write(&line{Sample: sample})
	r.merged.Reset()
	r.open = result.Point{}
}

// End writes the last line. The file keeps the report without its timeline, which the samples are.
func (r *Recorder) End(report *loadtest.Report) {
	end := *report
	end.Timeline = nil
	r.write(&line{End: &end})
}

// Close closes the file, and removes it if nothing was written. It returns the first error of a
// write.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.file.Close()
	if !r.begun {
		err = errors.Join(err, os.Remove(r.file.Name()))
	}
	return errors.Join(r.failed, err)
}

// write writes one line at once, and waits until the disk has it. A full disk does not end a run.
func (r *Recorder) write(l *line) {
	data, err := json.Marshal(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.file.Write(append(data, '\n'))
	}
	if err == nil {
		err = r.file.Sync()
	}
	if r.failed == nil && err != nil {
		r.failed = fmt.Errorf("the file of the soak is not complete: %w", err)
	}
}
