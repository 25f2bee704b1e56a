package report

import (
	"fmt"
	"math"

	"distmsg/loadtest/result"
)

// OfStanding makes the page of a comparison with other servers.
func OfStanding(s *result.Standing) *Page {
	p := &Page{Title: "Load test, against other servers", Subtitle: s.About(), Verdict: standingMood(s)}
	for i := range s.Shapes {
		shape := &s.Shapes[i]
		for j := range shape.Ratios {
			if r := &shape.Ratios[j]; r.Aim > 0 {
				value, spread, aim, verdict := r.Judgement()
				p.Tiles = append(p.Tiles, Tile{shape.Title, value + "×", fmt.Sprintf("%s: %s to %s, aim %s, rounds %s", verdict, r.Of, r.To, aim, spread)})
			}
		}
		p.Charts = append(p.Charts, shapeChart(shape))
	}
	for _, g := range append(s.Grids(), s.Details()) {
		p.Tables = append(p.Tables, Table{Caption: g.Title, Head: g.Head, Rows: g.Rows})
	}
	p.Tables = append(p.Tables, loadsTable(s), machineTable(&result.Report{Machine: s.Machine}))
	p.Notes = append(p.Notes, "Figures are medians of the rounds; rounds is the lowest and the highest ratio within one round. "+
		"The floor is a relay without features on the same event loop: no IDs, no outcomes, no limits.")
	if note := s.Note(); note != "" {
		p.Notes = append(p.Notes, note)
	}
	return p
}

func standingMood(s *result.Standing) Verdict {
	code, _ := s.Verdict()
	v := Verdict{Bad, sentence(s.Summary())}
	switch {
	case code == result.ExitInterrupted || code == result.ExitOK && !s.Clear():
		v.Mood = Unclear
	case code == result.ExitOK:
		v.Mood = Good
	}
	return v
}

// shapeChart draws one bar for each server.
func shapeChart(s *result.Shape) Chart {
	name := "CPU of the server for a message"
	if s.Metric == result.P99 {
		name = "p99"
	}
	c := Chart{ID: "shape-" + s.Name, Title: s.Title, Hint: name, Kind: Bars, X: Axis{Name: "server"}, Y: Axis{Name: name, Unit: "s"}, Lines: []Line{{Name: name}}}
	for i := range s.Entries {
		v := Value(s.Entries[i].Median(s.Metric))
		if v == 0 {
			v = Value(math.NaN())
		}
		c.X.Values = append(c.X.Values, float64(i))
		c.Labels = append(c.Labels, s.Entries[i].Server)
		add(&c, v)
	}
	return c
}

// loadsTable says how to put the same loads on a server that runs.
func loadsTable(s *result.Standing) Table {
	t := Table{Caption: "Loads", Head: []string{"load", "name", "flags of run"}}
	for i := range s.Shapes {
		t.Rows = append(t.Rows, []string{s.Shapes[i].Title, s.Shapes[i].Name, s.Shapes[i].Flags})
	}
	return t
}
