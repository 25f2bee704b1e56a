package engine

import (
	"time"

	"distmsg/internal/histogram"
)

// Histogram counts durations in buckets, four for a doubling.
type Histogram = histogram.Histogram

// Times says how long things have taken since the start. A loop reads its clock only now and then
// (see pace.go), so what loops measure is exact to the time between two readings: some tens of
// microseconds under load, and the time of one write or hook if that takes longer.
type Times struct {
	// Residence is for how long messages were in this node: from the iteration that read them to
	// the write to a client or another node. It includes the wait for the registry and for the
	// mail of other loops. All messages that leave with one write count as long as the first of
	// them. A frame for many recipients counts once for each connection and link. Bytes that the
	// kernel does not take at once count as written.
	Residence Histogram
	// AckRoundTrip is the time from when a send with ack was written, or was given to the loop of
	// its receiver, until the answer of its receiver came.
	AckRoundTrip Histogram
	// LookupWait is for how long messages waited until the registry said who holds an ID.
	LookupWait Histogram
	// Iteration is how long the iterations of the loops took, without the last writes.
	Iteration Histogram
	// Stall has the times in which a loop did not read its clock in the middle of its work, if they
	// were a millisecond or longer.
	Stall Histogram
	// TLSHandshake is how long the handshakes of accepted connections took that succeeded, with the
	// wait for the other side.
	TLSHandshake Histogram
}

// leastStall is the shortest time that Times.Stall has.
const leastStall = time.Millisecond

// loopTimes are the durations that a loop has measured. All are differences of stamps that the loop
// takes anyway, so a measurement costs no reading of the clock. A message carries no time: the loop
// knows when the input that it handles was read (readAt), and a queue knows when the first of its
// messages was.
type loopTimes struct {
	residence, ackRoundTrip, lookupWait, iteration, stall Histogram
}

func (t *Times) add(p *loopTimes) {
	t.Residence.Merge(&p.residence)
	t.AckRoundTrip.Merge(&p.ackRoundTrip)
	t.LookupWait.Merge(&p.lookupWait)
	t.Iteration.Merge(&p.iteration)
	t.Stall.Merge(&p.stall)
}

// RegistryCall says how long calls to the registry took, of one operation and with one kind of
// result.
type RegistryCall struct {
	Operation string // such as bind
	Failed    bool   // the registry could not be asked
	Time      Histogram
}

// registryCalls returns the calls, for Stats.
func (e *Engine) registryCalls() (all []RegistryCall) {
	for _, c := range e.dir.Calls() {
		all = append(all, RegistryCall(c))
	}
	return all
}
