package agents

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// version is the version of what coordinators and agents say to each other. It changes with
// everything that an older program would misunderstand.
const version = 2

// The paths that an agent serves.
const (
	pathHello = "/agent"       // GET: a hello
	pathRun   = "/agent/run"   // POST a job: the answer is a stream of events
	pathStart = "/agent/start" // POST an order: messages begin at its moment
	pathStop  = "/agent/stop"  // POST an order: the measured time ends now
)

// hello is what an agent says about itself.
type hello struct {
	Version int    `json:"agent_version"` // 0: not an agent
	Schema  string `json:"schema"`        // of its reports
	Program string `json:"program"`
	Clock   int64  `json:"clock_nanoseconds"` // its clock, since 1970
}

// A job is what an agent is to do in a run. An agent refuses fields that it does not know.
type job struct {
	Version   int    `json:"agent_version"`
	Run       string `json:"run"`       // names the run in orders
	Discovery string `json:"discovery"` // where nodes are found; empty: Load.Nodes
	Load      load   `json:"load"`
}

// load is the part of a loadtest.Config that a coordinator sends.
type load struct {
	loadtest.Config

	// What belongs to one process hides the fields of the same names.
	Membership, TLS, CredentialsFile, Until, Ready, Started, Divide, ServerPID, MoreServerPIDs, Metrics, Observe, Progress *struct{} `json:",omitempty"`
}

// An order is about the run that an agent serves.
type order struct {
	Run       string `json:"run"`
	At        int64  `json:"at_nanoseconds"` // start: the moment, on the agent's clock
	Interrupt bool   `json:"interrupt"`      // stop: the run is cut short
}

// An event is one line of the answer to a job. It has one of these fields, but for Late and Usage.
type event struct {
	Beat   bool    `json:"beat,omitempty"`  // the agent lives
	Ready  bool    `json:"ready,omitempty"` // all its connections are up
	Sample *sample `json:"sample,omitempty"`

	// The last event of a run: its report without the timeline, and how late messages began.
	Report *result.Report `json:"report,omitempty"`
	Late   int64          `json:"late_nanoseconds,omitempty"`

	// The last event of a run that failed: why, and whether the load is not possible.
	Failed string `json:"failed,omitempty"`
	Usage  bool   `json:"usage,omitempty"`
}

// A sample is a loadtest.Sample. The histograms have the compressed format of HdrHistogram.
type sample struct {
	Point    result.Point `json:"point"`
	Measured []byte       `json:"measured"`
	Other    []byte       `json:"other"`
}

func encodeSample(s *loadtest.Sample) (*sample, error) {
	measured, err := s.Measured.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, err
	}
	other, err := s.Other.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	return &sample{Point: s.Point, Measured: measured, Other: other}, err
}

// A clock is the time of day that never jumps: it goes on from its base by the monotonic clock.
type clock struct{ base time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() time.Time { return c.base.Add(time.Since(c.base)) }

// The agents' patience and the coordinator's.
const (
	beatEvery    = time.Second
	answerWithin = 10 * time.Second // else the other side has died
	dialWithin   = 5 * time.Second
	maxJob       = 1 << 20 // bytes
	maxEvent     = 16 << 20
)
