package loadtest

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"distmsg/loadtest/internal/ledger"
)

// A Report is what a run found. Its JSON form is stable: fields are added, never changed.
type Report struct {
	// Config is what the run was told, defaults filled in.
	Config Settings `json:"config"`
	// Partial says that the run was interrupted before its measured time was over.
	Partial bool `json:"partial"`
	// Seconds is the measured time: without warm-up and final grace.
	Seconds float64 `json:"seconds"`

	// Sent, Delivered, Acked, Outcomes and Faults are the ledger's and cover the whole run.
	// Outcomes counts by outcome word; without ack, the reported failures, and as lost what was
	// never heard of again after a connection on its way had been lost.
	Sent      uint64            `json:"sent"`
	Delivered uint64            `json:"delivered"`
	Acked     uint64            `json:"acked"`
	Outcomes  map[string]uint64 `json:"outcomes"`
	Faults    Faults            `json:"faults"`
	// LandingS is the time from the last send until nothing was in flight any more, or until the
	// wait for it was given up, in seconds. Where it is more than the nodes' time to live, the load
	// was more than they, or this process, could take.
	LandingS float64 `json:"landing_s"`
	// Unanswered is the number of messages that had no outcome (without ack: neither a delivery nor
	// a reported failure) when Config.Patience was over, while others still got theirs. Nobody
	// knows whether the nodes would have kept their word, so such a run is not clean.
	Unanswered uint64 `json:"unanswered"`
	// Unsent is the number of messages of an open loop whose time came while their connection
	// could not take them.
	Unsent uint64 `json:"unsent"`

	// Cross is the share of messages whose receiver was connected to another node than the sender;
	// null if all connections were at one node all the time, or sessions were attached to several.
	Cross *float64 `json:"cross"`
	// Timeline is what happened in each second, for those who break things meanwhile.
	Timeline []Second `json:"timeline"`
	// SlowestMs is the longest time from send to outcome, by word: from the intended send, so an
	// open loop counts what a message waited for its own connection, too.
	SlowestMs map[string]float64 `json:"slowest_ms"`
	// MaxSilenceMs is the longest time that any connection went without a delivery while messages
	// were sent, and MaxSilenceAtS when that began, on the clock of Timeline. It means little
	// unless each connection gets many a second.
	MaxSilenceMs  float64 `json:"max_silence_ms"`
	MaxSilenceAtS float64 `json:"max_silence_at_s"`

	// RatePerS is acked round trips a second, or deliveries a second without ack. It counts the
	// messages that should have left in the measured time, also those that completed in the grace
	// after it. Null if nothing was measured: the run was interrupted before.
	RatePerS *float64 `json:"rate_per_s"`
	// LatencyUs is that of the same messages: the round trip from send to outcome, or one way from
	// send to delivery; in an open loop, from the moment when the message should have left. Null if
	// there was none.
	LatencyUs *Latency `json:"latency_us"`

	// DriverCPU is this process's CPU time in the measured time per message that completed in that
	// time, microseconds. With the node in this process, both together. Null if there was no
	// message.
	DriverCPU *float64 `json:"driver_cpu_us_per_msg"`
	// ServerCPU and ServerRSS are those of Config.ServerPID. Null without one, or if they could not
	// be measured.
	ServerCPU *float64 `json:"server_cpu_us_per_msg"`
	ServerRSS *uint64  `json:"server_rss_bytes"`
	// ServerError says why the CPU and memory of Config.ServerPID could not be measured: as a rule,
	// it has died. Empty: nothing was in the way.
	ServerError string `json:"server_error"`

	// Silent are the addresses of nodes that Config.Membership listed and that did not answer when
	// the run began. It went on without them.
	Silent []string `json:"silent_nodes"`

	// LostConnections were closed or reset under the run; DownConnections of them had not come back
	// at its end.
	LostConnections uint64 `json:"lost_connections"`
	DownConnections uint64 `json:"down_connections"`
	// Moves is how often a connection went to another node without a gap.
	Moves uint64 `json:"moves"`
	// Drains is the number of connections that were told that their node is leaving.
	Drains uint64 `json:"drains"`
	// Errors counts what should not happen: error frames, kicks, bytes that are no frame.
	Errors map[string]uint64 `json:"errors"`
	// DrainCut says what the drain of the node in this process cut off; empty: nothing.
	DrainCut string `json:"drain_cut"`
}

// Settings is the Config of a run as its report shows it.
type Settings struct {
	Run        string   `json:"run"` // names the run; part of its IDs
	Nodes      []string `json:"nodes"`
	InProcess  bool     `json:"in_process"`
	Loops      int      `json:"loops"` // of the node in this process
	Driver     Driver   `json:"driver"`
	Attach     int      `json:"attach"` // nodes of each session; -1: all
	Strategy   string   `json:"strategy"`
	Conns      int      `json:"conns"`
	IDsPerConn int      `json:"ids_per_conn"`
	Payload    int      `json:"payload"`
	Ack        bool     `json:"ack"`
	Window     int      `json:"window"` // 0: open loop
	Rate       float64  `json:"rate"`   // 0: closed loop
	WarmupS    float64  `json:"warmup_s"`
	DurationS  float64  `json:"duration_s"`
	GraceS     float64  `json:"grace_s"`
	Cross      *float64 `json:"cross"` // null: as it comes
	Seed       uint64   `json:"seed"`
	Fanout     int      `json:"fanout"`     // copies of each message
	ServerPID  int      `json:"server_pid"` // 0: none
}

// Latency holds percentiles in microseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// percentiles is nil if nothing was measured.
func (m *meter) percentiles() *Latency {
	if m.done == 0 {
		return nil
	}
	at := func(p float64) float64 { return float64(m.latency.ValueAtPercentile(p)) / 1e3 }
	return &Latency{at(50), at(90), at(99), at(99.9), at(100)}
}

// perMessage divides CPU time of the measured time, in microseconds. It is nil if no message
// completed then.
func (m *meter) perMessage(d time.Duration) *float64 {
	if m.during == 0 {
		return nil
	}
	return new(float64(d.Microseconds()) / float64(m.during))
}

// Faults counts the messages about which the system did not keep its word. All zero: a clean
// ledger.
type Faults struct {
	// Missing: neither an outcome (acked mode), nor a delivery or a reported failure (without ack).
	Missing uint64 `json:"missing"`
	// FalseAcked: acked, never delivered.
	FalseAcked uint64 `json:"false_acked"`
	// FalseUndelivered: the outcome says "not delivered", yet it was.
	FalseUndelivered uint64 `json:"false_undelivered"`
	// DoubleOutcome: an outcome too many: a second one, or one for which there was no send.
	DoubleOutcome uint64 `json:"double_outcome"`
	// Duplicated: delivered again.
	Duplicated uint64 `json:"duplicated"`
	// Reordered: delivered after a later message of the same connection to the same ID (S20).
	Reordered uint64 `json:"reordered"`
	// Misrouted: delivered to a connection or an ID that it was not for.
	Misrouted uint64 `json:"misrouted"`
	// Corrupted: delivered with other bytes than were sent.
	Corrupted uint64 `json:"corrupted"`
	// FalseNoRoute: the outcome says that the receiver's ID is bound nowhere, yet its session held
	// it from half a second before the message was sent, and was still the same when it was next
	// heard of: at the end of the run, or when it was resumed.
	FalseNoRoute uint64 `json:"false_no_route"`
	// FalseDenied: the outcome says that the sender may not send from its ID, yet its session held
	// that ID when the message was sent, and was still the same when it was next heard of. A run
	// sends from no other IDs than those it has bound.
	FalseDenied uint64 `json:"false_denied"`
}

// Total is the number of faults of all kinds.
func (f Faults) Total() uint64 {
	return f.Missing + f.FalseAcked + f.FalseUndelivered + f.DoubleOutcome +
		f.Duplicated + f.Reordered + f.Misrouted + f.Corrupted + f.FalseNoRoute + f.FalseDenied
}

// A Second is what happened in one second of a run, warm-up and grace included.
type Second struct {
	// the beginning, seconds since the connections began to be made
	At        int               `json:"at_s"`
	Sent      uint64            `json:"sent"`
	Delivered uint64            `json:"delivered"`
	Outcomes  map[string]uint64 `json:"outcomes"` // by word; those that did not occur are left out
}

func seconds(l *ledger.Timeline) []Second {
	all := l.Seconds()
	list := make([]Second, len(all))
	for i, s := range all {
		list[i] = Second(s)
	}
	return list
}

// ExitCode is how a program of this project ends.
type ExitCode int

// The exit codes of all our programs.
const (
	ExitOK        ExitCode = 0
	ExitFailure   ExitCode = 1 // the run, or something in it, failed
	ExitUsage     ExitCode = 2 // it was called with flags or values that make no sense
	ExitLedger    ExitCode = 3 // the ledger has a fault
	ExitThreshold ExitCode = 4 // a threshold was missed
	ExitDrain     ExitCode = 5 // a drain cut something off

	ExitInterrupted ExitCode = 130 // Ctrl-C, or SIGTERM, ended it early
)

// Verdict is the exit code for the run and, unless that is ExitOK, one line that says why.
func (r *Report) Verdict() (code ExitCode, why string) {
	switch {
	case r.Faults.Total() > 0:
		return ExitLedger, "the ledger has faults: " + nonZero(r.Faults.byName())
	case r.Partial:
		return ExitInterrupted, "interrupted; the report covers the time until then"
	case r.Unanswered > 0:
		return ExitFailure, fmt.Sprintf("%d messages had no answer yet after %.0f s of waiting, while others still got theirs",
			r.Unanswered, r.LandingS)
	case len(r.Errors) > 0:
		return ExitFailure, "what should not happen did: " + nonZero(r.Errors)
	case r.DownConnections > 0:
		return ExitFailure, fmt.Sprintf("%d connections were lost and did not come back", r.DownConnections)
	case r.RatePerS == nil || *r.RatePerS == 0:
		return ExitFailure, "no message made it in the measured time"
	case r.DrainCut != "":
		return ExitDrain, "the node's drain cut something off: " + r.DrainCut
	}
	return ExitOK, ""
}

// byName is the faults by their names in JSON.
func (f Faults) byName() map[string]uint64 {
	return map[string]uint64{
		"missing": f.Missing, "false_acked": f.FalseAcked, "false_undelivered": f.FalseUndelivered,
		"double_outcome": f.DoubleOutcome, "duplicated": f.Duplicated, "reordered": f.Reordered,
		"misrouted": f.Misrouted, "corrupted": f.Corrupted, "false_no_route": f.FalseNoRoute,
		"false_denied": f.FalseDenied,
	}
}

// nonZero lists counts, in the order of their names.
func nonZero(counts map[string]uint64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			list = append(list, fmt.Sprintf("%s %d", name, counts[name]))
		}
	}
	return strings.Join(list, ", ")
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	c := &r.Config
	line("run", "%s%s", c.describe(), map[bool]string{true: " (interrupted)"}[r.Partial])
	if len(r.Silent) > 0 {
		line("nodes", "went on without those that are listed and do not answer: %s", strings.Join(r.Silent, ", "))
	}
	if r.RatePerS != nil {
		line("rate", "%.0f %s/s over %.1f s", *r.RatePerS, c.unit(), r.Seconds)
	}
	if l := r.LatencyUs; l != nil {
		line("latency", "p50 %s  p90 %s  p99 %s  p99.9 %s  max %s (%s)", us(l.P50), us(l.P90), us(l.P99), us(l.P999), us(l.Max), c.path())
	}
	line("cpu", "%s", r.describeCPU())
	line("sent", "%d, delivered %d", r.Sent, r.Delivered)
	if len(r.Outcomes) > 0 {
		line("outcomes", "%s", nonZero(r.Outcomes))
	}
	if len(r.SlowestMs) > 1 {
		var list []string
		for _, word := range slices.Sorted(maps.Keys(r.SlowestMs)) {
			list = append(list, fmt.Sprintf("%s %s", word, us(r.SlowestMs[word]*1e3)))
		}
		line("slowest", "%s; %s without a delivery at one connection", strings.Join(list, ", "), us(r.MaxSilenceMs*1e3))
	}
	if r.LandingS >= 1 {
		line("landing", "%.1f s from the last send to the last answer", r.LandingS)
	}
	if r.Unsent > 0 {
		line("unsent", "%d could not leave in time", r.Unsent)
	}
	if r.LostConnections+r.Drains > 0 {
		line("connections", "%d lost, of them %d still down; %d were told to leave, %d times one moved",
			r.LostConnections, r.DownConnections, r.Drains, r.Moves)
	}
	if r.Cross != nil {
		line("cross", "%.1f%% of the messages went to another node", *r.Cross*100)
	}
	if len(r.Errors) > 0 {
		line("errors", "%s", nonZero(r.Errors))
	}
	switch {
	case r.Faults.Total() > 0:
		line("ledger", "FAULTS: %s", nonZero(r.Faults.byName()))
	case r.Unanswered > 0:
		line("ledger", "NOT COMPLETE: %d messages had no answer yet; no fault among the others", r.Unanswered)
	default:
		line("ledger", "clean: every message is accounted for")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Settings) describe() string {
	load := fmt.Sprintf("%d in flight on each", c.Window)
	if c.Rate > 0 {
		load = fmt.Sprintf("%g messages/s", c.Rate)
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
	return fmt.Sprintf("%s to %s: %d connections, %s, %d-byte payload, %s, seed %d",
		c.Driver, where, c.Conns, load, c.Payload, ack, c.Seed)
}

func (c *Settings) unit() string {
	unit := "delivered"
	if c.Ack {
		unit = "acked"
	}
	if c.Fanout > 1 {
		unit += " copies"
	}
	return unit
}

func (c *Settings) path() string {
	if c.Ack {
		return "round trip"
	}
	return "one way"
}

func (r *Report) describeCPU() string {
	s := "nothing was measured"
	if r.DriverCPU != nil {
		s = fmt.Sprintf("%.2f µs/message in this process", *r.DriverCPU)
	}
	if r.DriverCPU != nil && r.Config.InProcess {
		s += " (driver and node)"
	}
	if r.ServerError != "" {
		s += "; that of the server is not known: " + r.ServerError
	}
	if r.ServerCPU != nil {
		s += fmt.Sprintf(", %.2f µs/message in the server", *r.ServerCPU)
	}
	if r.ServerRSS != nil {
		s += fmt.Sprintf(", which holds %.1f MiB", float64(*r.ServerRSS)/(1<<20))
	}
	return s
}

// us writes microseconds in a handy unit.
func us(v float64) string { return time.Duration(v * 1e3).Round(100 * time.Nanosecond).String() }
