package admin

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/internal/cli"
	"distmsg/internal/identity"
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
	gauge("connections", "Connections of clients, including those in the same process and those without hello, and links to other nodes.", func(s *engine.Stats) float64 { return float64(s.Connections) }),
	gauge("sessions", "Sessions, including detached ones within their resume window.", func(s *engine.Stats) float64 { return float64(s.Sessions) }),
	gauge("ids", "Client IDs that are bound.", func(s *engine.Stats) float64 { return float64(s.IDs) }),
	gauge("watched_ids", "Client IDs that clients of this node watch.", func(s *engine.Stats) float64 { return float64(s.Watched) }),
	gauge("pending_acks", "Sends that wait for an ack.", func(s *engine.Stats) float64 { return float64(s.Pending) }),
	gauge("memory_held_bytes", "Bytes that connections hold: output that waits to be written, unfinished frames, and messages that wait for the registry.", func(s *engine.Stats) float64 { return float64(s.MemoryHeld) }),
	gauge("memory_budget_bytes", "Bytes that connections may hold.", func(s *engine.Stats) float64 { return float64(s.MemoryBudget) }),
	gauge("links", "Open links to other nodes.", func(s *engine.Stats) float64 { return float64(s.Links) }),
	gauge("routes", "Cached routes to IDs at other nodes.", func(s *engine.Stats) float64 { return float64(s.Routes) }),
	gauge("parked_sends", "Sends that wait until the registry resolves their receiver.", func(s *engine.Stats) float64 { return float64(s.Parked) }),
	gauge("loop_stall_longest_seconds", "The longest stall of an event loop in the middle of its work. A busy loop is not stalled.", func(s *engine.Stats) float64 { return s.LongestStall.Seconds() }),
	gauge("loop_silent_seconds", "For how long the slowest event loop has not run, measured at the scrape.", func(s *engine.Stats) float64 { return s.LoopSilence.Seconds() }),
	gauge("lane_busy_seconds", "How long the longest current job off the event loops has been running: a hook, or a call to the registry.", func(s *engine.Stats) float64 { return s.LaneBusy.Seconds() }),

	counter("connections_accepted_total", "Client connections accepted.", func(s *engine.Stats) uint64 { return s.Accepted }),
	counter("connections_closed_total", "Client connections closed.", func(s *engine.Stats) uint64 { return s.Closed }),
	counter("connections_refused_total", "Client connections that could not be accepted because there was no free file descriptor.", func(s *engine.Stats) uint64 { return s.Refused }),
	counter("connections_displaced_total", "Client connections that were closed before their hello, to make room for newer ones.", func(s *engine.Stats) uint64 { return s.Displaced }),
	counter("peer_connections_displaced_total", "Connections to the peer port that were closed before they proved that they know the secret, to make room for newer ones.", func(s *engine.Stats) uint64 { return s.DisplacedPeers }),
	counter("logins_ended_total", "Connections whose clients were asked to log in again, because their credentials had expired or were revoked.", func(s *engine.Stats) uint64 { return s.LoginsEnded }),
	counter("logins_cut_total", "Connections that were closed because the client did not log in again.", func(s *engine.Stats) uint64 { return s.LoginsCut }),
	counter("joins_refused_total", "Hellos refused for now because the node was checking too many others.", func(s *engine.Stats) uint64 { return s.JoinsRefused }),
	counter("tls_failed_total", "Connections that ended because of TLS: the handshake failed or did not end in time, or the peer sent what is not valid later.", func(s *engine.Stats) uint64 { return s.TLSFailed }),
	counter("proxy_headers_missing_total", "Connections from load balancers that did not begin with a header of the PROXY protocol, version 2.", func(s *engine.Stats) uint64 { return s.NoProxyHeader }),
	counter("connections_over_share_total", "Hellos refused for now because few places for connections were left and clients of their address held more than those.", func(s *engine.Stats) uint64 { return s.ConnsOverShare }),
	counter("frames_in_total", "Frames read from clients.", func(s *engine.Stats) uint64 { return s.FramesIn }),
	counter("frames_out_total", "Frames written to clients.", func(s *engine.Stats) uint64 { return s.FramesOut }),
	counter("writes_total", "Write calls that carried frames to clients.", func(s *engine.Stats) uint64 { return s.Writes }),
	counter("wakeups_total", "Iterations of the event loops.", func(s *engine.Stats) uint64 { return s.Wakeups }),
	counter("input_deferred_total", "Times that a client's input waited for its turn because the event loop was busy with others.", func(s *engine.Stats) uint64 { return s.Deferred }),
	counter("frames_sliced_total", "Times that the rest of a frame for many recipients waited for its turn.", func(s *engine.Stats) uint64 { return s.Sliced }),
	counter("sends_total", "Sends that the node accepted for a decision.", func(s *engine.Stats) uint64 { return s.Sends }),
	counter("delivers_unacked_total", "Sends without ack that were written to their receiver.", func(s *engine.Stats) uint64 { return s.Written }),
	counter("forwards_unacked_total", "Times that a send without ack was written to another node.", func(s *engine.Stats) uint64 { return s.Forwarded }),
	counter("forwards_returned_total", "Times that another node returned a send without ack.", func(s *engine.Stats) uint64 { return s.Returned }),
	counter("receives_unacked_total", "Sends without ack that came from another node and were not returned.", func(s *engine.Stats) uint64 { return s.Received }),
	counter("multicasts_total", "Multicast frames accepted; each of their sends is in sends_total.", func(s *engine.Stats) uint64 { return s.Multicasts }),
	counter("multicast_delivers_total", "Times that the payload of a multicast was written to a client, once for all its recipients there.", func(s *engine.Stats) uint64 { return s.MulticastDelivers }),
	counter("multicast_forwards_total", "Times that the payload of a multicast was written to another node.", func(s *engine.Stats) uint64 { return s.MulticastForwards }),
	counter("multicast_returns_total", "Times that another node returned a multicast, in part or whole.", func(s *engine.Stats) uint64 { return s.MulticastReturns }),
	counter("delivers_bounced_total", "Sends without ack that the receiver returned as not_here.", func(s *engine.Stats) uint64 { return s.Bounced }),
	counter("sends_abandoned_total", "Sends whose sender's connection ended first, while they waited for an ack or were parked.", func(s *engine.Stats) uint64 { return s.Abandoned }),
	counter("sends_over_share_total", "Sends that ended overflow because their connection already had its share of the acks that its event loop may wait for.", func(s *engine.Stats) uint64 { return s.OverShare }),
	counter("relayed_over_share_total", "Answers and returned messages that did not fit their client's share of the link to another node.", func(s *engine.Stats) uint64 { return s.LinkOverShare }),
	counter("queue_over_share_total", "Messages that were refused because the queue of the receiver or of the link was more than half full and their sender already had its share of it.", func(s *engine.Stats) uint64 { return s.QueueOverShare }),
	counter("watches_refused_total", "IDs that were not watched because their connection, or all connections together, already watched the maximum.", func(s *engine.Stats) uint64 { return s.WatchesRefused }),
	counter("memory_refused_total", "Messages that were refused because the memory budget was nearly used up.", func(s *engine.Stats) uint64 { return s.MemoryRefused }),
	counter("memory_closed_connections_total", "Connections that were closed because they held most of the memory budget.", func(s *engine.Stats) uint64 { return s.MemoryClosed }),
	counter("log_records_dropped_total", "Log records that were dropped because their reader (usually of stderr) was too slow.", func(s *engine.Stats) uint64 { return s.LogsDropped }),
	counter("spans_dropped_total", "Spans that were dropped because there were more than --otlp-endpoint exports.", func(s *engine.Stats) uint64 { return s.SpansDropped }),
	counter("requests_refused_total", "Binds, unbinds, lookups and watches that ended overflow because their connection already had its share of open requests.", func(s *engine.Stats) uint64 { return s.RequestsRefused }),
	counter("ids_refused_total", "IDs that were not bound because their session, or the node, already held the maximum.", func(s *engine.Stats) uint64 { return s.IDsRefused }),
	counter("takeovers_total", "Binds that displaced another session.", func(s *engine.Stats) uint64 { return s.Takeovers }),
	counter("takeovers_delayed_total", "Times that a bind had to wait because its ID changes hands too often.", func(s *engine.Stats) uint64 { return s.TakeoversDelayed }),
	counter("takeovers_refused_total", "IDs that were not bound because they change hands too often.", func(s *engine.Stats) uint64 { return s.TakeoversRefused }),
	counter("acks_late_total", "Acks that came after their send had ended.", func(s *engine.Stats) uint64 { return s.AcksLate }),
	counter("acks_forged_total", "Acks with a token that was never given to their session.", func(s *engine.Stats) uint64 { return s.AcksForged }),
}

var (
	outcomes = describe("outcomes_total", "Sends that ended, by outcome: all those with ack, and the failures of those without.", "outcome")
	limited  = describe("limited_total", "Times that clients reached one of their limits, by limit and identity. At most 100 identities are named; (others) are the rest.", "limit", "identity")
	faults   = describe("faults_total", "Error frames sent to clients, by fault.", "fault")
)

// collector turns one snapshot of the engine's counters into metrics at each scrape.
type collector struct {
	stats func() engine.Stats
	since time.Time // when counting began
}

func newCollector(stats func() engine.Stats) prometheus.Collector {
	return collector{stats, time.Now()}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for i := range metrics {
		ch <- metrics[i].desc
	}
	ch <- outcomes
	ch <- faults
	ch <- limited
	for i := range timings {
		ch <- timings[i].desc
	}
	ch <- registryCalls
	for _, d := range []*prometheus.Desc{received, sent, queued, unhandled, mail, linkReceived, linkSent, linkQueued, slow} {
		ch <- d
	}
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
	collectLimited(stats.Limited, ch)
	collectTimes(&stats, c.since, ch)
	collectTraffic(&stats, ch)
}

// collectLimited adds up what has the same labels: clients choose their identities, perhaps one of
// that name or one that is not UTF-8.
func collectLimited(all []engine.Limited, ch chan<- prometheus.Metric) {
	type labels struct{ limit, identity string }
	times := make(map[labels]uint64)
	for _, v := range all {
		identity := strings.ToValidUTF8(v.Identity, "\uFFFD")
		if v.Other {
			identity = "(others)"
		}
		times[labels{v.Limit, identity}] += v.Times
	}
	for l, n := range times {
		ch <- prometheus.MustNewConstMetric(limited, prometheus.CounterValue, float64(n), l.limit, l.identity)
	}
}

// newLogins returns a metric that counts logins. Each way and result is present with 0, also if
// there are none to count.
func newLogins(counts func() []identity.Count) prometheus.Collector {
	if counts == nil {
		counts = (*identity.Chain)(nil).Counts
	}
	return loginCounts(counts)
}

// loginCounts turns counts of logins into a metric at each scrape.
type loginCounts func() []identity.Count

var logins = describe("logins_total", "Logins, by way (certificate, token, jwt, callout, anonymous, unknown) and result (accepted, refused, retry).", "way", "result")

// Describe implements prometheus.Collector.
func (loginCounts) Describe(ch chan<- *prometheus.Desc) { ch <- logins }

// Collect implements prometheus.Collector.
func (c loginCounts) Collect(ch chan<- prometheus.Metric) {
	for _, n := range c() {
		ch <- prometheus.MustNewConstMetric(logins, prometheus.CounterValue, float64(n.Times), n.Way.String(), n.Result.String())
	}
}

// newBuildInfo returns a metric whose labels say what the program was built from.
func newBuildInfo(b cli.Build) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "distmsg_build_info",
		Help:        "What the node was built from: version, VCS revision and version of Go. The value is 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	})
	info.Set(1)
	return info
}

// newDegraded returns a metric that counts the problems in health.
func newDegraded(health func() []string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "distmsg_degraded",
		Help: "Number of current problems of this node, for example a missing registry; /healthz lists them.",
	}, func() float64 { return float64(len(health())) })
}
