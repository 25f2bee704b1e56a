package result

import (
	"maps"
	"slices"
)

// A Round is the figures of one of several runs that are alike.
type Round struct {
	Measured  Seconds  `json:"measured_seconds"`
	Rate      *float64 `json:"rate_per_second"`
	Latency   *Latency `json:"latency_seconds"`
	DriverCPU *Seconds `json:"driver_cpu_seconds_per_message"`
	ServerCPU *Seconds `json:"server_cpu_seconds_per_message"`
	ServerRSS *uint64  `json:"server_rss_bytes"`
	Sent      uint64   `json:"sent"`
	Delivered uint64   `json:"delivered"`
	Acked     uint64   `json:"acked"`
	Unsent    uint64   `json:"unsent"`
	Faults    uint64   `json:"faults"` // of all kinds
}

// Round returns the figures of a report as those of one round.
func (r *Report) Round() Round {
	return Round{Measured: r.Measured, Rate: r.Rate, Latency: r.Latency, DriverCPU: r.DriverCPU, ServerCPU: r.ServerCPU, ServerRSS: r.ServerRSS,
		Sent: r.Sent, Delivered: r.Delivered, Acked: r.Acked, Unsent: r.Unsent, Faults: r.Faults.Total()}
}

// Merge makes one report of several runs with the same configuration, the rounds. Counts are the
// sums of all rounds. Rate, latency and CPU are medians. The timelines follow each other. Merge
// changes none of the reports. There is at least one.
func Merge(rounds ...*Report) *Report {
	merged := rounds[0].empty()
	for _, r := range rounds {
		merged.add(r)
	}
	merged.Agents = mergeAgents(rounds)
	merged.Rate = median(rounds, func(r *Report) *float64 { return r.Rate })
	merged.DriverCPU = median(rounds, func(r *Report) *Seconds { return r.DriverCPU })
	merged.ServerCPU = median(rounds, func(r *Report) *Seconds { return r.ServerCPU })
	merged.ServerRSS = median(rounds, func(r *Report) *uint64 { return r.ServerRSS })
	merged.Latency = medianLatency(rounds)
	return merged
}

// empty returns a copy without what add adds.
func (r *Report) empty() *Report {
	merged := *r
	merged.Outcomes, merged.Errors = map[string]uint64{}, map[string]uint64{}
	merged.Slowest = map[string]Seconds{}
	merged.Timeline, merged.Distribution, merged.Rounds, merged.Silent = nil, nil, nil, nil
	merged.Sent, merged.Delivered, merged.Acked, merged.Unsent, merged.Unanswered = 0, 0, 0, 0, 0
	merged.LostConnections, merged.DownConnections, merged.Moves, merged.Drains = 0, 0, 0, 0
	merged.ExpectedNoRoute, merged.Completed = 0, 0
	merged.Faults, merged.Measured, merged.Landing, merged.MaxSilence = Faults{}, 0, 0, 0
	return &merged
}

// add adds the counts of another round, or of another agent.
func (r *Report) add(other *Report) {
	r.Sent, r.Delivered, r.Acked = r.Sent+other.Sent, r.Delivered+other.Delivered, r.Acked+other.Acked
	r.Unsent, r.Unanswered = r.Unsent+other.Unsent, r.Unanswered+other.Unanswered
	r.ExpectedNoRoute, r.Completed = r.ExpectedNoRoute+other.ExpectedNoRoute, r.Completed+other.Completed
	r.LostConnections, r.DownConnections = r.LostConnections+other.LostConnections, r.DownConnections+other.DownConnections
	r.Moves, r.Drains = r.Moves+other.Moves, r.Drains+other.Drains
	r.Faults.add(&other.Faults)
	r.Partial = r.Partial || other.Partial
	r.Measured += other.Measured
	r.Landing = max(r.Landing, other.Landing)
	if r.DrainCut == "" {
		r.DrainCut = other.DrainCut
	}
	if r.ServerError == "" {
		r.ServerError = other.ServerError
	}
	for word, n := range other.Outcomes {
		r.Outcomes[word] += n
	}
	for what, n := range other.Errors {
		r.Errors[what] += n
	}
	for word, t := range other.Slowest {
		r.Slowest[word] = max(r.Slowest[word], t)
	}
	for _, node := range other.Silent {
		if !slices.Contains(r.Silent, node) {
			r.Silent = append(r.Silent, node)
		}
	}
	later := Of(other.Begun.Sub(r.Begun))
	if other.MaxSilence > r.MaxSilence {
		r.MaxSilence, r.MaxSilenceAt = other.MaxSilence, other.MaxSilenceAt+later
	}
	for _, p := range other.Timeline {
		p.At += later
		p.Round = len(r.Rounds) + 1
		r.Timeline = append(r.Timeline, p)
	}
	r.Distribution = addBars(r.Distribution, other.Distribution)
	r.Rounds = append(r.Rounds, other.Round())
}

func (f *Faults) add(other *Faults) {
	f.Missing += other.Missing
	f.FalseAcked += other.FalseAcked
	f.FalseUndelivered += other.FalseUndelivered
	f.DoubleOutcome += other.DoubleOutcome
	f.Duplicated += other.Duplicated
	f.Reordered += other.Reordered
	f.Misrouted += other.Misrouted
	f.Corrupted += other.Corrupted
	f.FalseNoRoute += other.FalseNoRoute
	f.FalseDenied += other.FalseDenied
}

// addBars adds two distributions. Their bars end at the same limits, or lack.
func addBars(a, b []Bar) []Bar {
	sum := make(map[Seconds]int64)
	for _, bar := range slices.Concat(a, b) {
		sum[bar.UpTo] += bar.Count
	}
	var bars []Bar
	for _, limit := range slices.Sorted(maps.Keys(sum)) {
		bars = append(bars, Bar{UpTo: limit, Count: sum[limit]})
	}
	return bars
}

// median returns the median of a figure over the rounds that have it, or nil if none has it.
func median[T number](rounds []*Report, figure func(*Report) *T) *T {
	var all []T
	for _, r := range rounds {
		if v := figure(r); v != nil {
			all = append(all, *v)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return new(Median(all))
}

type number interface{ float64 | Seconds | uint64 }

// Median returns the median of values, of which there is at least one. It keeps their order. Any
// goroutine may call it.
func Median[T number](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	low, high := sorted[(len(sorted)-1)/2], sorted[len(sorted)/2]
	return low + (high-low)/2
}

func medianLatency(rounds []*Report) *Latency {
	var l Latency
	for _, of := range (Latency{}).names() {
		v := median(rounds, func(r *Report) *Seconds {
			if r.Latency == nil {
				return nil
			}
			return of(r.Latency)
		})
		if v == nil {
			return nil
		}
		*of(&l) = *v
	}
	return &l
}

// names returns how to reach each percentile.
func (Latency) names() []func(*Latency) *Seconds {
	return []func(*Latency) *Seconds{
		func(l *Latency) *Seconds { return &l.P50 },
		func(l *Latency) *Seconds { return &l.P90 },
		func(l *Latency) *Seconds { return &l.P99 },
		func(l *Latency) *Seconds { return &l.P999 },
		func(l *Latency) *Seconds { return &l.Max },
	}
}
