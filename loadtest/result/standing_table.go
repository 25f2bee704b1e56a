package result

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Grid is a table of a Standing as text.
type Grid struct {
	Title string
	Head  []string
	Rows  [][]string
}

// Grids returns a table for all shapes that were measured at the same servers. It has the figure
// of each server, and the ratios with their aims.
func (s *Standing) Grids() []Grid {
	var grids []Grid
	for i := range s.Shapes {
		shape := &s.Shapes[i]
		head := shape.head()
		if last := len(grids) - 1; last < 0 || !slices.Equal(grids[last].Head, head) {
			grids = append(grids, Grid{Title: shape.Metric.title(), Head: head})
		}
		last := len(grids) - 1
		grids[last].Rows = append(grids[last].Rows, shape.row())
	}
	return grids
}

// title says what the figures are.
func (m Metric) title() string {
	if m == P99 {
		return "p99 of the latency in ms"
	}
	return "CPU of the server in µs per message"
}

// Figure returns a value as text: CPU in µs, latency in ms.
func (m Metric) Figure(v Seconds) string {
	scaled := float64(v) * 1e6
	if m == P99 {
		scaled = float64(v) * 1e3
	}
	switch {
	case v == 0:
		return "–"
	case scaled >= 100:
		return fmt.Sprintf("%.0f", scaled)
	case scaled >= 10:
		return fmt.Sprintf("%.1f", scaled)
	}
	return fmt.Sprintf("%.2f", scaled)
}

func (s *Shape) head() []string {
	head := []string{"load"}
	for i := range s.Entries {
		head = append(head, s.Entries[i].Server)
	}
	for i := range s.Ratios {
		head = append(head, s.Ratios[i].Of+" to "+s.Ratios[i].To, "rounds", "aim", "")
	}
	return head
}

func (s *Shape) row() []string {
	row := []string{s.Title}
	for i := range s.Entries {
		row = append(row, s.Metric.Figure(s.Entries[i].Median(s.Metric)))
	}
	for i := range s.Ratios {
		value, spread, aim, verdict := s.Ratios[i].Judgement()
		row = append(row, value, spread, aim, verdict)
	}
	return row
}

// Details returns the table of all other figures.
func (s *Standing) Details() Grid {
	g := Grid{Title: "All figures", Head: []string{"load", "server", "messages/s", "server CPU, µs", "driver CPU, µs", "p50, ms", "p99, ms"}}
	for i := range s.Shapes {
		shape := &s.Shapes[i]
		for j := range shape.Entries {
			e := &shape.Entries[j]
			rate := "–"
			if e.Rate != nil {
				rate = fmt.Sprintf("%.0f", *e.Rate)
			}
			cell := func(m Metric, v *Seconds) string {
				if v == nil {
					return "–"
				}
				return m.Figure(*v)
			}
			g.Rows = append(g.Rows, []string{shape.Title, e.Server, rate, cell(ServerCPU, e.ServerCPU), cell(ServerCPU, e.DriverCPU), cell(P99, e.P50), cell(P99, e.P99)})
		}
	}
	return g
}

// About says in one line what was measured where.
func (s *Standing) About() string { return strings.Join(s.about(), " ") }

// about returns the sentences of About.
func (s *Standing) about() []string {
	pinning := s.Pinning
	if pinning == "" {
		pinning = "nobody pinned to a CPU"
	}
	var servers []string
	for _, server := range s.Servers {
		servers = append(servers, strings.TrimSpace(server.Name+" "+server.Version))
	}
	rounds := fmt.Sprintf("Medians of %d rounds", s.Rounds)
	if s.Rounds == 1 {
		rounds = "One round"
	}
	return []string{
		fmt.Sprintf("%s, %d cores, Linux %s, %s.", s.Machine.CPU, s.Machine.Cores, s.Machine.Kernel, s.Begun.UTC().Format("2006-01-02")),
		fmt.Sprintf("%s of %s; %s.", rounds, s.Seconds, pinning),
		strings.Join(servers, ", ") + ".",
	}
}

// WriteText writes the comparison as text for people.
func (s *Standing) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, s.About())
	for _, g := range s.Grids() {
		fmt.Fprintf(t, "\n%s:\n", g.Title)
		row(t, g.Head)
		for _, cells := range g.Rows {
			row(t, cells)
		}
	}
	if note := s.Note(); note != "" {
		fmt.Fprintf(t, "\nNote: %s\n", note)
	}
	fmt.Fprintf(t, "\n%s\n", s.Summary())
	return t.Flush()
}

// WriteMarkdown writes the tables as they stand in a document.
func (s *Standing) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintln(&b, strings.Join(s.about(), "\n"))
	for _, g := range append(s.Grids(), s.Details()) {
		fmt.Fprintf(&b, "\n%s:\n\n", g.Title)
		line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
		line(g.Head)
		line(slices.Repeat([]string{"---"}, len(g.Head)))
		for _, cells := range g.Rows {
			line(cells)
		}
	}
	if note := s.Note(); note != "" {
		fmt.Fprintf(&b, "\nNote: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
