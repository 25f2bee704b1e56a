package loadtest

import (
	"fmt"
	"time"

	"distmsg/loadtest/internal/drive"
	"distmsg/loadtest/internal/shape"
	"distmsg/loadtest/internal/traffic"
)

// What a Config says about the shape of the load.
type (
	// A Stage is a part of an open loop, see Config.Stages.
	Stage = shape.Stage
	// A Size is a length of payloads with a weight, see Config.Payloads.
	Size = shape.Size
)

// ParseStages reads stages such as "1000:10s,1000..5000:30s": the rate, and for how long.
func ParseStages(text string) ([]Stage, error) { return shape.ParseStages(text) }

// ParseSizes reads sizes such as "64:9,4096:1": the bytes, and the weight.
func ParseSizes(text string) ([]Size, error) { return shape.ParseSizes(text) }

// Churn is how often a second something changes while messages flow, on all connections together.
// The connections are chosen at random.
type Churn struct {
	// Binds is the number of IDs that sessions bind again.
	Binds float64
	// Moves is the number of sessions that move to another node without a gap, or, if there is no
	// other node, to another connection.
	Moves float64
	// Reconnects is the number of connections that are cut and made again. Messages in flight on
	// them end as lost, or are found to have been delivered.
	Reconnects float64
}

func (c *Churn) any() bool { return c.Binds > 0 || c.Moves > 0 || c.Reconnects > 0 }

// sizes returns the sizes of messages.
func (c *Config) sizes() []Size {
	if len(c.Payloads) > 0 {
		return c.Payloads
	}
	return []Size{{Bytes: c.Payload, Weight: 1}}
}

// offlineIDs returns how many IDs nobody binds.
func (c *Config) offlineIDs() int {
	if c.Offline == 0 {
		return 0
	}
	return min(c.Conns*c.IDsPerConn, maxOffline)
}

const maxOffline = 10_000

// traffic returns what a traffic needs to know. run is the number of the run.
func (c *Config) traffic(run uint64) *traffic.Config {
	stages := c.Stages
	if len(stages) == 0 && c.Rate != 0 {
		stages = []Stage{{From: c.Rate, To: c.Rate, For: time.Second}}
	}
	return &traffic.Config{
		Run: run, Seed: c.Seed, Acks: !c.NoAck, Conns: c.Conns, IDsPerConn: c.IDsPerConn, Fanout: c.Fanout, Window: c.Window,
		Cross: c.Cross, Zipf: c.Zipf, Offline: c.Offline, OfflineIDs: c.offlineIDs(), AckDelay: c.AckDelay,
		Sizes: c.sizes(), Stages: stages, Poisson: c.Poisson,
	}
}

// arrivals names how messages of an open loop are distributed in time. It is empty for a closed
// loop.
func (c *Config) arrivals() string {
	switch {
	case !c.openLoop():
		return ""
	case c.Poisson:
		return "poisson"
	}
	return "even"
}

// validateShape returns what is wrong with the shape of the load.
func (c *Config) validateShape(kind *drive.Kind) (errs []error) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrUsage}, args...)...))
		}
	}
	check(len(c.Payloads) == 0 || c.Payload == 0, "payloads excludes payload")
	check(c.Duration != 0, "duration is 0, want more")
	check(len(c.Stages) == 0 || c.Rate == 0 && c.Window == 0, "stages excludes rate and window")
	for _, s := range c.Stages {
		check(s.From >= 0 && s.To >= 0 && s.From <= maxRate && s.To <= maxRate, "stages has a rate of %g to %g, want 0 to %g", s.From, s.To, maxRate)
		check(s.For > 0, "stages has one of %v, want more than 0", s.For)
	}
	check(!c.Poisson || c.openLoop(), "arrivals needs rate or stages: a closed loop sends when a message has ended")
	check(c.Zipf == 0 || c.Zipf > 1, "zipf is %g, want more than 1", c.Zipf)
	check(c.Zipf == 0 || c.Cross == nil && c.Fanout <= 1, "zipf excludes cross and fanout")
	check(c.Offline >= 0 && c.Offline <= 1, "offline is %g, want 0 to 1", c.Offline)
	check(c.Offline == 0 || c.Fanout <= 1, "offline excludes fanout")
	check(c.Offline == 0 || kind.Reports, "offline needs driver %s: driver %s reports no failures", drive.Names(func(k *drive.Kind) bool { return k.Reports }), c.Driver)
	check(c.AckDelay >= 0, "ack-delay is %v, want at least 0", c.AckDelay)
	check(c.AckDelay == 0 || kind.Delays, "ack-delay needs driver %s", drive.Names(func(k *drive.Kind) bool { return k.Delays }))
	check(c.AckDelay == 0 || !c.NoAck, "ack-delay needs acks")
	for name, v := range map[string]float64{"churn-binds": c.Churn.Binds, "churn-moves": c.Churn.Moves, "churn-reconnects": c.Churn.Reconnects} {
		check(v >= 0, "%s is %g, want at least 0", name, v)
		check(v == 0 || kind.Churns, "%s needs driver %s", name, drive.Names(func(k *drive.Kind) bool { return k.Churns }))
	}
	return errs
}
