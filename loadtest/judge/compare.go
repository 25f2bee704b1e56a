package judge

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"distmsg/loadtest/result"
)

// figure is a metric of a round that can be compared.
type figure struct {
	name, unit   string
	moreIsBetter bool
	of           func(*result.Round) (float64, bool)
}

func figures() []figure {
	latency := func(name string, of func(*result.Latency) result.Seconds) figure {
		return figure{name, "seconds", false, func(r *result.Round) (float64, bool) {
			if r.Latency == nil {
				return 0, false
			}
			return float64(of(r.Latency)), true
		}}
	}
	return []figure{
		{"rate", "per_second", true, func(r *result.Round) (float64, bool) { return known(r.Rate) }},
		latency("p50", func(l *result.Latency) result.Seconds { return l.P50 }),
		latency("p90", func(l *result.Latency) result.Seconds { return l.P90 }),
		latency("p99", func(l *result.Latency) result.Seconds { return l.P99 }),
		latency("p99.9", func(l *result.Latency) result.Seconds { return l.P999 }),
		{"server_cpu", "seconds", false, func(r *result.Round) (float64, bool) { return known(r.ServerCPU) }},
		{"driver_cpu", "seconds", false, func(r *result.Round) (float64, bool) { return known(r.DriverCPU) }},
		{"server_rss", "bytes", false, func(r *result.Round) (float64, bool) { return known(r.ServerRSS) }},
	}
}

// minRounds is how many rounds each run needs. With three, the bounds leave out 12 of 100 changes
// by chance, with five no more than 5.
const minRounds = 5

// Compare compares two runs by their rounds. A change that is smaller than the share atLeast, such
// as 0.01, does not count.
func Compare(nameBefore string, before *result.Report, nameAfter string, after *result.Report, atLeast float64) *result.Comparison {
	c := &result.Comparison{Schema: result.SchemaComparison, Before: side(nameBefore, before), After: side(nameAfter, after),
		Verdict: result.CannotTell, Faults: after.Faults.Total(), Warnings: append(troubles(nameBefore, before), troubles(nameAfter, after)...)}
	c.Warnings = append(c.Warnings, warnings(before, after)...)
	for _, f := range figures() {
		a, b := f.values(before), f.values(after)
		if len(a) == 0 || len(b) == 0 {
			continue
		}
		c.Changes = append(c.Changes, f.compare(a, b, atLeast))
	}
	for _, change := range c.Changes {
		switch {
		case change.Trend == result.Worse:
			c.Verdict = result.Worse
		case change.Trend == result.Better && c.Verdict != result.Worse:
			c.Verdict = result.Better
		}
	}
	if c.Faults > 0 {
		c.Verdict = result.Worse
	}
	return c
}

func side(name string, r *result.Report) result.Side {
	return result.Side{Name: name, Rounds: len(r.Rounds), Config: r.Config, Machine: r.Machine, Versions: r.Versions}
}

func (f *figure) values(r *result.Report) (all result.Rounds) {
	for i := range r.Rounds {
		if v, ok := f.of(&r.Rounds[i]); ok {
			all = append(all, v)
		}
	}
	return all
}

func (f *figure) compare(a, b result.Rounds, atLeast float64) result.Change {
	c := result.Change{Metric: f.name, Unit: f.unit, Before: result.Median(a), After: result.Median(b), Trend: result.CannotTell, All: [2]result.Rounds{a, b}}
	if c.Before == 0 {
		return c
	}
	c.Ratio = c.After / c.Before
	c.Low, c.High = bounds(a, b)
	if len(a) < minRounds || len(b) < minRounds {
		return c
	}
	switch more := c.Low > 1 && c.Ratio >= 1+atLeast; {
	case more == f.moreIsBetter && (more || c.High < 1 && c.Ratio <= 1-atLeast):
		c.Trend = result.Better
	case more || c.High < 1 && c.Ratio <= 1-atLeast:
		c.Trend = result.Worse
	}
	return c
}

// bounds returns between which ratios of the medians lie 95 of 100 ratios of samples that are drawn
// from the rounds (the bootstrap). The draws are the same each time.
func bounds(a, b result.Rounds) (low, high float64) {
	const draws = 4000
	rng := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, 0, draws)
	sample := func(from result.Rounds) float64 {
		drawn := make(result.Rounds, len(from))
		for i := range drawn {
			drawn[i] = from[rng.IntN(len(from))]
		}
		return result.Median(drawn)
	}
	for range draws {
		if base := sample(a); base > 0 {
			ratios = append(ratios, sample(b)/base)
		}
	}
	if len(ratios) == 0 {
		return 0, 0
	}
	slices.Sort(ratios)
	return ratios[len(ratios)*25/1000], ratios[len(ratios)*975/1000]
}

// troubles says why the figures of a run may mean little.
func troubles(name string, r *result.Report) []string {
	code, why := r.Verdict()
	if code == result.ExitOK || code == result.ExitThreshold {
		return nil // thresholds are about one run
	}
	return []string{name + ": " + why}
}

// warnings says in what the two runs differ although they should not.
func warnings(before, after *result.Report) (list []string) {
	differ := func(what string, a, b any) {
		if a, b := fmt.Sprint(a), fmt.Sprint(b); a != b {
			list = append(list, fmt.Sprintf("%s differs: %s before, %s after", what, cmp.Or(a, "none"), cmp.Or(b, "none")))
		}
	}
	a, b := &before.Config, &after.Config
	differ("the driver", a.Driver, b.Driver)
	differ("the number of connections", a.Conns, b.Conns)
	differ("the number of IDs per connection", a.IDsPerConn, b.IDsPerConn)
	differ("the payload", a.Payload, b.Payload)
	differ("whether messages are acked", a.Ack, b.Ack)
	differ("the window", a.Window, b.Window)
	differ("the rate asked for", a.Rate, b.Rate)
	differ("the list of stages", a.Stages, b.Stages)
	differ("when messages start (arrivals)", a.Arrivals, b.Arrivals)
	differ("the mix of payloads", a.Payloads, b.Payloads)
	differ("the popularity of receivers (zipf)", a.Zipf, b.Zipf)
	differ("the share of offline receivers", a.Offline, b.Offline)
	differ("the delay of acks", a.AckDelay, b.AckDelay)
	differ("the churn of binds", a.ChurnBinds, b.ChurnBinds)
	differ("the churn of moves", a.ChurnMoves, b.ChurnMoves)
	differ("the churn of reconnects", a.ChurnReconnects, b.ChurnReconnects)
	differ("the share of messages to another node", share(a.Cross), share(b.Cross))
	differ("the script of faults", a.Script, b.Script)
	differ("the number of agents", len(before.Agents), len(after.Agents))
	differ("the number of loops", loops(a), loops(b))
	differ("the fanout", a.Fanout, b.Fanout)
	differ("TLS", a.TLS, b.TLS)
	differ("the number of nodes", len(a.Nodes), len(b.Nodes))
	differ("whether the node runs in the driver's process", a.InProcess, b.InProcess)
	m, n := &before.Machine, &after.Machine
	differ("the machine", strings.TrimSpace(m.Host+" "+m.CPU), strings.TrimSpace(n.Host+" "+n.CPU))
	differ("the kernel", m.Kernel, n.Kernel)
	differ("the number of cores of the driver", m.Allowed, n.Allowed)
	if rounds := min(len(before.Rounds), len(after.Rounds)); rounds < minRounds {
		list = append(list, fmt.Sprintf("too few rounds, %d in one run: without at least %d in each nobody knows the noise (run --rounds %d)", rounds, minRounds, minRounds))
	}
	return list
}

// share is a share that may be left to chance.
func share(s *float64) string {
	if s == nil {
		return "by chance"
	}
	return fmt.Sprint(*s)
}

// loops returns the number of event loops of the node in the driver's process; 0: it is elsewhere.
func loops(c *result.Settings) int {
	if !c.InProcess {
		return 0
	}
	return c.Loops
}
