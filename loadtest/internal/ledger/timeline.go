package ledger

import (
	"time"

	"distmsg/codec"
)

// A Timeline records when things happened: how much happened in each second, how long a receiver
// went without a delivery, and how long senders waited for each kind of outcome. An event costs
// O(1). A second costs one slot of a slice.
type Timeline struct {
	Now      int64 // on the run's clock; the owner sets it
	seconds  []second
	lastAt   []int64 // by receiving connection: its last delivery, or the time of Start
	lastAny  int64
	silence  int64 // the longest time a connection went without a delivery
	silentAt int64 // when that began
	slowest  [128]int64
	running  bool // true from Start to Stop: silences count
}

// second is what happened in one second of the run.
type second struct {
	sent, delivered uint64
	outcomes        [128]uint32 // by code
}

func newTimeline(conns int) Timeline { return Timeline{lastAt: make([]int64, conns)} }

// at returns the second that contains Now.
func (l *Timeline) at() *second {
	n := int(l.Now / int64(time.Second))
	for n >= len(l.seconds) {
		l.seconds = append(l.seconds, second{})
	}
	return &l.seconds[n]
}

// Start begins to measure silences. Stop ends the measurement, and counts the silences that still
// go on.
func (l *Timeline) Start() {
	l.running, l.lastAny = true, l.Now
	for i := range l.lastAt {
		l.lastAt[i] = l.Now
	}
}

func (l *Timeline) Stop() {
	for i := range l.lastAt {
		l.hear(i)
	}
	l.running = false
}

func (l *Timeline) hear(conn int) {
	if quiet := l.Now - l.lastAt[conn]; l.running && quiet > l.silence {
		l.silence, l.silentAt = quiet, l.lastAt[conn]
	}
	l.lastAt[conn] = l.Now
}

func (l *Timeline) deliver(conn int) {
	l.at().delivered++
	l.hear(conn)
	l.lastAny = l.Now
}

// outcome counts an outcome. landed says that the message was in flight since sentAt, its intended
// send time.
func (l *Timeline) outcome(code codec.Code, sentAt int64, landed bool) {
	l.at().outcomes[code&127]++
	if landed {
		l.slowest[code&127] = max(l.slowest[code&127], l.Now-sentAt)
	}
}

// A Second is what happened in one second of a run, warm-up and grace included.
type Second struct {
	At        int // when it begins, in seconds since the run began to make connections
	Sent      uint64
	Delivered uint64
	Outcomes  map[string]uint64 // by word, without words that did not occur
}

// Seconds returns what happened in each second, from the first on.
func (l *Timeline) Seconds() []Second {
	list := make([]Second, len(l.seconds))
	for i := range l.seconds {
		s := &l.seconds[i]
		list[i] = Second{At: i, Sent: s.sent, Delivered: s.delivered, Outcomes: make(map[string]uint64)}
		for code, n := range s.outcomes {
			if n > 0 {
				list[i].Outcomes[codec.Code(code).String()] += uint64(n)
			}
		}
	}
	return list
}

// SlowestMs returns the longest time from the intended send to the outcome, by word, in
// milliseconds.
func (l *Timeline) SlowestMs() map[string]float64 {
	words := make(map[string]float64)
	for code, ns := range l.slowest {
		if ns > 0 {
			words[codec.Code(code).String()] = float64(ns) / 1e6
		}
	}
	return words
}

// Silence returns the longest time that a connection went without a delivery, and when that time
// began.
func (l *Timeline) Silence() (longest, since int64) { return l.silence, l.silentAt }

// LastDelivery returns the time of the last delivery at any connection, or the time of Start if
// there was none.
func (l *Timeline) LastDelivery() int64 { return l.lastAny }
