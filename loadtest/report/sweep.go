package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"distmsg/loadtest/result"
)

// OfSweep makes the page of a sweep.
func OfSweep(s *result.Sweep) *Page {
	p := &Page{Title: "Load test, sweep of " + s.Of, Subtitle: s.Config.Describe(), Verdict: Verdict{Unclear, s.Summary()}}
	switch {
	case s.Faults > 0:
		p.Verdict.Mood = Bad
	case s.Knee != nil:
		p.Verdict.Mood = Good
	}
	latency := Chart{ID: "latency", Title: "Latency against " + s.Of, Kind: Lines, X: Axis{Name: s.Of}, Y: Axis{Name: "latency", Unit: "s", Log: true},
		Lines: []Line{{Name: "p50"}, {Name: "p99"}, {Name: "p99.9"}}}
	rate := Chart{ID: "rate", Title: "Messages per second against " + s.Of, Kind: Lines, X: Axis{Name: s.Of}, Y: Axis{Name: "messages", Unit: "/s"},
		Lines: []Line{{Name: s.Config.Unit()}}}
	for i := range s.Steps {
		step := &s.Steps[i]
		if step.Latency == nil || step.Rate == nil {
			continue
		}
		latency.X.Values = append(latency.X.Values, step.Value)
		add(&latency, Value(step.Latency.P50), Value(step.Latency.P99), Value(step.Latency.P999))
		add(&rate, Value(*step.Rate))
	}
	rate.X.Values = latency.X.Values
	if s.Knee != nil {
		mark := Mark{*s.Knee, fmt.Sprintf("the knee, %s %s", s.Of, strconv.FormatFloat(*s.Knee, 'f', -1, 64)), Good}
		latency.Marks, rate.Marks = []Mark{mark}, []Mark{mark}
	}
	if len(rate.X.Values) > 0 {
		p.Charts = append(p.Charts, latency, rate)
	}
	p.Notes = append(p.Notes, s.Limits.String())
	run := result.Report{Machine: s.Machine, Versions: s.Versions, Config: s.Config}
	p.Tables = append(p.Tables, stepTable(s), machineTable(&run), configTable(&run))
	return p
}

func stepTable(s *result.Sweep) Table {
	t := Table{Caption: "Steps", Head: append(result.StepHead(s.Of), "outcomes")}
	for i := range s.Steps {
		step := &s.Steps[i]
		outcomes := ""
		for _, word := range slices.Sorted(maps.Keys(step.Outcomes)) {
			outcomes += fmt.Sprintf("%s %d ", word, step.Outcomes[word])
		}
		t.Rows = append(t.Rows, append(step.Row(), outcomes))
	}
	return t
}
