package result

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// Percent returns the change as people read it, such as "+3.1%".
func (c *Change) Percent() string {
	if c.Before == 0 {
		return "–"
	}
	return percent(c.Ratio)
}

func percent(ratio float64) string { return fmt.Sprintf("%+.1f%%", (ratio-1)*100) }

// Row returns metric, before, after, change, bounds and verdict.
func (c *Change) Row() []string {
	return []string{c.Metric, format(c.Before, c.Unit), format(c.After, c.Unit), c.Percent(), percent(c.Low) + " to " + percent(c.High), string(c.Trend)}
}

func format(v float64, unit string) string {
	switch unit {
	case "seconds":
		return Seconds(v).String()
	case "bytes":
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	}
	return fmt.Sprintf("%.0f/s", v)
}

// WriteText writes the comparison as text for people.
func (c *Comparison) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "metric\t%s\t%s\tchange\tbounds\tverdict\n", c.Before.Name, c.After.Name)
	for i := range c.Changes {
		row(t, c.Changes[i].Row())
	}
	for _, warning := range c.Warnings {
		fmt.Fprintf(t, "note: %s\n", warning)
	}
	if c.Faults > 0 {
		fmt.Fprintf(t, "the ledger of %s has %d faults\n", c.After.Name, c.Faults)
	}
	fmt.Fprintf(t, "verdict: %s\n", c.Verdict)
	return t.Flush()
}

func row(w io.Writer, cells []string) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, cell)
	}
	fmt.Fprintln(w)
}

// StepHead names the cells of Step.Row.
func StepHead(of string) []string {
	return []string{of, "completed", "p50", "p99", "p99.9", "server CPU", "driver CPU", "verdict"}
}

// Row returns the step as text.
func (s *Step) Row() []string {
	cells := []string{strconv.FormatFloat(s.Value, 'f', -1, 64), "–", "–", "–", "–", "–", "–", "held"}
	if s.Rate != nil {
		cells[1] = fmt.Sprintf("%.0f/s", *s.Rate)
	}
	if l := s.Latency; l != nil {
		cells[2], cells[3], cells[4] = l.P50.String(), l.P99.String(), l.P999.String()
	}
	if s.ServerCPU != nil {
		cells[5] = s.ServerCPU.String()
	}
	if s.DriverCPU != nil {
		cells[6] = s.DriverCPU.String()
	}
	if !s.Held {
		cells[7] = s.Why
	}
	return cells
}

// Summary says in one line what the sweep found.
func (s *Sweep) Summary() string {
	text := "No step held"
	if len(s.Steps) == 0 {
		text = "No step was run"
	}
	if s.Knee != nil {
		text = fmt.Sprintf("The knee is at %s %s", s.Of, strconv.FormatFloat(*s.Knee, 'f', -1, 64))
		if *s.Knee == s.Steps[len(s.Steps)-1].Value {
			text = fmt.Sprintf("All steps held, up to %s %s: the knee is higher", s.Of, strconv.FormatFloat(*s.Knee, 'f', -1, 64))
		}
	}
	if s.Faults > 0 {
		text += fmt.Sprintf("; the ledger has %d faults", s.Faults)
	}
	if s.Partial {
		text += "; interrupted"
	}
	return text + "."
}

// WriteText writes the sweep as text for people.
func (s *Sweep) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, StepHead(s.Of))
	for i := range s.Steps {
		row(t, s.Steps[i].Row())
	}
	fmt.Fprintln(t, s.Summary())
	return t.Flush()
}
