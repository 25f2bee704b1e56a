package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"distmsg/loadtest/result"
)

// OfRun makes the page of one run, or of several rounds that were merged.
func OfRun(r *result.Report) *Page {
	p := &Page{
		Title: "Load test, " + r.Begun.UTC().Format("2006-01-02 15:04:05 UTC"), Subtitle: r.Config.Describe(),
		Verdict: verdictOf(r), Tiles: tilesOf(r),
	}
	if len(r.Timeline) > 0 {
		p.Charts = append(p.Charts, overTime(r)...)
	}
	if len(r.Distribution) > 0 {
		p.Charts = append(p.Charts, latencyBars(r))
	}
	if len(r.Episodes) > 0 {
		p.Tables = append(p.Tables, episodeTable(r))
		p.Notes = append(p.Notes, "A message that was not acked counts for the first fault that began while it was under way. "+
			"Receivers have recovered from a fault when each had an acked message after its last that was not.")
	}
	p.Tables = append(p.Tables, ledgerTable(r), outcomeTable(r))
	if len(r.Thresholds) > 0 {
		p.Tables = append(p.Tables, thresholdTable(r))
	}
	if len(r.Rounds) > 1 {
		p.Tables = append(p.Tables, roundTable(r))
		p.Notes = append(p.Notes, "Rate, latency and CPU are medians over the rounds. Counts are sums.")
	}
	if len(r.Agents) > 0 {
		p.Tables = append(p.Tables, agentTable(r))
	}
	p.Tables = append(p.Tables, machineTable(r), configTable(r))
	return p
}

func verdictOf(r *result.Report) Verdict {
	code, why := r.Verdict()
	switch code {
	case result.ExitOK:
		return Verdict{Good, "The ledger is clean: every message is accounted for."}
	case result.ExitInterrupted:
		return Verdict{Unclear, "The run was " + why + "."}
	case result.ExitThreshold:
		return Verdict{Bad, "The ledger is clean, but " + why + "."}
	}
	return Verdict{Bad, sentence(why)}
}

// sentence makes a sentence of a line that says why.
func sentence(why string) string { return strings.ToUpper(why[:1]) + why[1:] + "." }

func tilesOf(r *result.Report) []Tile {
	var tiles []Tile
	if r.Rate != nil {
		tiles = append(tiles, Tile{"Rate", fmt.Sprintf("%.0f/s", *r.Rate), r.Config.Unit()})
	}
	if l := r.Latency; l != nil {
		tiles = append(tiles, Tile{"p50", l.P50.String(), r.Config.Path()}, Tile{"p99", l.P99.String(), ""},
			Tile{"p99.9", l.P999.String(), ""}, Tile{"Slowest", l.Max.String(), ""})
	}
	if r.ServerCPU != nil {
		tiles = append(tiles, Tile{"Server CPU", r.ServerCPU.String(), "per message"})
	}
	return append(tiles, Tile{"Messages", strconv.FormatUint(r.Sent, 10), fmt.Sprintf("%d delivered", r.Delivered)},
		Tile{"Ledger faults", strconv.FormatUint(r.Faults.Total(), 10), ""})
}

// briefest is the shortest landing that the charts show. In less time, few messages complete, and
// the lines would seem to fall at the end.
const briefest result.Seconds = 0.5

// overTime makes the charts of the time series.
func overTime(r *result.Report) []Chart {
	x := Axis{Name: "time", Unit: "s"}
	rate := Chart{ID: "rate", Title: "Rate over time", Hint: "messages that completed, and that were sent, per second", Kind: Lines,
		Y: Axis{Name: "messages", Unit: "/s"}, Lines: []Line{{Name: "sent"}, {Name: r.Config.Unit()}}}
	latency := Chart{ID: "latency", Title: "Latency over time", Hint: r.Config.Path() + ", on a logarithmic scale", Kind: Lines,
		Y: Axis{Name: "latency", Unit: "s", Log: true}, Lines: []Line{{Name: "p50"}, {Name: "p90"}, {Name: "p99"}, {Name: "p99.9"}, {Name: "max"}}}
	words := outcomesOf(r)
	outcomes := Chart{ID: "outcomes", Title: "Outcomes over time", Hint: "how messages ended, per second", Kind: Lines,
		Y: Axis{Name: "outcomes", Unit: "/s"}}
	for _, word := range words {
		outcomes.Lines = append(outcomes.Lines, Line{Name: word})
	}
	for i := range r.Timeline {
		point := &r.Timeline[i]
		if point.Phase == result.Landing && point.Length < briefest {
			continue
		}
		x.Values = append(x.Values, math.Round(float64(point.At+point.Length)*1e3)/1e3)
		per := func(n uint64) Value { return Value(float64(n) / max(float64(point.Length), 1e-9)) }
		add(&rate, per(point.Sent), per(point.Completed))
		if l := point.Latency; l != nil {
			add(&latency, Value(l.P50), Value(l.P90), Value(l.P99), Value(l.P999), Value(l.Max))
		} else {
			none := Value(math.NaN())
			add(&latency, none, none, none, none, none)
		}
		for j, word := range words {
			outcomes.Lines[j].Values = append(outcomes.Lines[j].Values, per(point.Outcomes[word]))
		}
	}
	rate.X, latency.X, outcomes.X = x, x, x
	rate.Marks = marksOf(r)
	latency.Marks, outcomes.Marks = rate.Marks, rate.Marks
	charts := []Chart{rate, latency}
	if len(words) > 0 {
		charts = append(charts, outcomes)
	}
	return charts
}

func add(c *Chart, values ...Value) {
	for i, v := range values {
		c.Lines[i].Values = append(c.Lines[i].Values, v)
	}
}

// outcomesOf lists the words of the outcomes that occurred in the time series.
func outcomesOf(r *result.Report) []string {
	words := make(map[string]bool)
	for _, point := range r.Timeline {
		for word := range point.Outcomes {
			words[word] = true
		}
	}
	return slices.Sorted(maps.Keys(words))
}

// asked returns how many of something belong to the load if it asks for so many in a second. They
// do not come evenly, so it is twice that.
func asked(perSecond float64, p *result.Point) uint64 {
	return uint64(math.Ceil(2 * perSecond * float64(p.Length)))
}

// marksOf returns what went wrong when: faults that were injected, faults of the ledger,
// connections that were lost, sessions that moved. The churn of the load is no mark.
func marksOf(r *result.Report) []Mark {
	var marks []Mark
	for i := range r.Episodes[min(1, len(r.Episodes)):] {
		e := &r.Episodes[i+1]
		mood := Good
		if e.Fault {
			mood = Bad
		}
		marks = append(marks, Mark{float64(e.At), fmt.Sprintf("%.1f s: %s", float64(e.At), e.Name), mood})
	}
	var before uint64
	round := 0
	for i := range r.Timeline {
		p := &r.Timeline[i]
		at := float64(p.At + p.Length)
		if p.Round != round {
			round, before = p.Round, 0
		}
		if p.Faults > before {
			marks = append(marks, Mark{at, fmt.Sprintf("%.0f s: %d ledger faults", at, p.Faults-before), Bad})
		}
		before = p.Faults
		if p.LostConnections > asked(r.Config.ChurnReconnects, p) {
			marks = append(marks, Mark{at, fmt.Sprintf("%.0f s: %d connections lost", at, p.LostConnections), Unclear})
		}
		if p.Moves > asked(r.Config.ChurnMoves, p) {
			marks = append(marks, Mark{at, fmt.Sprintf("%.0f s: %d sessions moved", at, p.Moves), Unclear})
		}
	}
	return marks
}

// latencyBars draws the distribution with all its bars, the empty ones included.
func latencyBars(r *result.Report) Chart {
	c := Chart{ID: "distribution", Title: "Latency distribution", Hint: "messages by " + r.Config.Path() + "; each bar ends a fifth higher than the bar before",
		Kind: Bars, X: Axis{Name: "at most", Unit: ""}, Y: Axis{Name: "messages"}, Lines: []Line{{Name: "messages"}}}
	bars := r.Distribution
	limit := bars[0].UpTo
	for i := 0; i < len(bars); {
		count := int64(0)
		if bars[i].UpTo <= limit*1.001 {
			count = bars[i].Count
			i++
		}
		c.X.Values = append(c.X.Values, float64(len(c.X.Values)))
		c.Labels = append(c.Labels, limit.String())
		c.Lines[0].Values = append(c.Lines[0].Values, Value(count))
		limit *= 1.2
	}
	return c
}

func ledgerTable(r *result.Report) Table {
	t := Table{Caption: "Ledger", Head: []string{"fault", "messages"}}
	faults := r.Faults.ByName()
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Rows = append(t.Rows, []string{strings.ReplaceAll(name, "_", " "), strconv.FormatUint(faults[name], 10)})
	}
	return t
}

func outcomeTable(r *result.Report) Table {
	t := Table{Caption: "Messages", Head: []string{"what", "messages", "slowest"}}
	row := func(name string, n uint64, slowest string) {
		t.Rows = append(t.Rows, []string{name, strconv.FormatUint(n, 10), slowest})
	}
	row("sent", r.Sent, "")
	row("delivered", r.Delivered, "")
	for _, word := range slices.Sorted(maps.Keys(r.Outcomes)) {
		slowest := ""
		if v, ok := r.Slowest[word]; ok {
			slowest = v.String()
		}
		row("outcome "+word, r.Outcomes[word], slowest)
	}
	row("not sent in time", r.Unsent, "")
	row("without an answer yet", r.Unanswered, "")
	return t
}

func episodeTable(r *result.Report) Table {
	t := Table{Caption: "Faults", Head: result.EpisodeHead()}
	for i := range r.Episodes {
		t.Rows = append(t.Rows, r.Episodes[i].Row())
	}
	return t
}

func thresholdTable(r *result.Report) Table {
	t := Table{Caption: "Thresholds", Head: []string{"fail if", "found", "verdict"}}
	for _, c := range r.Thresholds {
		verdict := "kept"
		if c.Missed {
			verdict = "MISSED"
		}
		t.Rows = append(t.Rows, []string{c.FailIf, c.Found, verdict})
	}
	return t
}

func roundTable(r *result.Report) Table {
	t := Table{Caption: "Rounds", Head: []string{"round", "rate", "p50", "p99", "p99.9", "driver CPU", "server CPU", "faults"}}
	for i, v := range r.Rounds {
		row := []string{strconv.Itoa(i + 1), "–", "–", "–", "–", "–", "–", strconv.FormatUint(v.Faults, 10)}
		if v.Rate != nil {
			row[1] = fmt.Sprintf("%.0f/s", *v.Rate)
		}
		if l := v.Latency; l != nil {
			row[2], row[3], row[4] = l.P50.String(), l.P99.String(), l.P999.String()
		}
		if v.DriverCPU != nil {
			row[5] = v.DriverCPU.String()
		}
		if v.ServerCPU != nil {
			row[6] = v.ServerCPU.String()
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func agentTable(r *result.Report) Table {
	t := Table{Caption: "Agents", Head: []string{"agent", "host", "connections", "sent", "delivered", "rate", "p99", "driver CPU", "faults", "clock known to", "began late by"}}
	for i := range r.Agents {
		a := &r.Agents[i]
		row := []string{a.Address, a.Machine.Host, strconv.Itoa(a.Conns), strconv.FormatUint(a.Sent, 10), strconv.FormatUint(a.Delivered, 10),
			"–", "–", "–", strconv.FormatUint(a.Faults, 10), a.ClockBound.String(), a.Late.String()}
		if a.Rate != nil {
			row[5] = fmt.Sprintf("%.0f/s", *a.Rate)
		}
		if a.Latency != nil {
			row[6] = a.Latency.P99.String()
		}
		if a.DriverCPU != nil {
			row[7] = a.DriverCPU.String()
		}
		if a.Failed != "" {
			row = []string{a.Address, "LOST", strconv.Itoa(a.Conns), "–", "–", "–", "–", "–", strconv.FormatUint(a.Faults, 10), a.ClockBound.String(), "–"}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func machineTable(r *result.Report) Table {
	m, v := &r.Machine, &r.Versions
	t := Table{Caption: "Machine and versions"}
	row := func(name, value string) {
		if value != "" {
			t.Rows = append(t.Rows, []string{name, value})
		}
	}
	row("host", m.Host)
	row("system", strings.TrimSpace(m.OS+" "+m.Arch+" "+m.Kernel))
	row("processor", m.CPU)
	row("cores", fmt.Sprintf("%d, of them %d for the driver, GOMAXPROCS %d", m.Cores, m.Allowed, m.GOMAXPROCS))
	if m.Memory > 0 {
		row("memory", fmt.Sprintf("%.1f GiB", float64(m.Memory)/(1<<30)))
	}
	row("driver", strings.TrimSpace(v.Driver+" "+v.DriverGo))
	row("server", strings.TrimSpace(v.Server+" "+v.ServerGo))
	row("protocol", v.Protocol)
	return t
}

// configTable lists the load. What a run does without is left out.
func configTable(r *result.Report) Table {
	c := &r.Config
	t := Table{Caption: "Load"}
	row := func(name string, present bool, format string, args ...any) {
		if present {
			t.Rows = append(t.Rows, []string{name, fmt.Sprintf(format, args...)})
		}
	}
	const always = true
	share := func(s *float64) float64 {
		if s == nil {
			return 0
		}
		return *s * 100
	}
	row("run", c.Run != "", "%s", c.Run)
	row("nodes", len(c.Nodes) > 0, "%s", strings.Join(c.Nodes, ", "))
	row("node in this process", c.InProcess, "event loops: %d", c.Loops)
	row("driver", always, "%s", c.Driver)
	row("nodes of each session", c.Attach != 0 && c.Attach != 1, "%d, chosen by %s (-1: all)", c.Attach, c.Strategy)
	row("TLS", always, "%t", c.TLS)
	row("server's process", c.ServerPID != 0, "%d", c.ServerPID)
	row("servers' metrics", len(c.Metrics) > 0, "%s", strings.Join(c.Metrics, ", "))
	row("connections", always, "%d", c.Conns)
	row("IDs per connection", always, "%d", c.IDsPerConn)
	row("window", c.Window > 0, "%d in flight on each connection", c.Window)
	row("rate", c.Rate > 0, "%g/s", c.Rate)
	row("stages", c.Stages != "", "%s", c.Stages)
	row("arrivals", c.Arrivals != "", "%s", c.Arrivals)
	row("payload", c.Payload > 0, "%d bytes", c.Payload)
	row("payloads", c.Payloads != "", "%s (bytes and weight)", c.Payloads)
	row("with ack", always, "%t", c.Ack)
	row("acks wait", c.AckDelay > 0, "%s", c.AckDelay)
	row("fan-out", c.Fanout > 1, "%d", c.Fanout)
	row("to another node", c.Cross != nil, "%g%%", share(c.Cross))
	row("popularity (Zipf)", c.Zipf > 0, "%g", c.Zipf)
	row("to IDs that nobody has bound", c.Offline > 0, "%g%%", c.Offline*100)
	row("binds again", c.ChurnBinds > 0, "%g/s", c.ChurnBinds)
	row("moves", c.ChurnMoves > 0, "%g/s", c.ChurnMoves)
	row("reconnects", c.ChurnReconnects > 0, "%g/s", c.ChurnReconnects)
	row("faults", c.Script != "", "%s", c.Script)
	row("warm-up", always, "%s", max(c.Warmup, 0))
	row("duration", c.Duration >= 0, "%s", c.Duration)
	row("duration", c.Duration < 0, "until Ctrl-C")
	row("waits at the end", c.Grace > 0, "%s without an arrival", c.Grace)
	row("seed", always, "%d", c.Seed)
	return t
}
