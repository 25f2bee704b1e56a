package client

import "distmsg/internal/callback"

// callbacks calls the application. Each kind of callback has a queue and a goroutine of its own. It
// waits neither for the goroutines of connections, nor for handlers, nor for other kinds. No lock
// is held during a call.
type callbacks struct {
	group     *callback.Group
	kicks     *callback.Line[Kick]
	drains    *callback.Line[Drain]
	states    *callback.Line[State]
	presences *callback.Line[struct{}]
	failures  *callback.Line[failure]
	outcomes  *callback.Line[Outcome]
	spans     *callback.Line[Span]
	answers   *callback.Line[ending] // SendAsync and MulticastAsync

	// room bounds the answers. A SendAsync takes its place before it sends, and releases it when
	// its callback begins.
	room budget
}

// maxOutcomes is how many outcomes may wait for OnOutcome.
const maxOutcomes = 1 << 16

func newCallbacks(s *Session) *callbacks {
	cfg := &s.cfg
	g := callback.NewGroup(cfg.Logger, "distmsg: ", func() { s.count.panics.Add(1) })
	cb := &callbacks{
		group: g,
		// Only a bound ID can be lost, so the number of bound IDs bounds the queue.
		kicks:     callback.NewLine(g, "OnKick", 0, 0, cfg.OnKick),
		drains:    callback.NewLine(g, "OnDrain", cfg.QueueMessages, 0, cfg.OnDrain),
		states:    callback.NewLine(g, "OnState", cfg.QueueMessages, 0, cfg.OnState),
		presences: callback.NewLine(g, "OnPresence", 0, 0, func(struct{}) { s.watches.tellPresence() }),
		failures:  callback.NewLine(g, "OnPostFailed", cfg.QueueMessages, 0, func(f failure) { cfg.OnPostFailed(f.id, f.err) }),
		outcomes:  callback.NewLine(g, "OnOutcome", maxOutcomes, 0, cfg.OnOutcome),
		spans:     callback.NewLine(g, "OnSpan", mostSpans, 0, cfg.OnSpan),
		answers:   callback.NewLine(g, "the callback of a SendAsync or MulticastAsync", 0, cfg.Workers, s.answer),
	}
	cb.room.setLimits(cfg.MaxInFlight, unlimited)
	return cb
}

// ending is the outcome of a SendAsync or MulticastAsync on its way to the callback.
type ending struct {
	done    func(Reply, error)
	reply   Reply
	err     error
	many    func([]Result, error) // of a multicast, in place of the three fields above
	results []Result
	places  int // that it holds in callbacks.room
}

func (e *ending) call() {
	if e.many != nil {
		e.many(e.results, e.err)
	} else {
		e.done(e.reply, e.err)
	}
}

func (s *Session) answer(e ending) {
	s.cb.room.release(e.places, 0)
	e.call()
}

// answerHere calls the callback of a message that was not sent, on the sender's goroutine.
func (s *Session) answerHere(e ending) {
	callback.Contain(e.call, func(f callback.Failure) { s.failed(&f, "the callback of a SendAsync or MulticastAsync") })
}

// failed counts and logs a function of the application that did not return.
func (s *Session) failed(f *callback.Failure, who string, args ...any) {
	s.count.panics.Add(1)
	f.Log(s.cfg.Logger, "distmsg: "+who, args...)
}

// notify queues a callback, if the application wants it.
func notify[T any](s *Session, wanted bool, l *callback.Line[T], all ...T) {
	if wanted && len(all) > 0 && !l.Push(all...) {
		s.count.eventsDropped.Add(uint64(len(all)))
	}
}
