package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"distmsg/engine"
)

// Grade says how bad something is.
type Grade string

// The grades, the worst first.
const (
	Bad  Grade = "bad"  // messages are lost or not delivered
	Warn Grade = "warn" // something is missing, or soon will be
	Note Grade = "note" // an operator may have done it
	Good Grade = "good"
)

// rank is the place of a grade.
func (g Grade) rank() int { return slices.Index([]Grade{Bad, Warn, Note, Good}, g) }

// Trouble is something that an operator should know, and what to do about it.
type Trouble struct {
	Grade Grade    `json:"grade"`
	Nodes []string `json:"nodes"` // that have it
	What  string   `json:"what"`
	Do    string   `json:"do"`
}

// advice is what to do about a line of a node's health. docs/operations.md says more.
var advice = []struct {
	line  string // how it begins
	grade Grade
	do    string
}{
	{"calls to the registry have failed", Bad, "Repair Redis: the line quotes its answer. Known IDs can be reached meanwhile. Do not restart nodes."},
	{"the registry must be fixed", Warn, "Change Redis as the line says."},
	{"the registry has lost data", Note, "Wait: this takes ten seconds after Redis came up empty or failed over, and after the first node started."},
	{"event loop", Bad, "If it persists, look for a machine without a free CPU, or for a hook that blocks."},
	{"a lane has been busy", Warn, "Look for a hook that blocks: binds of some IDs wait for it."},
	{"connections that do not read", Warn, "Look at the slowest sessions below. If their clients are well, raise --memory-budget."},
	{"no link to node", Bad, "Look at that node, at its log, and at the network between the two."},
	{"the list of nodes names", Warn, "Start that node, or take its address out of DNS."},
	{"the node ignores a wrong entry", Warn, "Delete the entry that is named."},
	{"the list of nodes may be out of date", Warn, "Repair ZooKeeper or DNS. Messages flow meanwhile."},
}

// judge finds the troubles, and sums them up.
func (v *View) judge(s *sight) {
	if s.err != nil {
		v.add(Bad, "This node cannot be asked: "+strings.TrimPrefix(s.err.Error(), "engine: ")+".", "Look at its log.")
	}
	for i := range v.Nodes {
		v.judgeNode(&v.Nodes[i])
	}
	for i := range s.nodes.Answers {
		v.judgeHealth(&s.nodes.Answers[i])
	}
	v.judgeOutcomes()
	v.judgeClients()
	slices.SortStableFunc(v.Troubles, func(a, b Trouble) int { return cmp.Compare(a.Grade.rank(), b.Grade.rank()) })
	v.sumUp()
}

// add adds a trouble. If several nodes have the same, it is one.
func (v *View) add(grade Grade, what, do string, nodes ...string) {
	for i := range v.Troubles {
		if t := &v.Troubles[i]; t.What == what {
			t.Nodes = append(t.Nodes, nodes...)
			return
		}
	}
	v.Troubles = append(v.Troubles, Trouble{grade, append([]string{}, nodes...), what, do})
}

// judgeNode looks at the state of a node.
func (v *View) judgeNode(n *Node) {
	switch n.State {
	case Gone:
		grade, which := Warn, "It is no longer in the list of nodes."
		if n.Listed {
			grade, which = Bad, "It is in the list of nodes, and no other node has a link to it."
		}
		v.add(grade, "Node "+n.Node+" is gone.", which+" If nobody has stopped it, look at its process, its log and its network. "+
			"Its clients go to other nodes by themselves.", n.Node)
	case NoAnswer:
		v.add(Bad, "Node "+n.Node+" does not answer: "+n.Why+".", "Look at its CPU and its log. It has links, so messages may still flow.", n.Node)
	case State(engine.NodeDraining):
		v.add(Note, "Node "+n.Node+" drains.",
			fmt.Sprintf("It takes no new clients. Sessions that are still there: %d. Nothing is to be done if somebody is about to stop it. Else: relay undrain %s", n.Sessions, n.Node), n.Node)
	case State(engine.NodeStarting), State(engine.NodeStopping):
		v.add(Note, "Node "+n.Node+" is "+string(n.State)+".", "Wait. If it persists, look at its log.", n.Node)
	}
}

// judgeHealth looks at what a node does without.
func (v *View) judgeHealth(n *engine.NodeInfo) {
	for _, line := range n.Degraded {
		if v.saysGone(line) {
			continue
		}
		grade, do := Warn, "docs/operations.md, Is it well?, explains the line."
		for _, a := range advice {
			if strings.HasPrefix(line, a.line) {
				grade, do = a.grade, a.do
				break
			}
		}
		v.add(grade, strings.ToUpper(line[:1])+line[1:]+".", do, n.Node)
	}
	if n.Fenced {
		v.add(Note, "The process of node "+n.Node+" stood still for some seconds, and has begun anew.", "If that happens again, look at its machine: too little CPU or memory, or a host that sleeps.", n.Node)
	}
}

// saysGone reports whether a line says only that there is no link to a node that is gone.
func (v *View) saysGone(line string) bool {
	return slices.ContainsFunc(v.Nodes, func(n Node) bool {
		return n.State == Gone && strings.HasPrefix(line, fmt.Sprintf("no link to node %q", n.Node))
	})
}

// outcomes are those that an operator should know of if more than a hundredth of messages end so.
// The alerts in deploy/ have the same bound.
var outcomes = []struct {
	code  string
	grade Grade
	do    string
}{
	{"lost", Bad, "A node or a link has ended while messages were under way: the receiver may have got them or not."},
	{"timeout", Bad, "Receivers do not answer in time: look at the slowest sessions, and at the app servers behind them."},
	{"unreachable", Warn, "A node is gone or cut off, and its clients are not back yet."},
	{"overflow", Warn, "Receivers read too slowly, or senders send too much: look at the slowest sessions and at the limits."},
	{"registry_unavailable", Warn, "Redis does not answer: IDs that a node does not know cannot be found."},
}

const (
	leastMessages = 100 // in the latest samples. Of fewer, no share is computed
	worstShare    = 0.01
)

// judgeOutcomes looks at how messages ended in the latest samples.
func (v *View) judgeOutcomes() {
	var sends, limited float64
	ended := make(map[string]float64)
	for _, s := range v.Samples {
		if v.At.Sub(s.At) > judgedFor {
			continue
		}
		sends, limited = sends+float64(s.Sends), limited+float64(s.Limited)
		for code, n := range s.Outcomes {
			ended[code] += float64(n)
		}
	}
	for _, o := range outcomes {
		if n := ended[o.code]; sends >= leastMessages && n > worstShare*sends {
			v.add(o.grade, fmt.Sprintf("%.0f %% of messages end %s.", max(1, min(100, 100*n/sends)), o.code), o.do)
		}
	}
	if limited > 0 {
		v.add(Warn, fmt.Sprintf("Clients have reached limits %.0f times in the last ten seconds.", limited),
			"The table of limits says who and which. Raise the limit of that identity, or talk to its owner.")
	}
}

// slowQueue is how many bytes may wait for a session before it is called slow.
const slowQueue = 1 << 20

// judgeClients looks at the slowest sessions.
func (v *View) judgeClients() {
	for i := range v.Slowest {
		if s := &v.Slowest[i]; s.QueuedBytes > slowQueue {
			v.add(Warn, fmt.Sprintf("Session %.8s… at node %s reads too slowly: %.1f MB wait for it.", s.Session, s.Node, float64(s.QueuedBytes)/1e6),
				"Look at the app server at the other end. Its messages end overflow when its queue is full.", s.Node)
		}
	}
}

// sumUp says all in a sentence.
func (v *View) sumUp() {
	ready := 0
	for i := range v.Nodes {
		if v.Nodes[i].State == State(engine.NodeReady) {
			ready++
		}
	}
	v.Grade = Good
	for _, t := range v.Troubles {
		if t.Grade.rank() < v.Grade.rank() {
			v.Grade = t.Grade
		}
	}
	v.Summary = "Nothing is wrong."
	if len(v.Troubles) > 0 {
		v.Summary = v.Troubles[0].What
	}
	if more := len(v.Troubles) - 1; more > 0 {
		v.Summary += fmt.Sprintf(" And %d more.", more)
	}
	v.Summary += fmt.Sprintf(" %d of %d nodes are ready.", ready, len(v.Nodes))
}
