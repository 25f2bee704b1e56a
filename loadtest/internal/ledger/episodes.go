package ledger

import (
	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/codec"
)

// Episodes are the parts of a run between marks: a fault begins, a fault ends. They know how the
// messages of each part ended, and how long after a fault each receiver could be reached again. An
// event costs O(number of episodes during its life).
type Episodes struct {
	receivers int
	list      []Episode
}

// An Episode is the time from one mark to the next.
type Episode struct {
	Name  string
	Fault bool  // a fault begins here
	From  int64 // on the run's clock
	// How the messages of the episode ended. A message belongs to the episode in which it should
	// have left. If it was not acked, and a fault began before its end, it belongs to that fault.
	Outcomes Outcomes
	Latency  *hdrhistogram.Histogram // of the acked ones, in nanoseconds

	reach []reach // of a fault: by receiver
}

// reach is what a fault did to one receiver. Times are on the run's clock.
type reach struct {
	failed int64 // when the last message that was not acked left; -1: there was none
	back   int64 // when the first acked message after that left; Unknown: none so far
}

// newEpisodes begins the first episode, in which nothing is wrong.
func newEpisodes(receivers int, now int64) *Episodes {
	e := &Episodes{receivers: receivers}
	e.Mark("", false, now)
	return e
}

// Mark ends an episode and begins the next.
func (e *Episodes) Mark(name string, fault bool, now int64) {
	next := Episode{Name: name, Fault: fault, From: now, Latency: hdrhistogram.New(1000, int64(maxEpisodeLatency), 2)}
	if fault {
		next.reach = make([]reach, e.receivers)
		for i := range next.reach {
			next.reach[i] = reach{failed: -1, back: Unknown}
		}
	}
	e.list = append(e.list, next)
}

const maxEpisodeLatency = 3600e9 // ns

// ended records a message that had been in flight since at.
func (e *Episodes) ended(receiver uint32, code codec.Code, at, now int64) {
	i := len(e.list) - 1
	for i > 0 && at < e.list[i].From {
		i--
	}
	good := code == codec.CodeAcked
	if !good {
		for j := i + 1; j < len(e.list); j++ {
			if e.list[j].Fault {
				i = j
				break
			}
		}
	}
	of := &e.list[i]
	of.Outcomes[code&127]++
	if good {
		// in range, so it cannot fail
		_ = of.Latency.RecordValue(min(max(now-at, 0), maxEpisodeLatency))
	}
	for ; i >= 0; i-- {
		if fault := &e.list[i]; fault.Fault {
			if int(receiver) < len(fault.reach) {
				fault.reach[receiver].record(good, max(at, fault.From))
			}
			return
		}
	}
}

func (r *reach) record(good bool, at int64) {
	switch {
	case !good:
		r.failed = max(r.failed, at)
		if r.back <= r.failed {
			r.back = Unknown
		}
	case at > r.failed:
		r.back = min(r.back, at)
	}
}

// All returns the episodes so far. They change with the next event.
func (e *Episodes) All() []Episode { return e.list }

// Recovery says how a fault ended for the receivers. Failed of them had messages that were not
// acked. After is the time from the fault until each of these had an acked message after its last
// failure. Missing of them had none until the next fault, or the end of the run.
func (e *Episode) Recovery() (failed, missing int, after int64) {
	for _, r := range e.reach {
		switch {
		case r.failed < 0:
			continue
		case r.back == Unknown:
			missing++
		default:
			after = max(after, r.back-e.From)
		}
		failed++
	}
	return failed, missing, after
}
