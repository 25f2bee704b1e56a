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
	// Config is the configuration of the run with its defaults filled in.
	Config Settings `json:"config"`
	// Partial says that the run was interrupted before the end of its measured time.
	Partial bool `json:"partial"`
	// Seconds is the measured time, without warm-up and final grace.
	Seconds float64 `json:"seconds"`

	// The ledger counts Sent, Delivered, Acked, Outcomes and Faults over the whole run. Outcomes
	// counts by outcome word. Without ack it counts the failures that nodes reported. It counts a
	// message as lost if nothing more was heard of it after a connection on its way was lost.
	Sent      uint64            `json:"sent"`
	Delivered uint64            `json:"delivered"`
	Acked     uint64            `json:"acked"`
	Outcomes  map[string]uint64 `json:"outcomes"`
	Faults    Faults            `json:"faults"`
	// LandingS is the time in seconds from the last send until nothing was in flight, or until the
	// run stopped waiting. If it is longer than the nodes' time to live, the nodes or this process
	// could not keep up with the load.
	LandingS float64 `json:"landing_s"`
	// Unanswered is the number of messages without an outcome when Config.Patience was over while
	// others still got theirs. Without ack, it is the number of messages with neither a delivery
	// nor a reported failure. Nobody knows whether the nodes would have kept their promises, so
	// such a run is not clean.
	Unanswered uint64 `json:"unanswered"`
	// Unsent is the number of messages of an open loop whose connection could not take them when
	// they were due.
	Unsent uint64 `json:"unsent"`

	// Cross is the share of messages whose receiver was connected to another node than the sender.
	// It is null if all connections were at one node all the time, or if sessions were attached to
	// several nodes.
	Cross *float64 `json:"cross"`
	// Timeline is what happened in each second. Compare it with the times of the faults you inject.
	Timeline []Second `json:"timeline"`
	// SlowestMs is the longest time from send to outcome, by outcome word. The time begins with the
	// intended send. So in an open loop it includes the time that a message waited for its own
	// connection.
	SlowestMs map[string]float64 `json:"slowest_ms"`
	// MaxSilenceMs is the longest time that any connection had no delivery while messages were
	// sent. MaxSilenceAtS is when that time began, on the clock of Timeline. They mean little
	// unless each connection gets many deliveries a second.
	MaxSilenceMs  float64 `json:"max_silence_ms"`
	MaxSilenceAtS float64 `json:"max_silence_at_s"`

	// RatePerS is acked round trips per second, or deliveries per second without ack. It counts the
	// messages that should have left in the measured time, even if they completed in the grace
	// after it. It is null if the run was interrupted before the measured time.
	RatePerS *float64 `json:"rate_per_s"`
	// LatencyUs is the latency of the same messages: from send to outcome, or without ack from send
	// to delivery. In an open loop it begins when the message should have left. It is null if there
	// was no message.
	LatencyUs *Latency `json:"latency_us"`

	// DriverCPU is the CPU time of this process in the measured time, in microseconds per message
	// that completed in that time. If the node runs in this process, it includes the node. It is
	// null if there was no message.
	DriverCPU *float64 `json:"driver_cpu_us_per_msg"`
	// ServerCPU and ServerRSS belong to the process Config.ServerPID. They are null without one, or
	// if they could not be measured.
	ServerCPU *float64 `json:"server_cpu_us_per_msg"`
	ServerRSS *uint64  `json:"server_rss_bytes"`
	// ServerError says why the CPU and memory of Config.ServerPID could not be measured. Usually
	// the process has died. It is empty if there was no error.
	ServerError string `json:"server_error"`

	// Silent holds the addresses of the nodes in Config.Membership that did not answer when the run
	// began. The run continued without them.
	Silent []string `json:"silent_nodes"`

	// LostConnections is the number of connections that were closed or reset during the run.
	// DownConnections of them were still down at its end.
	LostConnections uint64 `json:"lost_connections"`
	DownConnections uint64 `json:"down_connections"`
	// Moves is how often a session moved to another node without a gap, or to another connection
	// with a new login.
	Moves uint64 `json:"moves"`
	// Drains is the number of connections that received a drain notice from their node.
	Drains uint64 `json:"drains"`
	// Errors counts unexpected events: error frames, kicks, and bytes that are no frame.
	Errors map[string]uint64 `json:"errors"`
	// DrainCut says what the drain of the node in this process cut off. It is empty if that is
	// nothing.
	DrainCut string `json:"drain_cut"`
}

// Settings is the Config of a run in its report.
type Settings struct {
	Run        string   `json:"run"` // names the run; part of its IDs
	Nodes      []string `json:"nodes"`
	InProcess  bool     `json:"in_process"`
	Loops      int      `json:"loops"` // of the node in this process
	Driver     Driver   `json:"driver"`
	TLS        bool     `json:"tls"`
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

// percentiles returns nil if nothing was measured.
func (m *meter) percentiles() *Latency {
	if m.done == 0 {
		return nil
	}
	at := func(p float64) float64 { return float64(m.latency.ValueAtPercentile(p)) / 1e3 }
	return &Latency{at(50), at(90), at(99), at(99.9), at(100)}
}

// perMessage divides d, the CPU time of the measured time, by the messages that completed in that
// time. The result is in microseconds. It is nil if no message completed then.
func (m *meter) perMessage(d time.Duration) *float64 {
	if m.during == 0 {
		return nil
	}
	return new(float64(d.Microseconds()) / float64(m.during))
}

// Faults counts the messages for which the system broke its promises. If all counts are zero, the
// ledger is clean.
type Faults struct {
	// Missing: the message had no outcome. Without ack: it had neither a delivery nor a reported
	// failure.
	Missing uint64 `json:"missing"`
	// FalseAcked: the outcome was acked, but the message was never delivered.
	FalseAcked uint64 `json:"false_acked"`
	// FalseUndelivered: the outcome says "not delivered", but the message was delivered.
	FalseUndelivered uint64 `json:"false_undelivered"`
	// DoubleOutcome: a second outcome of one message, or an outcome of a message that was not sent.
	DoubleOutcome uint64 `json:"double_outcome"`
	// Duplicated: the message was delivered again.
	Duplicated uint64 `json:"duplicated"`
	// Reordered: the message was delivered after a later message of the same connection to the same
	// ID (S20).
	Reordered uint64 `json:"reordered"`
	// Misrouted: the message was delivered to a wrong connection or a wrong ID.
	Misrouted uint64 `json:"misrouted"`
	// Corrupted: the message was delivered with other bytes than the sender sent.
	Corrupted uint64 `json:"corrupted"`
	// FalseNoRoute: the outcome says that the receiver's ID is bound nowhere. But the receiver's
	// session had held the ID for at least half a second when the message was sent. And the session
	// was still the same at the next news of it: when it was resumed, or at the end of the run.
	FalseNoRoute uint64 `json:"false_no_route"`
	// FalseDenied: the outcome says that the sender may not send from its ID. But the sender's
	// session held the ID when the message was sent. And the session was still the same at the next
	// news of it. A run sends only from IDs that it has bound.
	FalseDenied uint64 `json:"false_denied"`
}

// Total returns the number of faults of all kinds.
func (f Faults) Total() uint64 {
	return f.Missing + f.FalseAcked + f.FalseUndelivered + f.DoubleOutcome +
		f.Duplicated + f.Reordered + f.Misrouted + f.Corrupted + f.FalseNoRoute + f.FalseDenied
}

// A Second is what happened in one second of a run. Warm-up and grace are included.
type Second struct {
	// when the second begins, in seconds since the run began to make connections
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

// ExitCode is the exit code of a program of this project.
type ExitCode int

// The exit codes of all programs of this project.
const (
	ExitOK        ExitCode = 0
	ExitFailure   ExitCode = 1 // the run, or something in it, failed
	ExitUsage     ExitCode = 2 // its flags or their values are wrong
	ExitLedger    ExitCode = 3 // the ledger has a fault
	ExitThreshold ExitCode = 4 // a threshold was not met
	ExitDrain     ExitCode = 5 // a drain cut something off

	ExitInterrupted ExitCode = 130 // Ctrl-C, or SIGTERM, ended it early
)

// Verdict returns the exit code of the run. Unless that is ExitOK, why is one line that gives the
// reason.
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
		return ExitFailure, "unexpected errors: " + nonZero(r.Errors)
	case r.DownConnections > 0:
		return ExitFailure, fmt.Sprintf("%d connections were lost and did not come back", r.DownConnections)
	case r.RatePerS == nil || *r.RatePerS == 0:
		return ExitFailure, "no message was delivered in the measured time"
	case r.DrainCut != "":
		return ExitDrain, "the node's drain cut something off: " + r.DrainCut
	}
	return ExitOK, ""
}

// byName returns the faults by their names in JSON.
func (f Faults) byName() map[string]uint64 {
	return map[string]uint64{
		"missing": f.Missing, "false_acked": f.FalseAcked, "false_undelivered": f.FalseUndelivered,
		"double_outcome": f.DoubleOutcome, "duplicated": f.Duplicated, "reordered": f.Reordered,
		"misrouted": f.Misrouted, "corrupted": f.Corrupted, "false_no_route": f.FalseNoRoute,
		"false_denied": f.FalseDenied,
	}
}

// nonZero lists the counts that are not zero, in the order of their names.
func nonZero(counts map[string]uint64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			list = append(list, fmt.Sprintf("%s %d", name, counts[name]))
		}
	}
	return strings.Join(list, ", ")
}

// WriteText writes the report as text for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	c := &r.Config
	line("run", "%s%s", c.describe(), map[bool]string{true: " (interrupted)"}[r.Partial])
	if len(r.Silent) > 0 {
		line("nodes", "continued without these, which discovery lists but which do not answer: %s", strings.Join(r.Silent, ", "))
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
	if c.TLS {
		where += " over TLS"
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
	s := "not measured"
	if r.DriverCPU != nil {
		s = fmt.Sprintf("%.2f µs/message in this process", *r.DriverCPU)
	}
	if r.DriverCPU != nil && r.Config.InProcess {
		s += " (driver and node)"
	}
	if r.ServerError != "" {
		s += "; the server's is unknown: " + r.ServerError
	}
	if r.ServerCPU != nil {
		s += fmt.Sprintf(", %.2f µs/message in the server", *r.ServerCPU)
	}
	if r.ServerRSS != nil {
		s += fmt.Sprintf(", which holds %.1f MiB", float64(*r.ServerRSS)/(1<<20))
	}
	return s
}

// us formats microseconds in a readable unit.
func us(v float64) string { return time.Duration(v * 1e3).Round(100 * time.Nanosecond).String() }
