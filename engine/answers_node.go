package engine

import (
	"context"
	"crypto/tls"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// node answers what this node says about itself.
func (a respondent) node(ctx context.Context, add func(any) error) error {
	e := a.eng
	s := e.Stats()
	i := NodeInfo{
		Node: e.cfg.NodeID, Version: buildVersion(), State: a.state(), Incarnation: e.incarnation.Load(),
		StartedAt: time.UnixMicro(int64(e.since)).UTC(), UptimeSeconds: e.clock().Seconds(),
		Fenced:   e.incarnation.Load() != e.since,
		Sessions: s.Sessions, Conns: s.Connections, IDs: s.IDs, Routes: s.Routes, Watched: s.Watched, Pending: s.Pending, Parked: s.Parked,
		MemoryHeld: s.MemoryHeld, MemoryBudget: s.MemoryBudget,
		Degraded: append([]string{}, e.Health()...), Counters: s.forOperator(), Limits: s.Limited, Links: []LinkInfo{}, Loops: []LoopInfo{},
		Rebalance: e.rebalance.info(),
	}
	if a.ready() == nil {
		i.Addr = e.advertised(e.cfg.Advertise, e.acceptor.listener)
		i.Loops = a.loops()
		if e.cluster != nil {
			i.PeerAddr = e.advertised(e.cfg.PeerAdvertise, e.acceptor.peerListener)
		}
		i.Links = append(i.Links, a.linksInTime(ctx)...)
	}
	return add(i)
}

// linksInTime describes the links, if the loops answer in time. If one is stalled, the node
// answers all the same, and Degraded says so.
func (a respondent) linksInTime(ctx context.Context) []LinkInfo {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	all, _ := a.linkInfos(ctx)
	return all
}

// state returns whether the node takes clients.
func (a respondent) state() NodeState {
	switch e := a.eng; {
	case a.ready() != nil:
		return NodeStarting
	case e.serving.Err() != nil:
		return NodeStopping
	case e.drain.begun.Load():
		return NodeDraining
	}
	return NodeReady
}

// buildVersion returns the version of the program, and the revision that it was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(version, s.Value[:min(len(s.Value), 12)]) {
			version += " " + s.Value[:min(len(s.Value), 12)]
		}
	}
	return version
}

// forOperator returns the counters that operators see.
func (s *Stats) forOperator() NodeCounters {
	c := NodeCounters{
		Accepted: s.Accepted, Closed: s.Closed, FramesIn: s.FramesIn, FramesOut: s.FramesOut,
		BytesIn: s.BytesIn, BytesOut: s.BytesOut, Sends: s.Sends, Written: s.Written, Forwarded: s.Forwarded,
		Received: s.Received, Multicasts: s.Multicasts, Abandoned: s.Abandoned,
		Outcomes: make(map[string]uint64), Faults: make(map[string]uint64),
	}
	for code, n := range s.Outcomes {
		c.Outcomes[code.String()] = n
	}
	for fault, n := range s.Faults {
		c.Faults[fault.String()] = n
	}
	for _, l := range s.Limited {
		c.Limited += l.Times
	}
	return c
}

// loops returns what the loops have published with their latest ticks.
func (a respondent) loops() []LoopInfo {
	all := make([]LoopInfo, 0, len(a.eng.loops))
	now := a.eng.clock()
	for i, l := range a.eng.loops {
		l.pubMu.Lock()
		p := l.pub
		l.pubMu.Unlock()
		all = append(all, LoopInfo{
			Loop: i, Conns: p.live, Pending: p.pending, Wakeups: p.wakeups,
			SilentSeconds:       max(0, now-time.Duration(l.seen.Load())).Seconds(),
			LongestStallSeconds: p.longestStall.Seconds(),
		})
	}
	return all
}

// links answers what this node says about its links.
func (a respondent) links(ctx context.Context, add func(any) error) error {
	if err := a.ready(); err != nil {
		return err
	}
	all, err := a.linkInfos(ctx)
	if err != nil {
		return err
	}
	for _, i := range all {
		if err := add(i); err != nil {
			return err
		}
	}
	return nil
}

// linkInfos describes the links to the other nodes, and names the nodes without one.
func (a respondent) linkInfos(ctx context.Context) ([]LinkInfo, error) {
	e := a.eng
	if e.cluster == nil {
		return nil, nil
	}
	found := make([][]LinkInfo, len(e.loops))
	if !onLoops(ctx, e, func(l *loop, done func()) {
		for _, c := range l.links.all { // as many as there are nodes
			if c.state == stateOpen {
				found[l.idx] = append(found[l.idx], c.link.info())
			}
		}
		done()
	}) {
		return nil, unanswered(ctx)
	}
	open := make(map[string]LinkInfo)
	for _, i := range slices.Concat(found...) {
		open[i.Peer] = i
	}
	var all []LinkInfo
	for _, m := range e.cluster.peers.Members.Overview() {
		i, up := open[m.Node]
		if !up {
			i = LinkInfo{Node: e.cfg.NodeID, Peer: m.Node}
			if m.Refused != "" {
				i.Why = "its settings differ: " + m.Refused
			}
		}
		i.Listed = m.Listed
		all = append(all, i)
	}
	return all, nil
}

// info describes an open link, on its loop.
func (k *link) info() LinkInfo {
	c := k.conn
	i := LinkInfo{
		Node: c.loop.eng.cfg.NodeID, Peer: k.node, Up: true, Remote: c.remote.String(), Dialled: k.dialled,
		Asked: k.answers, Sessions: len(k.sessions), QueuedBytes: c.out.queued(),
		AgeSeconds: seconds(c.loop.now - c.opened), SilentSeconds: seconds(c.loop.now - c.live.lastFrame),
	}
	if state := c.security(); state != nil {
		i.TLS = tls.VersionName(state.Version)
	}
	return i
}
