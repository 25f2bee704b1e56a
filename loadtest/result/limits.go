package result

import (
	"fmt"
	"math"
	"strings"
)

// Why says why a run does not keep the limits. It is empty if the run keeps them.
func (l *Limits) Why(r *Report) string {
	if n := r.Faults.Total(); n > 0 {
		return fmt.Sprintf("%d ledger faults", n)
	}
	if missed := r.missed(); len(missed) > 0 {
		return strings.Join(missed, "; ")
	}
	if r.Latency == nil || r.Rate == nil {
		return "no message was delivered"
	}
	if l.P99 > 0 && r.Latency.P99 > l.P99 {
		return fmt.Sprintf("p99 is %s, more than %s", r.Latency.P99, l.P99)
	}
	if asked, slack := l.asked(r); *r.Rate < asked-slack {
		return fmt.Sprintf("only %.0f of %.0f messages/s completed", *r.Rate, asked)
	}
	switch {
	case len(r.Errors) > 0:
		return "unexpected errors: " + nonZero(r.Errors)
	case r.DownConnections > 0:
		return fmt.Sprintf("%d connections did not come back", r.DownConnections)
	}
	failed := r.Unsent + r.Unanswered
	for word, n := range r.Outcomes {
		if word != "acked" {
			failed += n
		}
	}
	failed -= r.ExpectedNoRoute
	if share := float64(failed) / float64(max(r.Sent+r.Unsent, 1)); share > l.Failed {
		return fmt.Sprintf("%.2g%% of the messages were not acked or not sent", share*100)
	}
	return ""
}

// asked returns how many messages a second of an open loop must complete, but for slack. With
// chance in when they start, or in whether there is a receiver, the slack also allows for three
// standard deviations.
func (l *Limits) asked(r *Report) (rate, slack float64) {
	c := &r.Config
	rate = c.Rate * float64(max(c.Fanout, 1)) * (1 - c.Offline)
	slack = rate * l.Behind
	if random := c.Arrivals == "poisson" || c.Offline > 0; random && r.Measured > 0 {
		slack += 3 * math.Sqrt(rate/float64(r.Measured))
	}
	return rate, slack
}

// String says what a step must keep.
func (l *Limits) String() string {
	text := "A step holds if its ledger is clean, "
	if l.P99 > 0 {
		text += fmt.Sprintf("its p99 is at most %s, ", l.P99)
	}
	text += fmt.Sprintf("at most %g%% of the messages end other than acked or are not sent in time, and the rate is at most %g%% behind what was asked",
		l.Failed*100, l.Behind*100)
	if len(l.FailIf) > 0 {
		text += ", and if none of these holds: " + strings.Join(l.FailIf, "; ")
	}
	return text + "."
}
