package result

import "time"

// A Report is what a run found.
type Report struct {
	// Schema is the constant Schema.
	Schema string `json:"schema"`
	// Begun is when the run began to make connections.
	Begun time.Time `json:"begun"`
	// Machine is where the driver ran.
	Machine Machine `json:"machine"`
	// Versions names the software of both sides.
	Versions Versions `json:"versions"`
	// Config is the configuration of the run with its defaults filled in.
	Config Settings `json:"config"`
	// Partial says that the run was interrupted before the end of its measured time.
	Partial bool `json:"partial"`
	// Measured is the measured time, without warm-up and final grace.
	Measured Seconds `json:"measured_seconds"`

	// The ledger counts Sent, Delivered, Acked, Outcomes and Faults over the whole run. Outcomes
	// counts by outcome word. Without ack it counts the failures that nodes reported. It counts a
	// message as lost if nothing more was heard of it after a connection on its way was lost.
	Sent      uint64            `json:"sent"`
	Delivered uint64            `json:"delivered"`
	Acked     uint64            `json:"acked"`
	Outcomes  map[string]uint64 `json:"outcomes"`
	Faults    Faults            `json:"faults"`
	// Landing is the time from the last send until nothing was in flight, or until the
	// run stopped waiting. If it is longer than the nodes' time to live, the nodes or this process
	// could not keep up with the load.
	Landing Seconds `json:"landing_seconds"`
	// Unanswered is the number of messages without an outcome when Config.Patience was over while
	// others still got theirs. Without ack, it is the number of messages with neither a delivery
	// nor a reported failure. Nobody knows whether the nodes would have kept their promises, so
	// such a run is not clean.
	Unanswered uint64 `json:"unanswered"`
	// ExpectedNoRoute is the number of messages in Outcomes that ended as no_route and had to,
	// because the run sent them to IDs that nobody had bound.
	ExpectedNoRoute uint64 `json:"expected_no_route"`
	// Unsent is the number of messages of an open loop whose connection could not take them when
	// they were due.
	Unsent uint64 `json:"unsent"`

	// Cross is the share of messages whose receiver was connected to another node than the sender.
	// It is null if all connections were at one node all the time, or if sessions were attached to
	// several nodes.
	Cross *float64 `json:"cross"`
	// Timeline is what happened in each second, warm-up and landing included. Compare it with the
	// times of the faults you inject.
	Timeline []Point `json:"timeline"`
	// Slowest is the longest time from send to outcome, by outcome word. The time begins with the
	// intended send. So in an open loop it includes the time that a message waited for its own
	// connection.
	Slowest map[string]Seconds `json:"slowest_seconds"`
	// MaxSilence is the longest time that any connection had no delivery while messages were
	// sent. MaxSilenceAt is when that time began, on the clock of Timeline. They mean little
	// unless each connection gets many deliveries a second.
	MaxSilence   Seconds `json:"max_silence_seconds"`
	MaxSilenceAt Seconds `json:"max_silence_at_seconds"`

	// Rate is acked round trips per second, or deliveries per second without ack. It counts the
	// messages that should have left in the measured time, even if they completed in the grace
	// after it. It is null if the run was interrupted before the measured time.
	Rate *float64 `json:"rate_per_second"`
	// Latency is the latency of the same messages: from send to outcome, or without ack from send
	// to delivery. In an open loop it begins when the message should have left. It is null if there
	// was no message.
	Latency *Latency `json:"latency_seconds"`
	// Distribution counts these messages by their latency. The bars follow each other, and leave
	// out empty ones.
	Distribution []Bar `json:"distribution"`

	// Completed is the number of messages that completed in the measured time. The CPU time of that
	// time is divided by them.
	Completed uint64 `json:"completed_while_measured"`
	// DriverCPU is the CPU time of this process in the measured time per message that completed in
	// that time. If the node runs in this process, it includes the node. It is
	// null if there was no message.
	DriverCPU *Seconds `json:"driver_cpu_seconds_per_message"`
	// ServerCPU and ServerRSS belong to the process Config.ServerPID or, without one, to those
	// whose metrics are Config.Metrics. They are null without either, or if they could not be
	// measured.
	ServerCPU *Seconds `json:"server_cpu_seconds_per_message"`
	ServerRSS *uint64  `json:"server_rss_bytes"`
	// ServerError says why the CPU and memory of the server could not be measured. Usually the
	// process has died. It is empty if there was no error.
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

	// Episodes are the parts of a run with faults. Without faults, there are none.
	Episodes []Episode `json:"episodes"`
	// Rounds has the figures of each round (see Merge). A run without rounds has one.
	Rounds []Round `json:"rounds"`
	// Agents are those that made the run together. A run of one process has none.
	Agents []Agent `json:"agents,omitempty"`
	// Thresholds are the conditions that the user set, with what became of them.
	Thresholds []Threshold `json:"thresholds"`
}

// Settings is the Config of a run in its report.
type Settings struct {
	Run        string   `json:"run"` // names the run; part of its IDs
	Nodes      []string `json:"nodes"`
	InProcess  bool     `json:"in_process"`
	Loops      int      `json:"loops"` // of the node in this process
	Driver     string   `json:"driver"`
	TLS        bool     `json:"tls"`
	Attach     int      `json:"attach"` // nodes of each session; -1: all
	Strategy   string   `json:"strategy"`
	Conns      int      `json:"conns"`
	IDsPerConn int      `json:"ids_per_conn"`
	Payload    int      `json:"payload"`
	Ack        bool     `json:"ack"`
	Window     int      `json:"window"` // 0: open loop
	Rate       float64  `json:"rate"`   // 0: closed loop
	Warmup     Seconds  `json:"warmup_seconds"`
	Duration   Seconds  `json:"duration_seconds"`
	Grace      Seconds  `json:"grace_seconds"`
	Cross      *float64 `json:"cross"` // null: as it comes
	Seed       uint64   `json:"seed"`
	Fanout     int      `json:"fanout"`     // copies of each message
	ServerPID  int      `json:"server_pid"` // 0: none
	Metrics    []string `json:"metrics"`    // URLs of the servers' metrics
	Script     string   `json:"script"`     // of faults; empty: none

	Stages          string  `json:"stages"`   // as they are typed; empty: none
	Arrivals        string  `json:"arrivals"` // of an open loop: "even" or "poisson"
	Payloads        string  `json:"payloads"` // as they are typed; empty: all have the size Payload
	Zipf            float64 `json:"zipf"`     // 0: all receivers are equally popular
	Offline         float64 `json:"offline"`  // share of messages to IDs that nobody has bound
	AckDelay        Seconds `json:"ack_delay_seconds"`
	ChurnBinds      float64 `json:"churn_binds_per_second"`
	ChurnMoves      float64 `json:"churn_moves_per_second"`
	ChurnReconnects float64 `json:"churn_reconnects_per_second"`
}

// Latency holds percentiles.
type Latency struct {
	P50  Seconds `json:"p50"`
	P90  Seconds `json:"p90"`
	P99  Seconds `json:"p99"`
	P999 Seconds `json:"p99_9"`
	Max  Seconds `json:"max"`
}

// A Bar is the number of messages whose latency was at most UpTo and more than that of the bar
// before.
type Bar struct {
	UpTo  Seconds `json:"up_to_seconds"`
	Count int64   `json:"count"`
}

// A Point is what happened in about one second of a run. Counts are those of this time alone,
// unless their comments say otherwise.
type Point struct {
	// At is when the time begins, since the run began to make connections.
	At Seconds `json:"at_seconds"`
	// Length is about a second. It is longer if this process was held up.
	Length Seconds `json:"length_seconds"`
	Phase  Phase   `json:"phase"`
	Round  int     `json:"round"` // from 1 on

	Sent      uint64 `json:"sent"`
	Delivered uint64 `json:"delivered"`
	// Completed counts acked round trips, or deliveries without ack.
	Completed uint64            `json:"completed"`
	Outcomes  map[string]uint64 `json:"outcomes"` // by word; those that did not occur are left out
	// Latency is that of the messages in Completed. It is null if there was none.
	Latency *Latency `json:"latency_seconds"`

	// At the end of this time:
	InFlight        int    `json:"in_flight"`
	DownConnections int    `json:"down_connections"`
	Faults          uint64 `json:"faults"` // of all kinds, since the run began

	// In this time, connections that were lost, and sessions that moved without a gap.
	LostConnections uint64 `json:"lost_connections"`
	Moves           uint64 `json:"moves"`
}

// Rate returns what completed per second.
func (p *Point) Rate() float64 {
	if p.Length <= 0 {
		return 0
	}
	return float64(p.Completed) / float64(p.Length)
}

// A Phase is a part of a run.
type Phase string

// The phases of a run. Landing is the wait for the messages in flight at its end.
const (
	Warmup    Phase = "warm-up"
	Measuring Phase = "measuring"
	Landing   Phase = "landing"
)

// Machine is what a driver ran on. What cannot be found out is empty or 0.
type Machine struct {
	Host       string `json:"host"`
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Kernel     string `json:"kernel"`
	CPU        string `json:"cpu"` // the model
	Cores      int    `json:"cores"`
	Allowed    int    `json:"allowed_cores"` // those that this process may use, see taskset
	GOMAXPROCS int    `json:"gomaxprocs"`
	Memory     uint64 `json:"memory_bytes"`
}

// Versions names the software of both sides. What is not known is empty: nats-server and Redis tell
// their clients their version, and a node does not. But the program of Config.ServerPID can be
// read, and so can Config.Metrics.
type Versions struct {
	Driver   string `json:"driver"`
	DriverGo string `json:"driver_go"`
	Server   string `json:"server"`
	ServerGo string `json:"server_go"`
	// Protocol is what both sides speak, such as "distmsg 1".
	Protocol string `json:"protocol"`
}

// A Threshold is a condition under which the user wants the run to fail.
type Threshold struct {
	FailIf string `json:"fail_if"` // such as "p99>2ms"
	// Missed says that the run fails by this condition.
	Missed bool `json:"missed"`
	// Found is what the run found, such as "p99 is 2.31ms".
	Found string `json:"found"`
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
