package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"distmsg/engine"
)

// Metrics by event loop, by link and by class. There are as many series as a node has loops and
// links, times three classes at most.
var (
	received  = describe("received_bytes_total", "Bytes read, by event loop and class of connection: client, inside (clients in the node's process) and link (other nodes).", "loop", "class")
	sent      = describe("sent_bytes_total", "Bytes written, by event loop and class of connection.", "loop", "class")
	queued    = describe("queued_bytes", "Bytes that wait to be written because the other side does not read them, by event loop and class of connection.", "loop", "class")
	unhandled = describe("unhandled_bytes", "Bytes that were read and wait for their connection's turn, by event loop.", "loop")
	mail      = describe("mail_bytes", "Bytes that wait for an event loop to take them over from other loops.", "loop")

	linkReceived = describe("link_received_bytes_total", "Bytes read from another node since the link to it opened.", "peer")
	linkSent     = describe("link_sent_bytes_total", "Bytes written to another node since the link to it opened.", "peer")
	linkQueued   = describe("link_queued_bytes", "Bytes that wait to be written to another node.", "peer")

	slow = describe("slow_consumers_total", "Connections that were closed because the other side did not read, by reason: answers_unread, nothing_read, queue_full.", "reason")
)

func collectTraffic(stats *engine.Stats, ch chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	for i := range stats.PerLoop {
		l, loop := &stats.PerLoop[i], strconv.Itoa(i)
		for _, class := range []struct {
			name    string
			traffic *engine.Traffic
		}{{"client", &l.Clients}, {"inside", &l.Inside}, {"link", &l.Links}} {
			send(received, prometheus.CounterValue, float64(class.traffic.BytesIn), loop, class.name)
			send(sent, prometheus.CounterValue, float64(class.traffic.BytesOut), loop, class.name)
			send(queued, prometheus.GaugeValue, float64(class.traffic.Queued), loop, class.name)
		}
		send(unhandled, prometheus.GaugeValue, float64(l.Unhandled), loop)
		send(mail, prometheus.GaugeValue, float64(l.Mail), loop)
	}
	for i := range stats.PerLink {
		k := &stats.PerLink[i]
		send(linkReceived, prometheus.CounterValue, float64(k.BytesIn), k.Node)
		send(linkSent, prometheus.CounterValue, float64(k.BytesOut), k.Node)
		send(linkQueued, prometheus.GaugeValue, float64(k.Queued), k.Node)
	}
	for reason, n := range stats.SlowConsumers {
		send(slow, prometheus.CounterValue, float64(n), reason)
	}
}
