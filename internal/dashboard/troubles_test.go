package dashboard

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/engine"
)

// answers are what a cluster says that has three nodes, of which n0 is asked.
func answers() *sight {
	at := time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)
	s := &sight{at: at}
	for _, node := range []string{"n0", "n1", "n2"} {
		n := engine.NodeInfo{Node: node, State: engine.NodeReady}
		sample := engine.HistorySample{Node: node, At: at, Seconds: 2, Sends: 1000, Outcomes: map[string]uint64{"acked": 1000}}
		for _, peer := range []string{"n0", "n1", "n2"} {
			if peer != node {
				n.Links = append(n.Links, engine.LinkInfo{Node: node, Peer: peer, Up: true, Listed: true})
				sample.Peers = append(sample.Peers, peer)
			}
		}
		s.nodes.Answers, s.samples.Answers = append(s.nodes.Answers, n), append(s.samples.Answers, sample)
	}
	return s
}

// lose takes the answer of the last node, and the links to it if it has ended.
func (s *sight) lose(why string, ended bool) {
	s.nodes.Answers = s.nodes.Answers[:2]
	s.nodes.Missing = []engine.MissingNode{{Node: "n2", Why: why}}
	for i := range s.nodes.Answers {
		for j := range s.nodes.Answers[i].Links {
			if k := &s.nodes.Answers[i].Links[j]; k.Peer == "n2" && ended {
				k.Up = false
			}
		}
	}
}

// What is wrong is said once, with what to do, the worst first.
func TestTroubles(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  func(s *sight)
		grade   Grade
		summary string
		state   State // of n2
	}{
		{"all is well", func(*sight) {}, Good, "Nothing is wrong. 3 of 3 nodes are ready.", "ready"},
		{"killed", func(s *sight) {
			s.lose("there is no link to the node", true)
			s.nodes.Answers[0].Degraded = []string{`no link to node "n2"`}
		}, Bad, "Node n2 is gone. 2 of 3 nodes are ready.", Gone},
		{"no longer listed", func(s *sight) {
			s.nodes.Answers = s.nodes.Answers[:2]
			for i := range s.nodes.Answers {
				s.nodes.Answers[i].Links = s.nodes.Answers[i].Links[:1]
			}
		}, Warn, "Node n2 is gone. 2 of 3 nodes are ready.", Gone},
		{"too busy", func(s *sight) { s.lose("no answer within the deadline", false) }, Bad, "Node n2 does not answer: no answer within the deadline. 2 of 3", NoAnswer},
		{"drains", func(s *sight) { s.nodes.Answers[2].State = engine.NodeDraining }, Note, "Node n2 drains. 2 of 3", "draining"},
		{"a link is missing", func(s *sight) {
			s.nodes.Answers[0].Degraded = []string{`no link to node "n1": refused`}
		}, Bad, `No link to node "n1": refused.`, "ready"},
		{"the same at two nodes", func(s *sight) {
			for i := range 2 {
				s.nodes.Answers[i].Degraded = []string{"a line that nobody knows"}
			}
		}, Warn, "A line that nobody knows. 3 of 3", "ready"},
		{"the worst first", func(s *sight) {
			s.nodes.Answers[0].Degraded = []string{"the list of nodes may be out of date: x", "calls to the registry have failed for 3s: x"}
		}, Bad, "Calls to the registry have failed for 3s: x. And 1 more.", "ready"},
		{"messages are lost", func(s *sight) { s.samples.Answers[1].Outcomes["lost"] = 300 }, Bad, "10 % of messages end lost.", "ready"},
		{"few of many time out", func(s *sight) { s.samples.Answers[1].Outcomes["timeout"] = 3 }, Good, "Nothing is wrong.", "ready"},
		{"they were lost long ago", func(s *sight) {
			s.samples.Answers[1].Outcomes["lost"] = 300
			s.samples.Answers[1].At = s.at.Add(-time.Minute)
		}, Good, "Nothing is wrong.", "ready"},
		{"limits", func(s *sight) { s.samples.Answers[1].Limited = 7 }, Warn, "Clients have reached limits 7 times", "ready"},
		{"slow", func(s *sight) {
			s.sessions.Answers = []engine.SessionInfo{{Session: "0123456789abcdef", Node: "n1", QueuedBytes: 3e6}}
		}, Warn, "Session 01234567… at node n1 reads too slowly: 3.0 MB", "ready"},
		{"it was stopped", func(s *sight) { s.nodes.Answers[2].Fenced = true }, Note, "The process of node n2 stood still", "ready"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, known := answers(), make(acquaintances)
			known.meet(s.samples.Answers)
			tc.change(s)
			v := s.view(known)
			if v.Grade != tc.grade || !strings.HasPrefix(v.Summary, tc.summary) {
				t.Errorf("%s: %q, want %s: %q", v.Grade, v.Summary, tc.grade, tc.summary)
			}
			if len(v.Nodes) != 3 || v.Nodes[2].Node != "n2" || v.Nodes[2].State != tc.state {
				t.Errorf("%+v", v.Nodes)
			}
			for _, trouble := range v.Troubles {
				if trouble.Do == "" || trouble.Nodes == nil {
					t.Errorf("%+v", trouble)
				}
			}
		})
	}
}

// A node that is gone is forgotten after ten minutes.
func TestForgets(t *testing.T) {
	s, known := answers(), make(acquaintances)
	known.meet(s.samples.Answers)
	s.nodes.Answers = s.nodes.Answers[:1]
	s.nodes.Answers[0].Links = nil
	if v := s.view(known); len(v.Nodes) != 3 {
		t.Errorf("%+v", v.Nodes)
	}
	s.at = s.at.Add(rememberFor + time.Second)
	if v := s.view(known); len(v.Nodes) != 1 || len(known) != 0 {
		t.Errorf("%+v, %v", v.Nodes, known)
	}
}

// Both ends of a link say what they know of it.
func TestLinks(t *testing.T) {
	s := answers()
	s.nodes.Answers[0].Links[0].Up = false // to n1, which says that there is one
	s.nodes.Answers[0].Links[1].QueuedBytes = 5
	if got, want := s.links(), []Link{{A: "n0", B: "n1", Half: true}, {A: "n0", B: "n2", Up: true, QueuedBytes: 5}, {A: "n1", B: "n2", Up: true}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// asker counts how often it is asked.
type asker struct{ asked chan int }

func (a asker) Nodes(context.Context) (engine.Asked[engine.NodeInfo], error) {
	return answers().nodes, nil
}

func (a asker) Sessions(context.Context, engine.SessionQuery) (engine.Asked[engine.SessionInfo], error) {
	return engine.Asked[engine.SessionInfo]{}, nil
}

func (a asker) History(_ context.Context, limit int) (engine.Asked[engine.HistorySample], error) {
	a.asked <- limit
	return answers().samples, nil
}

// The feed asks once for all who watch, and nobody while nobody does.
func TestFeed(t *testing.T) {
	a := asker{make(chan int, 100)}
	f := NewFeed(a)
	first, leaveFirst := f.Watch()
	if v := <-first; v.Node != "n0" || v.Grade != Good {
		t.Errorf("%+v", v)
	}
	second, leaveSecond := f.Watch()
	<-second
	if limit := <-a.asked; limit != 0 {
		t.Errorf("the first look asks for %d samples of each node, not for all", limit)
	}
	leaveFirst()
	f.mu.Lock()
	if f.stop == nil {
		t.Error("it has ended while somebody watches")
	}
	f.mu.Unlock()
	leaveSecond()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop != nil || f.latest != nil || len(f.watchers) != 0 {
		t.Errorf("%+v", f)
	}
}
