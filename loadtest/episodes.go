package loadtest

import (
	"time"

	"distmsg/codec"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/result"
)

// markEpisode ends an episode of the run and begins the next. Config.Divide gets this function.
// After the run, it does nothing.
func (r *run) markEpisode(name string, fault bool) (at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return 0
	}
	r.d.Do(func() {
		r.t.Tick()
		r.t.Ledger.Episodes().Mark(name, fault, r.t.Now)
		at = time.Duration(r.t.Now)
	})
	return at
}

// episodes returns the parts of the run until now, on the run's clock.
func episodes(e *ledger.Episodes, now int64) (list []result.Episode) {
	if e == nil {
		return nil
	}
	all := e.All()
	for i := range all {
		end := now
		if i+1 < len(all) {
			end = all[i+1].From
		}
		list = append(list, episode(&all[i], end))
	}
	return list
}

func episode(e *ledger.Episode, end int64) result.Episode {
	ep := result.Episode{Name: e.Name, Fault: e.Fault, At: result.Seconds(e.From) / 1e9, Length: result.Seconds(end-e.From) / 1e9,
		Latency: result.LatencyOf(e.Latency), Outcomes: make(map[string]uint64)}
	for code, n := range e.Outcomes {
		if n > 0 {
			ep.Outcomes[codec.Code(code).String()] += n
		}
	}
	if ep.Length > 0 {
		ep.Rate = float64(e.Outcomes[codec.CodeAcked]) / float64(ep.Length)
	}
	if e.Fault {
		failed, missing, after := e.Recovery()
		ep.FailedReceivers, ep.MissingReceivers, ep.Recovery = failed, missing, new(result.Seconds(after)/1e9)
	}
	return ep
}
