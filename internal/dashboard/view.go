package dashboard

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"distmsg/engine"
)

// View is the cluster at one moment, as one node sees it.
type View struct {
	At   time.Time `json:"at"`
	Node string    `json:"node"` // the one that was asked
	// Grade is that of the worst trouble, and Summary says it in a sentence.
	Grade    Grade                  `json:"grade"`
	Summary  string                 `json:"summary"`
	Troubles []Trouble              `json:"troubles"`
	Nodes    []Node                 `json:"nodes"`
	Links    []Link                 `json:"links"`
	Slowest  []engine.SessionInfo   `json:"slowest"`
	Limits   []Limit                `json:"limits"`
	Samples  []engine.HistorySample `json:"samples"` // the latest of each node
}

// State is what is known of a node.
type State string

// The states of a node that answers are those of engine.NodeState.
const (
	// NoAnswer: a node has a link to it, but it does not answer.
	NoAnswer State = "no_answer"
	// Gone: no node that answers has a link to it.
	Gone State = "gone"
)

// Node is a node in a view. Nodes that do not answer have no figures.
type Node struct {
	Node          string    `json:"node"`
	State         State     `json:"state"`
	Why           string    `json:"why,omitempty"`  // it does not answer
	Seen          time.Time `json:"seen,omitzero"`  // when a node had a link to it, if it is gone
	Listed        bool      `json:"listed"`         // the membership lists it, or it answers
	Addr          string    `json:"addr,omitempty"` // where clients connect
	Version       string    `json:"version,omitempty"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Sessions      int       `json:"sessions"`
	Conns         int       `json:"conns"`
	IDs           int       `json:"ids"`
	Pending       int       `json:"pending_acks"`
	Parked        int       `json:"parked"`
	MemoryHeld    int       `json:"memory_held_bytes"`
	MemoryBudget  int       `json:"memory_budget_bytes"`
}

// Link is what the nodes say about the link between two of them. A comes before B.
type Link struct {
	A           string `json:"a"`
	B           string `json:"b"`
	Up          bool   `json:"up"`   // all of the two that answer say so
	Half        bool   `json:"half"` // only one of the two says so
	Why         string `json:"why,omitempty"`
	QueuedBytes int    `json:"queued_bytes"`
}

// Limit is how often clients of one identity reached a limit at a node, since the node has started.
type Limit struct {
	Node string `json:"node"`
	engine.Limited
}

// limitsShown is how many limits a view has.
const limitsShown = 20

// sight is what the nodes answered at one moment.
type sight struct {
	at       time.Time
	err      error // the node could not be asked
	nodes    engine.Asked[engine.NodeInfo]
	sessions engine.Asked[engine.SessionInfo]
	samples  engine.Asked[engine.HistorySample]
}

// acquaintances are the nodes of the last minutes, and when a sample last named each.
type acquaintances map[string]time.Time

// rememberFor is how long a node that is gone is shown.
const rememberFor = 10 * time.Minute

// meet adds the nodes that samples name.
func (a acquaintances) meet(samples []engine.HistorySample) {
	for _, s := range samples {
		for _, node := range append([]string{s.Node}, s.Peers...) {
			if a[node].Before(s.At) {
				a[node] = s.At
			}
		}
	}
}

// view makes a view out of what the nodes answered.
func (s *sight) view(known acquaintances) *View {
	v := &View{At: s.at, Troubles: []Trouble{}, Nodes: []Node{}, Links: s.links(), Slowest: s.slowest(), Limits: s.limits(), Samples: s.latest()}
	if len(s.nodes.Answers) > 0 {
		v.Node = s.nodes.Answers[0].Node
	}
	for i := range s.nodes.Answers {
		v.Nodes = append(v.Nodes, answering(&s.nodes.Answers[i]))
	}
	v.Nodes = append(v.Nodes, s.absent(known)...)
	slices.SortFunc(v.Nodes, func(a, b Node) int { return cmp.Compare(a.Node, b.Node) })
	v.judge(s)
	return v
}

// answering describes a node that answers.
func answering(n *engine.NodeInfo) Node {
	return Node{
		Node: n.Node, State: State(n.State), Listed: true, Addr: n.Addr, Version: n.Version, UptimeSeconds: n.UptimeSeconds,
		Sessions: n.Sessions, Conns: n.Conns, IDs: n.IDs, Pending: n.Pending, Parked: n.Parked,
		MemoryHeld: n.MemoryHeld, MemoryBudget: n.MemoryBudget,
	}
}

// absent describes the nodes that do not answer: those that are listed or linked, and those that
// were there lately.
func (s *sight) absent(known acquaintances) []Node {
	all := make(map[string]Node)
	for node, seen := range known {
		if s.at.Sub(seen) > rememberFor {
			delete(known, node)
			continue
		}
		all[node] = Node{Node: node, State: Gone, Seen: seen}
	}
	for _, m := range s.nodes.Missing {
		n := all[m.Node]
		n.Node, n.State, n.Why = m.Node, Gone, m.Why
		all[m.Node] = n
	}
	for i := range s.nodes.Answers {
		for _, k := range s.nodes.Answers[i].Links {
			n, there := all[k.Peer]
			if !there && !k.Listed {
				continue
			}
			n.Node, n.State, n.Listed = k.Peer, cmp.Or(n.State, Gone), n.Listed || k.Listed
			if k.Up {
				n.State = NoAnswer
			}
			n.Why = cmp.Or(k.Why, n.Why)
			all[k.Peer] = n
		}
	}
	for i := range s.nodes.Answers {
		delete(all, s.nodes.Answers[i].Node)
	}
	return slices.Collect(maps.Values(all))
}

// links makes one Link of what both ends say.
func (s *sight) links() []Link {
	answers := make(map[string]bool)
	for i := range s.nodes.Answers {
		answers[s.nodes.Answers[i].Node] = true
	}
	pairs, ends := make(map[[2]string]*Link), make(map[[2]string]int)
	for i := range s.nodes.Answers {
		for _, k := range s.nodes.Answers[i].Links {
			pair := [2]string{min(k.Node, k.Peer), max(k.Node, k.Peer)}
			l := pairs[pair]
			if l == nil {
				l = &Link{A: pair[0], B: pair[1]}
				pairs[pair] = l
			}
			if k.Up {
				ends[pair]++
			}
			l.Why, l.QueuedBytes = cmp.Or(l.Why, k.Why), max(l.QueuedBytes, k.QueuedBytes)
		}
	}
	all := make([]Link, 0, len(pairs))
	for pair, l := range pairs {
		said := 0
		for _, node := range pair {
			if answers[node] {
				said++
			}
		}
		l.Up, l.Half = ends[pair] == said, ends[pair] > 0 && ends[pair] < said
		all = append(all, *l)
	}
	slices.SortFunc(all, func(a, b Link) int { return cmp.Or(cmp.Compare(a.A, b.A), cmp.Compare(a.B, b.B)) })
	return all
}

// slowest returns the slowest sessions of all nodes.
func (s *sight) slowest() []engine.SessionInfo {
	all := append([]engine.SessionInfo{}, s.sessions.Answers...)
	slices.SortFunc(all, func(a, b engine.SessionInfo) int {
		return cmp.Or(cmp.Compare(b.QueuedBytes, a.QueuedBytes), cmp.Compare(b.SilentSeconds, a.SilentSeconds))
	})
	return all[:min(slowestShown, len(all))]
}

// limits returns the limits that were reached most often.
func (s *sight) limits() []Limit {
	all := []Limit{}
	for i := range s.nodes.Answers {
		n := &s.nodes.Answers[i]
		for _, l := range n.Limits {
			all = append(all, Limit{n.Node, l})
		}
	}
	slices.SortStableFunc(all, func(a, b Limit) int { return cmp.Compare(b.Times, a.Times) })
	return all[:min(limitsShown, len(all))]
}

// latest returns the latest samples of each node.
func (s *sight) latest() []engine.HistorySample {
	all := []engine.HistorySample{}
	of := make(map[string]int)
	for i := len(s.samples.Answers) - 1; i >= 0; i-- {
		if v := s.samples.Answers[i]; of[v.Node] < samplesShown {
			of[v.Node]++
			all = append(all, v)
		}
	}
	slices.Reverse(all)
	return all
}
