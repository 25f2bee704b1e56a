package engine

import (
	"time"

	"distmsg/codec"
)

// Stats is a snapshot of an engine's counters. It is at most a few ticks (of 10 ms) old. Fields
// that count events since the start only grow. Others show the present state.
//
// Each accepted send ends in exactly one counter of one node (S3): Written if it had no ack and was
// handed to the receiver's connection, Abandoned if its own connection ended first, and Outcomes in
// all other cases. Until then it is Pending or Parked. A send without ack that travels from node to
// node moves from the counters of the one to those of the other. Once nothing moves, each node has
//
//	Sends + Received = Written + ΣOutcomes + Abandoned + Pending + Parked + Forwarded − Returned
//
// and all nodes together have
//
//	ΣSends = Σ(Written + ΣOutcomes + Abandoned + Pending + Parked) + lost
//
// where lost = Σ(Forwarded − Returned − Received) counts messages that a node wrote to a link, and
// that did not arrive because the link ended. It is 0 as long as no link ends. A send with ack is
// only in the counters of the node that its client is connected to.
type Stats struct {
	// Loops counts the event loops.
	Loops int
	// Connections counts the connections of clients, including those in the same process, and the
	// links, before and after their hello.
	Connections int
	// Sessions counts those that are attached or within their resume window.
	Sessions int
	// IDs counts the IDs that are bound on this node.
	IDs int
	// Pending counts sends that wait for an ack.
	Pending int
	// Watched counts the IDs that clients of this node watch. Each ID counts once.
	Watched int

	// Accepted and Closed count sockets. Refused counts those that the node closed at once because
	// it lacks file descriptors.
	Accepted, Closed, Refused uint64
	// Displaced counts client sockets that the node closed before their hello, to make room for
	// newer ones.
	Displaced uint64
	// DisplacedPeers counts connections to PeerAddr that the node closed, to make room for newer
	// ones, before they had proved that they know the secret.
	DisplacedPeers uint64
	// TLSFailed counts connections that ended because of TLS: those whose handshake failed or did
	// not end in time, and those that sent what is not valid later.
	TLSFailed uint64
	// NoProxyHeader counts connections from Config.ProxyFrom that began with something else than a
	// header of the PROXY protocol, version 2. The node closed them.
	NoProxyHeader uint64
	// ConnsOverShare counts hellos that the node answered with "come again later" because few
	// places were left and clients of the same address held more than those.
	ConnsOverShare uint64
	// JoinsRefused counts hellos that the node answered with "come again later" because it was
	// checking too many others.
	JoinsRefused uint64
	// BytesIn and BytesOut are the sums over PerLoop.
	BytesIn, BytesOut   uint64
	FramesIn, FramesOut uint64
	// Writes counts write calls to client sockets.
	Writes uint64
	// Wakeups counts the iterations of the event loops.
	Wakeups uint64
	// Deferred counts how often input waited for its connection's turn.
	Deferred uint64
	// Sliced counts how often the rest of a frame for many recipients waited for its connection's
	// turn.
	Sliced uint64
	// Sends counts the sends that the node accepted for a decision.
	Sends uint64
	// Written counts sends without ack that were written to their receiver.
	Written uint64
	// Bounced counts those of Written that the receiver returned as not_here.
	Bounced uint64
	// Forwarded counts how often a send without ack was written to another node.
	Forwarded uint64
	// Returned counts those of Forwarded that the other node returned.
	Returned uint64
	// Received counts sends without ack that came from other nodes and that this node did not
	// return.
	Received uint64
	// Multicasts counts accepted multicast frames. Each of their sends also counts in Sends and in
	// the other counters of sends.
	Multicasts uint64
	// MulticastDelivers counts how often the payload of a multicast was written to a client's
	// connection. It is written once for all recipients of that connection.
	MulticastDelivers uint64
	// MulticastForwards counts how often the payload of a multicast was written to a link. It is
	// written once for all recipients behind that link.
	MulticastForwards uint64
	// MulticastReturns counts how often another node returned a forwarded multicast, in part or
	// whole.
	MulticastReturns uint64
	// Links counts links to other nodes, Routes the IDs that are known to be there, and Parked the
	// sends that wait for the registry.
	Links, Routes, Parked int
	// OverShare counts sends that ended with overflow because their connection already had its
	// share of the acks that its loop may wait for.
	OverShare uint64
	// LinkOverShare counts clients' answers and returned messages that did not fit the client's
	// share of a link.
	LinkOverShare uint64
	// QueueOverShare counts messages that were refused because the queue of the receiver or of the
	// link was more than half full and their sender already had its share of it.
	QueueOverShare uint64
	// Abandoned counts sends whose own connection ended first, while they waited for an ack or were
	// parked.
	Abandoned uint64
	// AcksLate counts acks that came after their message had ended or had gone to another session.
	// AcksForged counts acks and returned messages that do not match a message that was delivered
	// to their session.
	AcksLate, AcksForged uint64
	// Outcomes says how sends ended: all sends with ack, and failed ones without.
	Outcomes map[codec.Code]uint64
	// Faults counts the error frames that the node sent, by fault.
	Faults map[codec.Fault]uint64
	// LongestStall is the longest stall of an event loop in the middle of its work. A busy loop is
	// not stalled (S24).
	LongestStall time.Duration
	// LoopSilence is what the method Engine.LoopSilence returns.
	LoopSilence time.Duration
	// LaneBusy is how long the longest current job off the loops has been running: a hook, or a
	// call to the registry.
	LaneBusy time.Duration
	// MemoryHeld is how many bytes connections hold, and MemoryBudget how many they may hold.
	MemoryHeld, MemoryBudget int
	// MemoryRefused counts messages that were refused because the memory budget was nearly used up.
	MemoryRefused uint64
	// MemoryClosed counts connections that were closed because they held most of the memory budget.
	MemoryClosed uint64
	// WatchesRefused counts IDs that were not watched because of MaxWatched or MaxNodeWatched.
	WatchesRefused uint64
	// LogsDropped counts log records that were dropped because the logger's handler was too slow.
	LogsDropped uint64
	// SpansDropped counts spans that were dropped because nobody took them in time, see
	// Config.Spans.
	SpansDropped uint64
	// IDsRefused counts IDs that were not bound because of MaxSessionIDs or MaxNodeIDs.
	IDsRefused uint64
	// RequestsRefused counts binds, unbinds, lookups and watches that ended with overflow because
	// of MaxRequests or MaxNodeRequests.
	RequestsRefused uint64
	// LoginsEnded counts connections whose clients the node asked to log in again, because their
	// credentials had expired or were revoked. LoginsCut counts those of them that it closed
	// because the client did not leave in time.
	LoginsEnded, LoginsCut uint64
	// Takeovers counts binds at this node that displaced another session.
	Takeovers uint64
	// TakeoversDelayed counts how often a bind waited because its ID changes hands too often
	// (TakeoverInterval).
	TakeoversDelayed uint64
	// TakeoversRefused counts IDs whose bind ended with overflow because the ID changes hands too
	// often.
	TakeoversRefused uint64
	// SlowConsumers counts connections that were closed because the other side did not read, by
	// reason: answers_unread, nothing_read or queue_full.
	SlowConsumers map[string]uint64
	// PerLoop is what each event loop counts, and PerLink what each open link does.
	PerLoop []LoopStats
	PerLink []LinkStats
	// Times says how long things took.
	Times Times
	// RegistryCalls says how long calls to the registry took, for each operation and result.
	RegistryCalls []RegistryCall
	// Limited says which clients reached which limits, and how often. It names up to 100
	// identities.
	Limited []Limited
}

// Limited counts how often clients of one identity reached a limit of theirs.
type Limited struct {
	Identity string `json:"identity,omitempty"` // empty for clients without a name
	Other    bool   `json:"other,omitempty"`    // all identities that are not named one by one
	Limit    string `json:"limit"`              // such as identity-messages
	Times    uint64 `json:"times"`
}

// loopStats are one loop's counters. The loop counts without a lock and publishes a copy with each
// tick.
type loopStats struct {
	accepted, closed       uint64
	traffic                [connKinds]Traffic
	slow                   [slowReasons]uint64
	framesIn, framesOut    uint64
	writes, wakeups        uint64
	deferred, sliced       uint64
	sends                  uint64
	written, bounced       uint64
	forwarded, received    uint64
	returned               uint64
	multicasts             uint64
	multicastDelivers      uint64
	multicastForwards      uint64
	multicastReturns       uint64
	parked                 int
	abandoned, overShare   uint64
	linkOverShare          uint64
	overCrowd              uint64
	memoryRefused          uint64
	acksLate, acksForged   uint64
	loginsEnded, loginsCut uint64
	outcomes               [128]uint64
	faults                 [128]uint64
	longestStall           time.Duration
	live, pending          int
	unhandled              int
	spansDropped           uint64
	times                  loopTimes
}

func (l *loop) publish() {
	l.stats.live = l.live
	l.stats.pending = l.settle.acks.Len()
	l.stats.parked = l.park.sends
	l.stats.unhandled = l.turns.unread
	l.stats.spansDropped = l.spans.dropped
	l.pubMu.Lock()
	l.pub = l.stats
	l.publishLinks()
	l.spans.publish()
	l.pubMu.Unlock()
}

// Stats returns the engine's counters. They do not change before Ready and after Run. Any goroutine
// may call it.
func (e *Engine) Stats() Stats {
	office := e.dir.Stats()
	s := Stats{
		Loops:     e.cfg.Loops,
		Sessions:  len(e.table.Sessions()),
		IDs:       e.table.Len(),
		Watched:   office.Watched,
		Refused:   e.acceptor.refused.Load(),
		TLSFailed: e.acceptor.tlsFailed.Load(), NoProxyHeader: e.acceptor.noProxy.Load(),

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

		Limited:       e.limited(),
		RegistryCalls: e.registryCalls(),

		Outcomes: make(map[codec.Code]uint64),
		Faults:   make(map[codec.Fault]uint64),

		SlowConsumers: make(map[string]uint64),
	}
	s.Times.TLSHandshake = e.acceptor.shakes.Read()
	select {
	case <-e.ready:
	default:
		return s
	}
	if e.cluster != nil {
		s.Links = len(*e.cluster.open.Load())
		s.Routes = e.cluster.remote.Len()
	}
	s.LoopSilence = e.LoopSilence()
	s.LaneBusy = e.dir.Busy()
	for _, l := range e.loops {
		l.pubMu.Lock()
		p := l.pub
		s.PerLink = append(s.PerLink, l.pubLinks...)
		l.pubMu.Unlock()
		s.add(&p)
		s.addLoop(&p, l.inbox.bytes.Load())
	}
	s.sortLinks()
	return s
}

func (s *Stats) add(p *loopStats) {
	s.Connections += p.live
	s.Pending += p.pending
	s.Accepted += p.accepted
	s.Closed += p.closed
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
	s.SpansDropped += p.spansDropped
	s.QueueOverShare += p.overCrowd
	s.AcksLate += p.acksLate
	s.AcksForged += p.acksForged
	s.LoginsEnded += p.loginsEnded
	s.LoginsCut += p.loginsCut
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
	s.Times.add(&p.times)
	s.LongestStall = max(s.LongestStall, p.longestStall)
}
