package judge

import (
	"fmt"
	"slices"
	"strings"

	"distmsg/codec"
	"distmsg/loadtest/result"
)

// ofEpisode returns the part of a report that is about one of its episodes.
func ofEpisode(e *result.Episode) *result.Report {
	r := &result.Report{Latency: e.Latency, Rate: &e.Rate, Outcomes: e.Outcomes, Episodes: []result.Episode{*e}}
	for _, n := range e.Outcomes {
		r.Sent += n
	}
	return r
}

// inEpisodes reports whether the metric is known of a single episode.
func inEpisodes(name string) bool {
	return slices.Contains([]string{"rate", "p50", "p90", "p99", "p99.9", "max", "recovery"}, name) ||
		slices.ContainsFunc(codec.Outcomes(), func(code codec.Code) bool { return code.String() == name })
}

// recovery returns the longest time that the receivers took to recover from a fault.
func recovery(r *result.Report) (longest float64, known bool) {
	for i := range r.Episodes {
		switch e := &r.Episodes[i]; {
		case e.Recovery == nil:
		case e.MissingReceivers > 0:
			return 0, false
		default:
			longest, known = max(longest, float64(*e.Recovery)), true
		}
	}
	return longest, known
}

// splitEpisode cuts the name of an episode from a condition, as in "kill-node 2: p99>2s".
func splitEpisode(text string) (episode, condition string) {
	if before, after, found := strings.Cut(text, ":"); found {
		return strings.TrimSpace(before), after
	}
	return "", text
}

// judgeEpisodes says whether the condition holds in an episode whose name begins as it names it.
func (c Condition) judgeEpisodes(r *result.Report) result.Threshold {
	t := result.Threshold{FailIf: c.text, Missed: true, Found: fmt.Sprintf("there is no episode %q", c.episode)}
	found := false
	for i := range r.Episodes {
		e := &r.Episodes[i]
		if !strings.HasPrefix(e.Name, c.episode) || c.name == "recovery" && e.Recovery == nil {
			continue
		}
		if one := c.judge(ofEpisode(e)); !found || one.Missed {
			t.Missed, t.Found = one.Missed, e.Name+": "+one.Found
		}
		if found = true; t.Missed {
			break
		}
	}
	return t
}
