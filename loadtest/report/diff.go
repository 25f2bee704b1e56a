package report

import (
	"fmt"
	"math"
	"strings"

	"distmsg/loadtest/result"
)

// OfComparison makes the page of a comparison of two runs.
func OfComparison(c *result.Comparison) *Page {
	p := &Page{Title: "Load test, before and after", Subtitle: fmt.Sprintf("%s (%d rounds) against %s (%d rounds)",
		c.Before.Name, c.Before.Rounds, c.After.Name, c.After.Rounds), Verdict: moodOf(c)}
	for i := range c.Changes {
		change := &c.Changes[i]
		p.Tiles = append(p.Tiles, Tile{change.Metric, string(change.Trend), change.Percent()})
	}
	for i := range c.Changes {
		p.Charts = append(p.Charts, roundsChart(&c.Changes[i]))
	}
	t := Table{Caption: "Changes", Head: []string{"metric", "before", "after", "change", "bounds", "verdict"}}
	for i := range c.Changes {
		t.Rows = append(t.Rows, c.Changes[i].Row())
	}
	p.Tables = append(p.Tables, t, sidesTable(c))
	p.Notes = append(p.Notes, c.Warnings...)
	p.Notes = append(p.Notes, "The bounds hold 95 of 100 changes that the noise of the rounds makes likely. "+
		"A change whose bounds include 0 is within the noise: nobody can tell whether it is one.")
	return p
}

func moodOf(c *result.Comparison) Verdict {
	switch {
	case c.Faults > 0:
		return Verdict{Bad, fmt.Sprintf("Worse: the ledger of the later run has %d faults.", c.Faults)}
	case c.Verdict == result.Worse:
		return Verdict{Bad, "Worse."}
	case c.Verdict == result.Better:
		return Verdict{Good, "Better."}
	}
	return Verdict{Unclear, "Cannot tell: no change is larger than the noise."}
}

// roundsChart draws the values of all rounds of one metric.
func roundsChart(c *result.Change) Chart {
	unit := map[string]string{"seconds": "s", "per_second": "/s"}[c.Unit]
	chart := Chart{ID: "round-" + strings.Map(letters, c.Metric), Title: c.Metric, Hint: "each round; " + c.Percent(), Kind: Lines,
		X: Axis{Name: "round"}, Y: Axis{Name: c.Metric, Unit: unit}, Lines: []Line{{Name: "before"}, {Name: "after"}}}
	for i := range max(len(c.All[0]), len(c.All[1])) {
		chart.X.Values = append(chart.X.Values, float64(i+1))
		for side, values := range c.All {
			v := Value(math.NaN())
			if i < len(values) {
				v = Value(values[i])
			}
			chart.Lines[side].Values = append(chart.Lines[side].Values, v)
		}
	}
	return chart
}

func letters(r rune) rune {
	if r == '.' {
		return '-'
	}
	return r
}

func sidesTable(c *result.Comparison) Table {
	t := Table{Caption: "The two runs", Head: []string{"", "before", "after"}}
	row := func(name string, of func(*result.Side) string) {
		t.Rows = append(t.Rows, []string{name, of(&c.Before), of(&c.After)})
	}
	row("file", func(s *result.Side) string { return s.Name })
	row("rounds", func(s *result.Side) string { return fmt.Sprint(s.Rounds) })
	row("load", func(s *result.Side) string { return s.Config.Describe() })
	row("machine", func(s *result.Side) string { return strings.TrimSpace(s.Machine.Host + " " + s.Machine.CPU) })
	row("kernel", func(s *result.Side) string { return s.Machine.Kernel })
	row("driver", func(s *result.Side) string { return s.Versions.Driver })
	row("server", func(s *result.Side) string { return s.Versions.Server })
	return t
}
