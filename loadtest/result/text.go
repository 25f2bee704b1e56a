package result

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// WriteText writes the report as text for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	c := &r.Config
	line("run", "%s%s", c.Describe(), map[bool]string{true: " (interrupted)"}[r.Partial])
	if len(r.Silent) > 0 {
		line("nodes", "continued without these, which discovery lists but which do not answer: %s", strings.Join(r.Silent, ", "))
	}
	for i := range r.Agents {
		line("agent", "%s", r.Agents[i].String())
	}
	if r.Rate != nil {
		line("rate", "%.0f %s/s over %.1f s", *r.Rate, c.Unit(), float64(r.Measured))
	}
	if l := r.Latency; l != nil {
		line("latency", "p50 %s  p90 %s  p99 %s  p99.9 %s  max %s (%s)", l.P50, l.P90, l.P99, l.P999, l.Max, c.Path())
	}
	line("cpu", "%s", r.describeCPU())
	line("sent", "%d, delivered %d", r.Sent, r.Delivered)
	if len(r.Outcomes) > 0 {
		line("outcomes", "%s", nonZero(r.Outcomes))
	}
	if r.ExpectedNoRoute > 0 {
		line("expected", "%d of no_route, whose receivers nobody has bound", r.ExpectedNoRoute)
	}
	if len(r.Slowest) > 1 {
		var list []string
		for _, word := range slices.Sorted(maps.Keys(r.Slowest)) {
			list = append(list, fmt.Sprintf("%s %s", word, r.Slowest[word]))
		}
		line("slowest", "%s; %s without a delivery at one connection", strings.Join(list, ", "), r.MaxSilence)
	}
	if r.Landing >= 1 {
		line("landing", "%.1f s from the last send to the last answer", float64(r.Landing))
	}
	if r.Unsent > 0 {
		line("unsent", "%d were not sent in time", r.Unsent)
	}
	if r.LostConnections+r.Drains+r.Moves > 0 {
		line("connections", "%d lost, of them %d still down; nodes asked %d to leave, and %d moved",
			r.LostConnections, r.DownConnections, r.Drains, r.Moves)
	}
	if r.Cross != nil {
		line("cross", "%.1f%% of the messages went to another node", *r.Cross*100)
	}
	if len(r.Errors) > 0 {
		line("errors", "%s", nonZero(r.Errors))
	}
	switch {
	case nonZero(r.allFaults()) != "":
		line("ledger", "FAULTS: %s", nonZero(r.allFaults()))
	case r.LostAgents() != "":
		line("ledger", "NOT COMPLETE: nobody knows of the messages of agents that died; no fault among the others")
	case r.Unanswered > 0:
		line("ledger", "NOT COMPLETE: %d messages had no answer yet; no fault among the others", r.Unanswered)
	default:
		line("ledger", "clean: every message is accounted for")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return r.writeEpisodes(w)
}

// Line says in one line what happened in this time.
func (p *Point) Line() string {
	line := fmt.Sprintf("%5.1f s  %-9s  %9.0f/s  in flight %d  faults %d", float64(p.At+p.Length), p.Phase, p.Rate(), p.InFlight, p.Faults)
	if p.Latency != nil {
		line += fmt.Sprintf("  p50 %s  p99 %s", p.Latency.P50, p.Latency.P99)
	}
	if p.DownConnections > 0 {
		line += fmt.Sprintf("  connections down %d", p.DownConnections)
	}
	return line
}

// Describe says in one line what was sent where.
func (c *Settings) Describe() string {
	load := fmt.Sprintf("%d in flight on each", c.Window)
	switch {
	case c.Stages != "":
		load = fmt.Sprintf("messages/s in stages %s", c.Stages)
	case c.Rate > 0:
		load = fmt.Sprintf("%g messages/s", c.Rate)
	}
	if c.Arrivals == "poisson" {
		load += " at random"
	}
	if c.Fanout > 1 {
		load += fmt.Sprintf(", each to %d IDs", c.Fanout)
	}
	ack := "with ack"
	if !c.Ack {
		ack = "without ack"
	}
	where := strings.Join(c.Nodes, ",")
	if c.InProcess {
		where = fmt.Sprintf("a node in this process (loops: %d)", c.Loops)
	}
	if c.TLS {
		where += " over TLS"
	}
	payload := fmt.Sprintf("%d-byte payload", c.Payload)
	if c.Payloads != "" {
		payload = "payloads of " + c.Payloads + " bytes"
	}
	return fmt.Sprintf("%s to %s: %d connections, %s, %s, %s, seed %d",
		c.Driver, where, c.Conns, load, payload, ack, c.Seed)
}

// Unit names what the rate counts: "acked", "delivered", or copies of them.
func (c *Settings) Unit() string {
	unit := "delivered"
	if c.Ack {
		unit = "acked"
	}
	if c.Fanout > 1 {
		unit += " copies"
	}
	return unit
}

// Path names what the latency measures: "round trip" or "one way".
func (c *Settings) Path() string {
	if c.Ack {
		return "round trip"
	}
	return "one way"
}

func (r *Report) describeCPU() string {
	s := "not measured"
	if r.DriverCPU != nil {
		s = fmt.Sprintf("%.2f µs/message in this process", float64(*r.DriverCPU)*1e6)
		if len(r.Agents) > 0 {
			s = fmt.Sprintf("%.2f µs/message in the agents", float64(*r.DriverCPU)*1e6)
		}
	}
	if r.DriverCPU != nil && r.Config.InProcess {
		s += " (driver and node)"
	}
	if r.ServerError != "" {
		s += "; the server's is unknown: " + r.ServerError
	}
	if r.ServerCPU != nil {
		s += fmt.Sprintf(", %.2f µs/message in the server", float64(*r.ServerCPU)*1e6)
	}
	if r.ServerRSS != nil {
		s += fmt.Sprintf(", which holds %.1f MiB", float64(*r.ServerRSS)/(1<<20))
	}
	return s
}
