package result

import (
	"fmt"
	"strings"
)

// An Agent is one of several processes that made a run together, with its part of the counts.
type Agent struct {
	Address   string   `json:"address"`
	Run       string   `json:"run"` // names its part of the run; part of its IDs
	Machine   Machine  `json:"machine"`
	Version   string   `json:"version"`
	Conns     int      `json:"conns"`
	Measured  Seconds  `json:"measured_seconds"`
	Sent      uint64   `json:"sent"`
	Delivered uint64   `json:"delivered"`
	Acked     uint64   `json:"acked"`
	Faults    uint64   `json:"faults"` // of all kinds
	Rate      *float64 `json:"rate_per_second"`
	Latency   *Latency `json:"latency_seconds"`
	DriverCPU *Seconds `json:"driver_cpu_seconds_per_message"`
	// ClockOffset is the agent's clock minus that of the coordinator when the run began, up to
	// ClockBound, which is half of the shortest round trip between them. ClockDrift is by how much
	// the offset grew until the end of the run, up to ClockDriftBound. It is null if the agent did
	// not answer any more.
	ClockOffset     Seconds  `json:"clock_offset_seconds"`
	ClockBound      Seconds  `json:"clock_bound_seconds"`
	ClockDrift      *Seconds `json:"clock_drift_seconds"`
	ClockDriftBound Seconds  `json:"clock_drift_bound_seconds"`
	// Failed says why the agent made no report. Its messages are then in the timeline until it
	// died, and in nothing else. Its Faults are those that it had found until then. It is empty if
	// there is a report.
	Failed string `json:"failed"`
	// Late is how long after the agreed moment messages began, by the agent's own clock.
	Late Seconds `json:"started_late_seconds"`
}

// String says in one line what an agent did.
func (a *Agent) String() string {
	if a.Failed != "" {
		return fmt.Sprintf("%s: %d connections, LOST: %s", a.Address, a.Conns, a.Failed)
	}
	rate := ""
	if a.Rate != nil {
		rate = fmt.Sprintf(", %.0f/s", *a.Rate)
	}
	return fmt.Sprintf("%s (%s): %d connections, sent %d, delivered %d%s, faults %d; its clock is known to %s%s, it began %s late",
		a.Address, a.Machine.Host, a.Conns, a.Sent, a.Delivered, rate, a.Faults, a.ClockBound, a.drift(), a.Late)
}

// LostAgents says which agents died, and why. It is empty if none did.
func (r *Report) LostAgents() string {
	var list []string
	for i := range r.Agents {
		if a := &r.Agents[i]; a.Failed != "" {
			list = append(list, a.Failed)
		}
	}
	return strings.Join(list, "; ")
}

// allFaults returns the faults by kind, with those that agents had found before they died.
func (r *Report) allFaults() map[string]uint64 {
	faults := r.Faults.ByName()
	for i := range r.Agents {
		if a := &r.Agents[i]; a.Failed != "" && a.Faults > 0 {
			faults["of "+a.Address+" until it died"] = a.Faults
		}
	}
	return faults
}

// muchDrift is the drift from which on a part of the load counts in the wrong second.
const muchDrift = Seconds(0.1)

// drift says how far the agent's clock moved against that of the coordinator.
func (a *Agent) drift() string {
	if a.ClockDrift == nil {
		return " (its drift is not known: it did not answer at the end)"
	}
	drift := max(*a.ClockDrift, -*a.ClockDrift)
	text := fmt.Sprintf(" and drifted by %s (±%s)", drift, a.ClockDriftBound)
	switch {
	case drift <= a.ClockDriftBound:
		text = fmt.Sprintf(" and drifted by %s at most", drift+a.ClockDriftBound)
	case drift-a.ClockDriftBound > muchDrift:
		text += ", so that some of its messages count in the wrong second"
	}
	return text
}

// Together makes one report of those of several agents that made one run at the same time. Counts
// and rates are sums. It takes the configuration of the first. What histograms are needed for, the
// latency and the distribution, and the timeline are left to the caller. There is at least one
// part.
func Together(parts []*Report, agents []Agent) *Report {
	all := parts[0].empty()
	all.Rate, all.DriverCPU, all.Cross = nil, nil, nil
	var runs []string
	var cpu, crossed float64
	var longest Seconds
	for _, r := range parts {
		all.add(r)
		longest = max(longest, r.Measured)
		runs = append(runs, r.Config.Run)
		if r.Rate != nil {
			all.Rate = plus(all.Rate, *r.Rate)
		}
		if r.DriverCPU != nil {
			cpu += float64(r.Completed) * float64(*r.DriverCPU)
		}
		if r.Cross != nil {
			crossed += *r.Cross * float64(r.Sent)
			all.Cross = new(crossed / float64(max(all.Sent, 1)))
		}
	}
	all.DriverCPU = PerMessage(Seconds(cpu).Duration(), all.Completed)
	all.Measured = longest
	all.Config.Run = strings.Join(runs, ",")
	all.Agents, all.Rounds = agents, nil
	return all
}

func plus(sum *float64, v float64) *float64 {
	if sum != nil {
		v += *sum
	}
	return &v
}

// mergeAgents adds what each agent did in all rounds. Rates and latencies are those of the rounds
// only.
func mergeAgents(rounds []*Report) []Agent {
	var all []Agent
	for _, r := range rounds {
		for i := range r.Agents {
			a := r.Agents[i]
			a.Rate, a.Latency, a.DriverCPU = nil, nil, nil
			if i >= len(all) {
				all = append(all, a)
				continue
			}
			sum := &all[i]
			if sum.Failed == "" {
				sum.Failed = a.Failed
			}
			sum.Sent, sum.Delivered, sum.Acked, sum.Faults = sum.Sent+a.Sent, sum.Delivered+a.Delivered, sum.Acked+a.Acked, sum.Faults+a.Faults
			sum.ClockBound, sum.Late = max(sum.ClockBound, a.ClockBound), max(sum.Late, a.Late)
			sum.ClockDrift, sum.ClockDriftBound = larger(sum.ClockDrift, a.ClockDrift), max(sum.ClockDriftBound, a.ClockDriftBound)
		}
	}
	return all
}

// larger returns the drift that is further from 0, or nil if one of them is not known.
func larger(a, b *Seconds) *Seconds {
	if a == nil || b == nil {
		return nil
	}
	if max(*b, -*b) > max(*a, -*a) {
		return b
	}
	return a
}
