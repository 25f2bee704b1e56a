package admin

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"distmsg/engine"
	"distmsg/internal/histogram"
)

// The classic buckets end at powers of two of a second, so each consists of whole buckets of the
// native histogram: from 2^shortest, 30 µs, to 2^longest, 16 s.
const (
	shortest = -15
	longest  = 4
)

// timing is a histogram of the table below, and its place in Stats.
type timing struct {
	desc  *prometheus.Desc
	value func(*engine.Stats) *engine.Histogram
}

var timings = []timing{
	{describe("message_residence_seconds", "For how long messages were in this node: from the iteration of the event loop that read them to their write."), func(s *engine.Stats) *engine.Histogram { return &s.Times.Residence }},
	{describe("ack_round_trip_seconds", "Time from when the node passed a send with ack on until the answer of its receiver came."), func(s *engine.Stats) *engine.Histogram { return &s.Times.AckRoundTrip }},
	{describe("lookup_wait_seconds", "For how long messages waited until the registry said who holds an ID."), func(s *engine.Stats) *engine.Histogram { return &s.Times.LookupWait }},
	{describe("loop_iteration_seconds", "How long the iterations of the event loops took, without their last writes."), func(s *engine.Stats) *engine.Histogram { return &s.Times.Iteration }},
	{describe("loop_stall_seconds", "Times of a millisecond or longer in which an event loop did not read its clock in the middle of its work."), func(s *engine.Stats) *engine.Histogram { return &s.Times.Stall }},
	{describe("tls_handshake_seconds", "How long TLS handshakes of accepted connections took that succeeded, with the wait for the other side."), func(s *engine.Stats) *engine.Histogram { return &s.Times.TLSHandshake }},
}

var registryCalls = describe("registry_call_seconds", "How long calls to the registry took, by operation and result (ok, unavailable).", "operation", "result")

// callResult is the label of a call to the registry.
func callResult(failed bool) string {
	if failed {
		return "unavailable"
	}
	return "ok"
}

// collectTimes sends all histograms. since is when they began.
func collectTimes(stats *engine.Stats, since time.Time, ch chan<- prometheus.Metric) {
	for _, t := range timings {
		ch <- newHistogram(t.desc, t.value(stats), since)
	}
	for i := range stats.RegistryCalls {
		c := &stats.RegistryCalls[i]
		ch <- newHistogram(registryCalls, &c.Time, since, c.Operation, callResult(c.Failed))
	}
}

// bothForms is a histogram in the native and in the classic form. A scrape gets the native one only
// if it asks for protobuf.
type bothForms struct {
	prometheus.Metric // the native form
	classic           []*dto.Bucket
}

// Write implements prometheus.Metric.
func (h *bothForms) Write(out *dto.Metric) error {
	if err := h.Metric.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = h.classic
	return nil
}

func newHistogram(desc *prometheus.Desc, h *engine.Histogram, since time.Time, labels ...string) prometheus.Metric {
	native := prometheus.MustNewConstNativeHistogram(desc, h.Count(), h.Sum(), h.Native(), nil, h.Shortest(),
		histogram.Schema, histogram.ZeroThreshold, since, labels...)
	both := &bothForms{Metric: native}
	for power := shortest; power <= longest; power++ {
		both.classic = append(both.classic, &dto.Bucket{CumulativeCount: new(h.UpTo(power)), UpperBound: new(math.Exp2(float64(power)))})
	}
	return both
}
