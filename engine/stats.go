package engine

import (
	"time"

	"distmsg/codec"
)

// Stats is a snapshot of an engine's counters, at most a few ticks (of 10 ms) old. Counters only
// grow.
//
// Each send that was accepted ends in exactly one counter of one node (S3): Written (without ack,
// handed to the receiver's connection), Outcomes (all others that have ended), or Abandoned; until
// then it is Pending or Parked. What goes from node to node without ack changes books in between,
// so that each node's balance is, once nothing moves,
//
//	Sends + Received = Written + ΣOutcomes + Abandoned + Pending + Parked + Forwarded − Returned
//
// and over all nodes ΣSends = Σ(Written + ΣOutcomes + Abandoned + Pending + Parked) + lost, where
// lost = Σ(Forwarded − Returned − Received) is what was written to links that ended before it
// arrived: 0 as long as no link ends. A message with ack is in the counters of the node that it was
// sent to, and of no other.
type Stats struct {
	Loops       int
	Connections int // of clients, also in this process, and links; with or without hello
	Sessions    int // attached, or within their resume window
	IDs         int // bound on this node
	Pending     int // sends that wait for an ack
	Watched     int // IDs that clients of this node watch, each counted once

	Accepted, Closed, Refused uint64 // client sockets; refused: for lack of file descriptors
	Displaced                 uint64 // of those, how many were closed before they had said hello, to make room for newer ones
	DisplacedPeers            uint64 // the same for connections to PeerAddr, before they had proved that they know the secret
	ConnsOverShare            uint64 // hellos that were told to come again later, because few places were left and clients of their address had more than those
	JoinsRefused              uint64 // hellos that were told to come again later, because too many others were being checked
	BytesIn, BytesOut         uint64
	FramesIn, FramesOut       uint64
	Writes                    uint64 // write calls to client sockets
	Wakeups                   uint64 // ends of event loop iterations
	Deferred                  uint64 // times that input had to wait for its connection's turn
	Sliced                    uint64 // times that the rest of a frame for many recipients had to
	Sends                     uint64 // send frames accepted for a decision
	Written                   uint64 // sends without ack that were written to their receiver
	Bounced                   uint64 // of those, how many the receiver returned as not_here
	Forwarded                 uint64 // times that a send without ack was written to another node
	Returned                  uint64 // of those, how many the other node gave back
	Received                  uint64 // sends without ack that came from other nodes, and were not given back
	Multicasts                uint64 // multicast frames accepted; each of their sends is in Sends, and in the counters above and below
	MulticastDelivers         uint64 // times that the payload of a multicast was written to a connection: once for all its recipients there
	MulticastForwards         uint64 // the same for links
	MulticastReturns          uint64 // times that another node gave a forwarded multicast back, in part or whole
	Links, Routes, Parked     int    // to other nodes; to IDs there; sends that wait for the registry
	OverShare                 uint64 // sends that ended overflow because their connection had its share of the acks that its loop may wait for
	LinkOverShare             uint64 // answers of clients, and messages that they gave back, that did not fit their share of a link
	QueueOverShare            uint64 // messages that were refused because the receiver's queue, or the link's, was more than half full and their sender had its share of it
	Abandoned                 uint64 // sends whose own connection ended first: with ack, or while they were parked
	AcksLate, AcksForged      uint64
	Outcomes                  map[codec.Code]uint64  // how sends ended: all with ack, and failures without
	Faults                    map[codec.Fault]uint64 // error frames, by what they say
	LongestStall              time.Duration          // the longest that an event loop has been at work without a stamp, see docs/semantics.md S24
	LoopSilence               time.Duration          // since the latest stamp of the event loop whose stamp is the oldest; 10 ms and less as a rule
	LaneBusy                  time.Duration          // of the longest job under way off the loops: a hook's, or a question to the registry
	MemoryHeld, MemoryBudget  int                    // bytes that connections hold, and that they may hold
	MemoryRefused             uint64                 // messages that were refused because the memory budget was nearly used up
	MemoryClosed              uint64                 // connections that were closed because they held most of it
	WatchesRefused            uint64                 // IDs that were not watched because of MaxWatched or MaxNodeWatched
	LogsDropped               uint64                 // log records that the logger's handler was too slow for
	IDsRefused                uint64                 // IDs that were not bound because of MaxSessionIDs or MaxNodeIDs
	RequestsRefused           uint64                 // binds, unbinds, look-ups and watches that ended overflow because of MaxRequests or MaxNodeRequests
	Takeovers                 uint64                 // binds at this node that displaced another session
	TakeoversDelayed          uint64                 // times that a bind had to wait, because the ID changes hands too often (TakeoverInterval)
	TakeoversRefused          uint64                 // IDs whose bind ended overflow for that
}

// loopStats are one loop's counters. The loop counts without locks and publishes a copy at every
// tick.
type loopStats struct {
	accepted, closed     uint64
	bytesIn, bytesOut    uint64
	framesIn, framesOut  uint64
	writes, wakeups      uint64
	deferred, sliced     uint64
	sends                uint64
	written, bounced     uint64
	forwarded, received  uint64
	returned             uint64
	multicasts           uint64
	multicastDelivers    uint64
	multicastForwards    uint64
	multicastReturns     uint64
	parked               int
	abandoned, overShare uint64
	linkOverShare        uint64
	overCrowd            uint64
	memoryRefused        uint64
	acksLate, acksForged uint64
	outcomes             [128]uint64
	faults               [128]uint64
	longestStall         time.Duration
	live, pending        int
}

func (l *loop) publish() {
	l.stats.live = l.live
	l.stats.pending = l.settle.acks.Len()
	l.stats.parked = l.park.sends
	l.pubMu.Lock()
	l.pub = l.stats
	l.pubMu.Unlock()
}

// Stats returns the engine's counters. Before Ready and after Run they do not move.
func (e *Engine) Stats() Stats {
	office := e.dir.Stats()
	s := Stats{
		Loops:    e.cfg.Loops,
		Sessions: len(e.table.Sessions()),
		IDs:      e.table.Len(),
		Watched:  office.Watched,
		Refused:  e.acceptor.refused.Load(),

		Displaced:      e.acceptor.clients.displacements(),
		DisplacedPeers: e.acceptor.peers.displacements(),
		JoinsRefused:   e.joins.refusals(),
		ConnsOverShare: e.acceptor.clients.refusals(),

		WatchesRefused:  office.WatchesRefused,
		MemoryHeld:      int(e.memory.held.Load()),
		MemoryBudget:    int(e.memory.budget),
		MemoryClosed:    e.memory.closed.Load(),
		LogsDropped:     e.log.Dropped(),
		IDsRefused:      office.IDsRefused,
		RequestsRefused: e.requestsRefused.Load(),

		Takeovers:        office.Takeovers,
		TakeoversDelayed: office.TakeoversDelayed,
		TakeoversRefused: office.TakeoversRefused,

		Outcomes: make(map[codec.Code]uint64),
		Faults:   make(map[codec.Fault]uint64),
	}
	select {
	case <-e.ready:
	default:
		return s
	}
	if e.cluster != nil {
		s.Links = len(*e.cluster.open.Load())
		s.Routes = e.cluster.remote.Len()
	}
	if e.ctx.Err() == nil {
		s.LoopSilence, _ = e.loopSilence()
	}
	s.LaneBusy = e.dir.Busy()
	for _, l := range e.loops {
		l.pubMu.Lock()
		p := l.pub
		l.pubMu.Unlock()
		s.add(&p)
	}
	return s
}

func (s *Stats) add(p *loopStats) {
	s.Connections += p.live
	s.Pending += p.pending
	s.Accepted += p.accepted
	s.Closed += p.closed
	s.BytesIn += p.bytesIn
	s.BytesOut += p.bytesOut
	s.FramesIn += p.framesIn
	s.FramesOut += p.framesOut
	s.Writes += p.writes
	s.Wakeups += p.wakeups
	s.Deferred += p.deferred
	s.Sliced += p.sliced
	s.Sends += p.sends
	s.Written += p.written
	s.Bounced += p.bounced
	s.Forwarded += p.forwarded
	s.Multicasts += p.multicasts
	s.MulticastDelivers += p.multicastDelivers
	s.MulticastForwards += p.multicastForwards
	s.MulticastReturns += p.multicastReturns
	s.Returned += p.returned
	s.Received += p.received
	s.Parked += p.parked
	s.Abandoned += p.abandoned
	s.MemoryRefused += p.memoryRefused
	s.OverShare += p.overShare
	s.LinkOverShare += p.linkOverShare
	s.QueueOverShare += p.overCrowd
	s.AcksLate += p.acksLate
	s.AcksForged += p.acksForged
	for code, n := range p.outcomes {
		if n > 0 {
			s.Outcomes[codec.Code(code)] += n
		}
	}
	for fault, n := range p.faults {
		if n > 0 {
			s.Faults[codec.Fault(fault)] += n
		}
	}
	s.LongestStall = max(s.LongestStall, p.longestStall)
}
