package result

import "fmt"

// Why says why a run does not keep the limits. It is empty if the run keeps them.
func (l *Limits) Why(r *Report) string {
	if n := r.Faults.Total(); n > 0 {
		return fmt.Sprintf("%d ledger faults", n)
	}
	if r.Latency == nil || r.Rate == nil {
		return "no message was delivered"
	}
	if l.P99 > 0 && r.Latency.P99 > l.P99 {
		return fmt.Sprintf("p99 is %s, more than %s", r.Latency.P99, l.P99)
	}
	if asked := r.Config.Rate * float64(max(r.Config.Fanout, 1)); asked > 0 && *r.Rate < asked*(1-l.Behind) {
		return fmt.Sprintf("only %.0f of %.0f messages/s completed", *r.Rate, asked)
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
