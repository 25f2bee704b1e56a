package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"distmsg/codec"
	"distmsg/engine"
)

// metric is one line of the table below: a name, and the place of its value in Stats.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*engine.Stats) float64
}

func gauge(name, help string, value func(*engine.Stats) float64) metric {
	return metric{describe(name, help), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(*engine.Stats) uint64) metric {
	return metric{describe(name, help), prometheus.CounterValue, func(s *engine.Stats) float64 { return float64(value(s)) }}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("distmsg_"+name, help, labels, nil)
}

var metrics = []metric{
	gauge("loops", "Event loops.", func(s *engine.Stats) float64 { return float64(s.Loops) }),
	gauge("connections", "Client connections, those of clients in the same process included, those without hello included.", func(s *engine.Stats) float64 { return float64(s.Connections) }),
	gauge("sessions", "Sessions, detached ones within their resume window included.", func(s *engine.Stats) float64 { return float64(s.Sessions) }),
	gauge("ids", "Client IDs that are bound.", func(s *engine.Stats) float64 { return float64(s.IDs) }),
	gauge("watched_ids", "Client IDs whose coming and going clients of this node watch.", func(s *engine.Stats) float64 { return float64(s.Watched) }),
	gauge("pending_acks", "Sends that wait for an ack.", func(s *engine.Stats) float64 { return float64(s.Pending) }),
	gauge("memory_held_bytes", "Bytes that connections hold: what waits to be written to them, unfinished frames, and what waits for the registry.", func(s *engine.Stats) float64 { return float64(s.MemoryHeld) }),
	gauge("memory_budget_bytes", "Bytes that connections may hold.", func(s *engine.Stats) float64 { return float64(s.MemoryBudget) }),
	gauge("links", "Links to other nodes that are open.", func(s *engine.Stats) float64 { return float64(s.Links) }),
	gauge("routes", "Routes to IDs at other nodes that are remembered.", func(s *engine.Stats) float64 { return float64(s.Routes) }),
	gauge("parked_sends", "Sends that wait for the registry's word on their receiver.", func(s *engine.Stats) float64 { return float64(s.Parked) }),
	gauge("loop_stall_longest_seconds", "The longest time that an event loop has stood still in the middle of its work. A loop that is busy does not stand still.", func(s *engine.Stats) float64 { return s.LongestStall.Seconds() }),
	gauge("loop_silent_seconds", "How long ago the event loop that has been silent the longest has run. It is measured now, and not when the loop runs again.", func(s *engine.Stats) float64 { return s.LoopSilence.Seconds() }),
	gauge("lane_busy_seconds", "How long the longest job off the event loops has been under way: a hook, or a question to the registry.", func(s *engine.Stats) float64 { return s.LaneBusy.Seconds() }),

	counter("connections_accepted_total", "Client connections accepted.", func(s *engine.Stats) uint64 { return s.Accepted }),
	counter("connections_closed_total", "Client connections closed.", func(s *engine.Stats) uint64 { return s.Closed }),
	counter("connections_refused_total", "Client connections that could not be accepted for lack of file descriptors.", func(s *engine.Stats) uint64 { return s.Refused }),
	counter("connections_displaced_total", "Client connections that were closed before they had said hello, to make room for newer ones.", func(s *engine.Stats) uint64 { return s.Displaced }),
	counter("peer_connections_displaced_total", "Connections to the peer port that were closed before they had proved that they know the secret, to make room for newer ones.", func(s *engine.Stats) uint64 { return s.DisplacedPeers }),
	counter("joins_refused_total", "Hellos that were told to come again later, because too many others were being checked.", func(s *engine.Stats) uint64 { return s.JoinsRefused }),
	counter("connections_over_share_total", "Hellos that were told to come again later, because few places for connections were left and clients of their address had more than those.", func(s *engine.Stats) uint64 { return s.ConnsOverShare }),
	counter("bytes_in_total", "Bytes read from clients.", func(s *engine.Stats) uint64 { return s.BytesIn }),
	counter("bytes_out_total", "Bytes written to clients.", func(s *engine.Stats) uint64 { return s.BytesOut }),
	counter("frames_in_total", "Frames read from clients.", func(s *engine.Stats) uint64 { return s.FramesIn }),
	counter("frames_out_total", "Frames written to clients.", func(s *engine.Stats) uint64 { return s.FramesOut }),
	counter("writes_total", "Write calls that carried those frames.", func(s *engine.Stats) uint64 { return s.Writes }),
	counter("wakeups_total", "Ends of event loop iterations.", func(s *engine.Stats) uint64 { return s.Wakeups }),
	counter("input_deferred_total", "Times that input of a client waited for its turn, because the event loop was busy with others.", func(s *engine.Stats) uint64 { return s.Deferred }),
	counter("frames_sliced_total", "Times that the rest of a frame for many recipients waited for its turn.", func(s *engine.Stats) uint64 { return s.Sliced }),
	counter("sends_total", "Send frames accepted for a decision.", func(s *engine.Stats) uint64 { return s.Sends }),
	counter("delivers_unacked_total", "Sends without ack that were written to their receiver.", func(s *engine.Stats) uint64 { return s.Written }),
	counter("forwards_unacked_total", "Times that a send without ack was written to another node.", func(s *engine.Stats) uint64 { return s.Forwarded }),
	counter("forwards_returned_total", "Of those, how many the other node gave back.", func(s *engine.Stats) uint64 { return s.Returned }),
	counter("receives_unacked_total", "Sends without ack that came from another node and were not given back.", func(s *engine.Stats) uint64 { return s.Received }),
	counter("multicasts_total", "Multicast frames accepted; each of their sends is in sends_total.", func(s *engine.Stats) uint64 { return s.Multicasts }),
	counter("multicast_delivers_total", "Times that the payload of a multicast was written to a client, once for all its recipients there.", func(s *engine.Stats) uint64 { return s.MulticastDelivers }),
	counter("multicast_forwards_total", "Times that the payload of a multicast was written to another node.", func(s *engine.Stats) uint64 { return s.MulticastForwards }),
	counter("multicast_returns_total", "Times that another node gave a multicast back, in part or whole.", func(s *engine.Stats) uint64 { return s.MulticastReturns }),
	counter("delivers_bounced_total", "Sends without ack that the receiver returned as not_here.", func(s *engine.Stats) uint64 { return s.Bounced }),
	counter("sends_abandoned_total", "Sends whose sender's connection ended first: with ack, or while they were parked.", func(s *engine.Stats) uint64 { return s.Abandoned }),
	counter("sends_over_share_total", "Sends that ended overflow because their connection had its share of the acks that its event loop may wait for.", func(s *engine.Stats) uint64 { return s.OverShare }),
	counter("relayed_over_share_total", "Answers for other nodes, and messages to give back to them, that did not fit their client's share of the link.", func(s *engine.Stats) uint64 { return s.LinkOverShare }),
	counter("queue_over_share_total", "Messages that were refused because the queue of their receiver, or of the link to it, was more than half full, and their sender had its share of it.", func(s *engine.Stats) uint64 { return s.QueueOverShare }),
	counter("watches_refused_total", "IDs that were not watched because their connection, or all together, watch as many as are allowed.", func(s *engine.Stats) uint64 { return s.WatchesRefused }),
	counter("memory_refused_total", "Messages that were refused because the memory budget was nearly used up.", func(s *engine.Stats) uint64 { return s.MemoryRefused }),
	counter("memory_closed_connections_total", "Connections that were closed because they held most of the memory budget.", func(s *engine.Stats) uint64 { return s.MemoryClosed }),
	counter("log_records_dropped_total", "Log records that were dropped because whatever takes them (stderr, as a rule) did not keep up.", func(s *engine.Stats) uint64 { return s.LogsDropped }),
	counter("requests_refused_total", "Binds, unbinds, look-ups and watches that ended overflow because their connection has its share of those under way.", func(s *engine.Stats) uint64 { return s.RequestsRefused }),
	counter("ids_refused_total", "IDs that were not bound because their session, or the node, holds the most that are allowed.", func(s *engine.Stats) uint64 { return s.IDsRefused }),
	counter("takeovers_total", "Binds that displaced another session.", func(s *engine.Stats) uint64 { return s.Takeovers }),
	counter("takeovers_delayed_total", "Times that a bind had to wait because its ID changes hands too often.", func(s *engine.Stats) uint64 { return s.TakeoversDelayed }),
	counter("takeovers_refused_total", "IDs that were not bound because they change hands too often.", func(s *engine.Stats) uint64 { return s.TakeoversRefused }),
	counter("acks_late_total", "Acks for sends that had ended.", func(s *engine.Stats) uint64 { return s.AcksLate }),
	counter("acks_forged_total", "Acks with a token that was never given to their session.", func(s *engine.Stats) uint64 { return s.AcksForged }),
}

var (
	outcomes = describe("outcomes_total", "Sends that ended, by outcome: all those with ack, and the failures of those without.", "outcome")
	faults   = describe("faults_total", "Error frames sent to clients, by fault.", "fault")
)

// collector turns one snapshot of the engine's counters into metrics at each scrape.
type collector struct{ stats func() engine.Stats }

func newCollector(stats func() engine.Stats) prometheus.Collector { return collector{stats} }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for i := range metrics {
		ch <- metrics[i].desc
	}
	ch <- outcomes
	ch <- faults
}

// Collect implements prometheus.Collector. Outcomes and faults that have not happened yet are
// present with 0, so that Prometheus sees their first increase.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	stats := c.stats()
	for _, m := range metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&stats))
	}
	for _, code := range codec.Outcomes() {
		ch <- prometheus.MustNewConstMetric(outcomes, prometheus.CounterValue, float64(stats.Outcomes[code]), code.String())
	}
	for fault := codec.FaultZeroLength; fault <= codec.LastFault; fault++ {
		ch <- prometheus.MustNewConstMetric(faults, prometheus.CounterValue, float64(stats.Faults[fault]), fault.String())
	}
}

// newDegraded returns a metric that counts the problems in health.
func newDegraded(health func() []string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "distmsg_degraded",
		Help: "How many things this node has to do without at the moment, such as the registry; /healthz names them.",
	}, func() float64 { return float64(len(health())) })
}
