package result

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ExitCode is the exit code of a program of this project.
type ExitCode int

// The exit codes of all programs of this project.
const (
	ExitOK        ExitCode = 0
	ExitFailure   ExitCode = 1 // the run, or something in it, failed
	ExitUsage     ExitCode = 2 // its flags or their values are wrong
	ExitLedger    ExitCode = 3 // the ledger has a fault
	ExitThreshold ExitCode = 4 // a threshold was not met
	ExitDrain     ExitCode = 5 // a drain cut something off

	ExitInterrupted ExitCode = 130 // Ctrl-C, or SIGTERM, ended it early
)

// Verdict returns the exit code of the run. Unless that is ExitOK, why is one line that gives the
// reason.
func (r *Report) Verdict() (code ExitCode, why string) {
	switch {
	case nonZero(r.allFaults()) != "":
		return ExitLedger, "the ledger has faults: " + nonZero(r.allFaults())
	case r.LostAgents() != "":
		return ExitFailure, r.LostAgents() + "; the report is of the other agents until then"
	case len(r.missed()) > 0:
		return ExitThreshold, "thresholds missed: " + strings.Join(r.missed(), "; ")
	case len(r.badEpisodes()) > 0 && !r.Partial:
		return ExitThreshold, strings.Join(r.badEpisodes(), "; ")
	case r.Partial:
		return ExitInterrupted, "interrupted; the report covers the time until then"
	case r.Unanswered > 0:
		return ExitFailure, fmt.Sprintf("%d messages had no answer yet after %.0f s of waiting, while others still got theirs",
			r.Unanswered, float64(r.Landing))
	case len(r.Errors) > 0:
		return ExitFailure, "unexpected errors: " + nonZero(r.Errors)
	case r.DownConnections > 0:
		return ExitFailure, fmt.Sprintf("%d connections were lost and did not come back", r.DownConnections)
	case r.Rate == nil || *r.Rate == 0:
		return ExitFailure, "no message was delivered in the measured time"
	case r.DrainCut != "":
		return ExitDrain, "the node's drain cut something off: " + r.DrainCut
	}
	return ExitOK, ""
}

// missed lists the thresholds that the run missed.
func (r *Report) missed() (list []string) {
	for _, t := range r.Thresholds {
		if t.Missed {
			list = append(list, fmt.Sprintf("%s (%s)", t.FailIf, t.Found))
		}
	}
	return list
}

// ByName returns the faults by their names in JSON.
func (f Faults) ByName() map[string]uint64 {
	return map[string]uint64{
		"missing": f.Missing, "false_acked": f.FalseAcked, "false_undelivered": f.FalseUndelivered,
		"double_outcome": f.DoubleOutcome, "duplicated": f.Duplicated, "reordered": f.Reordered,
		"misrouted": f.Misrouted, "corrupted": f.Corrupted, "false_no_route": f.FalseNoRoute,
		"false_denied": f.FalseDenied,
	}
}

// nonZero lists the counts that are not zero, in the order of their names.
func nonZero(counts map[string]uint64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			list = append(list, fmt.Sprintf("%s %d", name, counts[name]))
		}
	}
	return strings.Join(list, ", ")
}
