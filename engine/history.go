package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
)

// A node remembers what it did in the last ten minutes, so that an operator who looks at it sees at
// once what went before. It adds up what the loops have published anyway, as Stats does, and asks
// no loop. A sample costs some microseconds and up to a kilobyte, so the node takes samples also
// while nobody looks: what led to a trouble is over when the operator comes.
const (
	sampleEvery = 2 * time.Second
	mostSamples = 300
)

// history is what the node did lately. One goroutine adds samples. Any goroutine may read them.
type history struct {
	eng *Engine // static

	mu      sync.Mutex
	samples []HistorySample // guarded by mu; a ring as soon as it has mostSamples
	oldest  int             // guarded by mu
}

// tallies are counters at one moment.
type tallies struct {
	at                      time.Duration
	sends, limited          uint64
	outcomes                [128]uint64
	residence, ackRoundTrip Histogram
	peers                   []string
}

// run takes samples until ctx ends.
func (h *history) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	before := h.read()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			now := h.read()
			h.add(h.sample(at, before, now))
			before = now
		}
	}
}

// read adds up what the loops have published.
func (h *history) read() *tallies {
	t := &tallies{at: h.eng.clock()}
	for _, l := range h.eng.loops {
		l.pubMu.Lock()
		t.sends += l.pub.sends
		for code, n := range &l.pub.outcomes {
			t.outcomes[code] += n
		}
		t.residence.Merge(&l.pub.times.residence)
		t.ackRoundTrip.Merge(&l.pub.times.ackRoundTrip)
		for _, k := range l.pubLinks {
			t.peers = append(t.peers, k.Node)
		}
		l.pubMu.Unlock()
	}
	slices.Sort(t.peers)
	t.peers = slices.Compact(t.peers)
	for _, o := range h.eng.accounts.Offences() {
		t.limited += o.Times
	}
	return t
}

// sample is what the node did between two moments.
func (h *history) sample(at time.Time, before, now *tallies) HistorySample {
	s := HistorySample{
		Node: h.eng.cfg.NodeID, At: at.UTC().Truncate(time.Millisecond), Seconds: (now.at - before.at).Seconds(),
		Sends: now.sends - before.sends, Limited: now.limited - min(before.limited, now.limited),
		Residence:    spread(&before.residence, &now.residence),
		AckRoundTrip: spread(&before.ackRoundTrip, &now.ackRoundTrip),
		Peers:        now.peers,
	}
	for code, n := range &now.outcomes {
		if more := n - before.outcomes[code]; more > 0 {
			if s.Outcomes == nil {
				s.Outcomes = make(map[string]uint64)
			}
			s.Outcomes[codec.Code(code).String()] = more
		}
	}
	return s
}

// spread describes what a histogram has counted since before.
func spread(before, now *Histogram) *Spread {
	since := now.Since(before)
	n := since.Count()
	if n == 0 {
		return nil
	}
	return &Spread{Count: n, P50Seconds: since.Quantile(0.5), P99Seconds: since.Quantile(0.99)}
}

// add adds a sample in place of the oldest.
func (h *history) add(s HistorySample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) < mostSamples {
		h.samples = append(h.samples, s)
		return
	}
	h.samples[h.oldest] = s
	h.oldest = (h.oldest + 1) % mostSamples
}

// latest returns up to n samples, the oldest of them first. They are not changed later.
func (h *history) latest(n int) []HistorySample {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Concat(h.samples[h.oldest:], h.samples[:h.oldest])
	return all[len(all)-min(n, len(all)):]
}

// samples answers what this node did lately.
func (a respondent) samples(_ context.Context, args limitArgs) ([]HistorySample, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	limit := args.Limit
	if limit <= 0 {
		limit = mostSamples
	}
	return a.eng.history.latest(limit), nil
}
