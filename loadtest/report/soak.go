package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"distmsg/loadtest/result"
)

// OfSoak makes the page of a soak.
func OfSoak(s *result.Soak) *Page {
	p := &Page{Title: "Soak, " + s.Begun.UTC().Format("2006-01-02 15:04:05 UTC"), Subtitle: s.Config.Describe(), Verdict: soakVerdict(s)}
	for i := range s.Trends {
		row := s.Trends[i].Row()
		p.Tiles = append(p.Tiles, Tile{row[0], row[3] + "/h", row[6]})
	}
	if len(s.Samples) > 0 {
		p.Charts = soakCharts(s)
	}
	trends := Table{Caption: "Trends", Head: result.SoakHead()}
	for i := range s.Trends {
		trends.Rows = append(trends.Rows, s.Trends[i].Row())
	}
	p.Tables = append(p.Tables, trends)
	if s.End != nil {
		p.Tables = append(p.Tables, ledgerTable(s.End), outcomeTable(s.End))
		if len(s.End.Thresholds) > 0 {
			p.Tables = append(p.Tables, thresholdTable(s.End))
		}
	}
	about := &result.Report{Machine: s.Machine, Versions: s.Versions, Config: s.Config}
	p.Tables = append(p.Tables, machineTable(about), configTable(about))
	p.Notes = append(p.Notes, fmt.Sprintf("Trends are of the samples from %s on. The slope is the median of those between all pairs of samples, "+
		"and its bounds hold it in 95 of 100 cases.", s.Settled.Duration().Round(time.Second)))
	return p
}

func soakVerdict(s *result.Soak) Verdict {
	v := Verdict{Bad, s.Summary()}
	code, _ := s.Verdict()
	switch {
	case code == result.ExitInterrupted || code == result.ExitFailure && s.End == nil:
		v.Mood = Unclear
	case code == result.ExitOK:
		v.Mood = Good
		for i := range s.Trends {
			if s.Trends[i].Why != "" {
				v.Mood = Unclear
			}
		}
	}
	return v
}

// soakCharts draws what may grow, rate and outcomes against time.
func soakCharts(s *result.Soak) []Chart {
	latency := Chart{ID: "latency", Title: "Latency", Hint: "on a logarithmic scale", Y: Axis{Name: "latency", Unit: "s", Log: true},
		Lines: []Line{{Name: "p50"}, {Name: "p99"}, {Name: "p99.9"}}}
	memory := Chart{ID: "memory", Title: "Memory", Hint: "resident, in MiB", Y: Axis{Name: "MiB"}, Lines: processLines()}
	files := Chart{ID: "files", Title: "Open files", Y: Axis{Name: "files"}, Lines: processLines()}
	goroutines := Chart{ID: "goroutines", Title: "Goroutines", Y: Axis{Name: "goroutines"}, Lines: processLines()}
	rate := Chart{ID: "rate", Title: "Rate and outcomes", Hint: "per second", Y: Axis{Name: "messages", Unit: "/s"}, Lines: []Line{{Name: s.Config.Unit()}}}
	words := soakOutcomes(s)
	for _, word := range words {
		rate.Lines = append(rate.Lines, Line{Name: word})
	}
	x := Axis{Name: "time", Unit: "s"}
	for i := range s.Samples {
		sample := &s.Samples[i]
		x.Values = append(x.Values, math.Round(float64(sample.At+sample.Length)*1e3)/1e3)
		none := Value(math.NaN())
		if l := sample.Latency; l != nil {
			add(&latency, Value(l.P50), Value(l.P99), Value(l.P999))
		} else {
			add(&latency, none, none, none)
		}
		server := sample.Server
		if server == nil {
			server = new(result.Usage)
		}
		tool := &sample.Tool
		add(&memory, known(server.RSS)/(1<<20), known(tool.RSS)/(1<<20))
		add(&files, known(server.FDs), known(tool.FDs))
		add(&goroutines, known(server.Goroutines), known(tool.Goroutines))
		per := func(n uint64) Value { return Value(float64(n) / max(float64(sample.Length), 1e-9)) }
		values := []Value{per(sample.Completed)}
		for _, word := range words {
			values = append(values, per(sample.Outcomes[word]))
		}
		add(&rate, values...)
	}
	charts := []Chart{memory, files, goroutines, latency, rate}
	marks := soakMarks(s)
	for i := range charts {
		charts[i].Lines = slices.DeleteFunc(charts[i].Lines, isUnknown)
		charts[i].Kind, charts[i].X, charts[i].Marks = Lines, x, marks
	}
	return charts
}

// isUnknown reports whether nothing was measured for the line.
func isUnknown(l Line) bool {
	return !slices.ContainsFunc(l.Values, func(v Value) bool { return !math.IsNaN(float64(v)) })
}

func processLines() []Line { return []Line{{Name: "server"}, {Name: "load test"}} }

func known(v *uint64) Value {
	if v == nil {
		return Value(math.NaN())
	}
	return Value(*v)
}

// soakOutcomes lists the outcomes that occurred, besides acked.
func soakOutcomes(s *result.Soak) []string {
	words := make(map[string]bool)
	for i := range s.Samples {
		for word := range s.Samples[i].Outcomes {
			words[word] = true
		}
	}
	delete(words, "acked")
	return slices.Sorted(maps.Keys(words))
}

// soakMarks returns when the ledger found faults, connections were lost, and sessions moved.
func soakMarks(s *result.Soak) []Mark {
	points := &result.Report{Config: s.Config}
	for i := range s.Samples {
		points.Timeline = append(points.Timeline, s.Samples[i].Point)
	}
	return marksOf(points)
}
