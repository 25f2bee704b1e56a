package engine

import "time"

// Asked is what nodes answered to a question. Those that did not answer are in Missing.
type Asked[T any] struct {
	Answers []T           `json:"answers"`
	Missing []MissingNode `json:"missing"`
}

// MissingNode is a node that did not answer.
type MissingNode struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// NodeState says whether a node takes clients.
type NodeState string

// The states of a node.
const (
	NodeStarting NodeState = "starting" // it does not take clients yet
	NodeReady    NodeState = "ready"
	NodeDraining NodeState = "draining" // it takes no new clients; see Engine.Drain
	NodeStopping NodeState = "stopping" // its Run is about to return
)

// NodeInfo is what a node says about itself.
type NodeInfo struct {
	Node          string    `json:"node"`
	Version       string    `json:"version"` // of the program, as Go's build information has it
	State         NodeState `json:"state"`
	Incarnation   uint64    `json:"incarnation"`
	Addr          string    `json:"addr,omitempty"`      // where clients connect
	PeerAddr      string    `json:"peer_addr,omitempty"` // where other nodes connect
	StartedAt     time.Time `json:"started_at"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	// Fenced says that the process was stopped for a while, and continues under a new incarnation.
	Fenced bool `json:"fenced"`

	Sessions int `json:"sessions"` // with those that may be resumed
	Conns    int `json:"conns"`
	IDs      int `json:"ids"`
	Routes   int `json:"routes"` // IDs that are known to be at other nodes
	Watched  int `json:"watched"`
	Pending  int `json:"pending_acks"`
	Parked   int `json:"parked"` // sends that wait for the registry

	MemoryHeld   int `json:"memory_held_bytes"`
	MemoryBudget int `json:"memory_budget_bytes"`

	// Degraded is what the node does without; see Engine.Health.
	Degraded []string     `json:"degraded"`
	Counters NodeCounters `json:"counters"`
	// Limits says which clients reached which limits, and how often. It names up to 100 identities.
	Limits []Limited  `json:"limits,omitempty"`
	Links  []LinkInfo `json:"links"`
	Loops  []LoopInfo `json:"loops"`
	// Rebalance is the latest move of clients to other nodes. Nil if there was none.
	Rebalance *RebalanceInfo `json:"rebalance,omitempty"`
}

// NodeCounters count since the node has started. They mean what the fields of Stats mean. The
// difference of two answers over the time between them is a rate.
type NodeCounters struct {
	Accepted   uint64            `json:"accepted"`
	Closed     uint64            `json:"closed"`
	FramesIn   uint64            `json:"frames_in"`
	FramesOut  uint64            `json:"frames_out"`
	BytesIn    uint64            `json:"bytes_in"`
	BytesOut   uint64            `json:"bytes_out"`
	Sends      uint64            `json:"sends"`
	Written    uint64            `json:"written"`
	Forwarded  uint64            `json:"forwarded"`
	Received   uint64            `json:"received"`
	Multicasts uint64            `json:"multicasts"`
	Abandoned  uint64            `json:"abandoned"`
	Outcomes   map[string]uint64 `json:"outcomes"` // by code
	Faults     map[string]uint64 `json:"faults"`   // by fault
	Limited    uint64            `json:"limited"`  // how often clients have reached a limit
}

// HistorySample is what a node did in a short time, two seconds as a rule.
type HistorySample struct {
	Node     string            `json:"node"`
	At       time.Time         `json:"at"`      // its end
	Seconds  float64           `json:"seconds"` // its length
	Sends    uint64            `json:"sends"`
	Limited  uint64            `json:"limited,omitempty"`  // how often clients have reached a limit
	Outcomes map[string]uint64 `json:"outcomes,omitempty"` // by code
	// Residence and AckRoundTrip are as in Times. Nil if there was nothing to measure.
	Residence    *Spread `json:"residence,omitempty"`
	AckRoundTrip *Spread `json:"ack_round_trip,omitempty"`
	// Peers are the nodes that it had links to at the end.
	Peers []string `json:"peers,omitempty"`
}

// Spread is how long things took. The quantiles may be up to a fifth too long.
type Spread struct {
	Count      uint64  `json:"count"`
	P50Seconds float64 `json:"p50_seconds"`
	P99Seconds float64 `json:"p99_seconds"`
}

// LoopInfo is one event loop of a node.
type LoopInfo struct {
	Loop                int     `json:"loop"`
	Conns               int     `json:"conns"` // with links
	Pending             int     `json:"pending_acks"`
	SilentSeconds       float64 `json:"silent_seconds"` // since it last ran
	LongestStallSeconds float64 `json:"longest_stall_seconds"`
	Wakeups             uint64  `json:"wakeups"`
}

// LinkInfo is what a node says about its link to another node.
type LinkInfo struct {
	Node    string `json:"node"` // the one that answers
	Peer    string `json:"peer"` // the other one
	Up      bool   `json:"up"`
	Why     string `json:"why,omitempty"` // why there is no link, if that is known
	Listed  bool   `json:"listed"`        // the membership lists the other node
	Remote  string `json:"remote,omitempty"`
	Dialled bool   `json:"dialled"` // the node that answers has dialled
	TLS     string `json:"tls,omitempty"`
	// Asked says that the other node can be asked questions. An older one cannot.
	Asked         bool    `json:"asked"`
	Sessions      int     `json:"sessions"` // attached at the other node
	QueuedBytes   int     `json:"queued_bytes"`
	AgeSeconds    float64 `json:"age_seconds"`
	SilentSeconds float64 `json:"silent_seconds"`
}

// SessionQuery selects sessions.
type SessionQuery struct {
	// Slowest selects that many sessions of each node: those that have most bytes queued, and of
	// equals those that have been silent for longest. Sessions without a connection are not among
	// them. Zero selects all, as far as Limit allows.
	Slowest int `json:"slowest,omitempty"`
	// Identity selects the sessions of one identity. Empty selects all.
	Identity string `json:"identity,omitempty"`
	// Limit bounds the sessions of each node. Default: 100, and 10,000 at most.
	Limit int `json:"limit,omitempty"`
}

// SessionInfo is a session at one node. A session that is attached at several nodes has one at each
// of them.
type SessionInfo struct {
	Session  string   `json:"session"`
	Identity string   `json:"identity,omitempty"`
	Node     string   `json:"node"`
	Attached bool     `json:"attached"` // it has a connection here; else it may be resumed
	Conns    int      `json:"conns"`
	Remotes  []string `json:"remotes"`
	IDs      int      `json:"ids"`
	// QueuedBytes wait to be written to its connections.
	QueuedBytes int `json:"queued_bytes"`
	// Pending counts its sends that wait for an ack.
	Pending int `json:"pending_acks"`
	// SilentSeconds is how long it has sent nothing, on any of its connections.
	SilentSeconds float64 `json:"silent_seconds"`
	// AgeSeconds is the age of its oldest connection.
	AgeSeconds float64 `json:"age_seconds"`
	TLS        string  `json:"tls,omitempty"` // such as TLS 1.3; empty without
}

// ConnInfo is an open connection of a client.
type ConnInfo struct {
	Conn        string `json:"conn"` // its name at its node: loop, slot and generation
	Node        string `json:"node"`
	Loop        int    `json:"loop"`
	Remote      string `json:"remote"` // empty for a client in the node's process
	Session     string `json:"session"`
	Identity    string `json:"identity,omitempty"`
	QueuedBytes int    `json:"queued_bytes"`
	// Pending counts its sends that wait for an ack.
	Pending       int     `json:"pending_acks"`
	SilentSeconds float64 `json:"silent_seconds"`
	AgeSeconds    float64 `json:"age_seconds"`
	TLS           string  `json:"tls,omitempty"`
	// State is open, left (its client wants no more messages here) or doubted (it may be dead, and
	// its session is also attached elsewhere).
	State string `json:"state"`
}

// IDInfo is an ID that a session has bound.
type IDInfo struct {
	ID      string `json:"id"`
	Session string `json:"session"`
	Node    string `json:"node"`
	Epoch   uint64 `json:"epoch"`
}

// WhereInfo says who holds an ID.
type WhereInfo struct {
	ID string `json:"id"`
	// State is bound, not_bound, or unknown if the registry does not answer.
	State WhereState `json:"state"`
	// Session, Epoch and Nodes are what the registry says now. Nodes are those where the session is
	// attached.
	Session string   `json:"session,omitempty"`
	Epoch   uint64   `json:"epoch,omitempty"`
	Nodes   []string `json:"nodes,omitempty"`
	// Beliefs are what the nodes know of the ID. A node that knows nothing asks the registry when
	// it has a message for the ID.
	Beliefs []Belief `json:"beliefs"`
	// Disagree says that a node believes something else than the registry.
	Disagree bool `json:"disagree"`
}

// WhereState says whether an ID is bound.
type WhereState string

// The states of an ID.
const (
	WhereBound    WhereState = "bound"
	WhereNotBound WhereState = "not_bound"
	WhereUnknown  WhereState = "unknown"
)

// Belief is what one node knows of an ID.
type Belief struct {
	ID   string `json:"id"`
	Node string `json:"node"`
	// Table is the binding in the node's table of its own sessions, and Route the one in its cache
	// of other nodes' sessions. Nil if there is none.
	Table *Believed `json:"table,omitempty"`
	Route *Believed `json:"route,omitempty"`
	// Differs says how that differs from what the registry says. Empty if it does not.
	Differs string `json:"differs,omitempty"`
}

// Believed is a binding that a node knows.
type Believed struct {
	Session string `json:"session"`
	Epoch   uint64 `json:"epoch"`
	// Nodes are those where the node believes the session to be attached. Empty if it may be
	// resumed.
	Nodes []string `json:"nodes"`
}

// TraceInfo is a dry run of a message from one ID to another.
type TraceInfo struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Code is how a message would end as far as a node decides that: acked stands for a receiver
	// whose connection answers.
	Code         string        `json:"code"`
	TotalSeconds float64       `json:"total_seconds"`
	Hops         []TraceHop    `json:"hops"`
	Missing      []MissingNode `json:"missing"`
}

// TraceHop is one step of a dry run.
type TraceHop struct {
	Node string `json:"node"`
	// Step is sender, lookup, registry, link, receiver, queue or connection.
	Step     string `json:"step"`
	Decision string `json:"decision"` // for people
	// Code is set if a message would end here.
	Code string `json:"code,omitempty"`
	// Returned is set if the message comes back from here, not_mine or not_attached. Its node then
	// looks for the receiver again, once.
	Returned string `json:"returned,omitempty"`
	// AtSeconds is when the step began, from the beginning of the trace, and TookSeconds how long
	// it took.
	AtSeconds   float64 `json:"at_seconds"`
	TookSeconds float64 `json:"took_seconds"`
}

// WatchEvent is what happened to an ID that an operator watches. An ID that changes often skips
// states.
type WatchEvent struct {
	At time.Time `json:"at"`
	WhereInfo
}

// RebalanceInfo is a move of clients to other nodes.
type RebalanceInfo struct {
	StartedAt time.Time `json:"started_at"`
	Chosen    int       `json:"chosen"` // sessions
	Asked     int       `json:"asked"`  // of them, so many were asked to move so far
	Done      bool      `json:"done"`
}
