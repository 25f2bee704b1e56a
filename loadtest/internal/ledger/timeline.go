package ledger

import "distmsg/codec"

// A Timeline records how long a receiver went without a delivery, and how long senders waited for
// each kind of outcome. An event costs O(1).
type Timeline struct {
	Now      int64   // on the run's clock; the owner sets it
	lastAt   []int64 // by receiving connection: its last delivery, or the time of Start
	lastAny  int64
	silence  int64 // the longest time a connection went without a delivery
	silentAt int64 // when that began
	slowest  [128]int64
	running  bool // true from Start to Stop: silences count
}

func newTimeline(conns int) Timeline { return Timeline{lastAt: make([]int64, conns)} }

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
	l.hear(conn)
	l.lastAny = l.Now
}

// outcome records an outcome. landed says that the message was in flight since sentAt, its intended
// send time.
func (l *Timeline) outcome(code codec.Code, sentAt int64, landed bool) {
	if landed {
		l.slowest[code&127] = max(l.slowest[code&127], l.Now-sentAt)
	}
}

// Slowest returns the longest time from the intended send to the outcome, by word, in nanoseconds.
func (l *Timeline) Slowest() map[string]int64 {
	words := make(map[string]int64)
	for code, ns := range l.slowest {
		if ns > 0 {
			words[codec.Code(code).String()] = ns
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
