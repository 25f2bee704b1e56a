package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// What an in-process session receives, and what becomes of it.

// ErrAnswered is the error of a second answer to a message, and of any answer after its handler has
// returned.
var ErrAnswered = errors.New("engine: this message was answered before, or its handler has returned")

// Message is what a Handler gets. It is over when the handler has returned: then Payload is nil,
// and answers return ErrAnswered. Until then its methods may be called from any goroutine.
type Message struct {
	To, From string
	Payload  []byte    // a view that ends with the handler's return
	Deadline time.Time // zero: none

	session  *InProcess
	token    [codec.MaxToken]byte // a copy: whoever is late must not read the token of another message
	tokenLen uint8
	wantsAck bool
	answered atomic.Bool
}

// Ack accepts the message, with a reply that may be nil. If the reply is over Config.MaxPayload
// bytes, the message is rejected instead. Only the first answer counts; others return ErrAnswered.
func (m *Message) Ack(reply []byte) error {
	if len(reply) > m.session.eng.cfg.MaxPayload {
		return m.Reject("the reply is too large")
	}
	return m.answer(codec.CodeAcked, "", reply)
}

// Reject refuses the message; the sender hears the reason, cut to codec.MaxReason bytes. Only the
// first answer counts; others return ErrAnswered.
func (m *Message) Reject(reason string) error { return m.answer(codec.CodeRejected, reason, nil) }

func (m *Message) answer(code codec.Code, reason string, reply []byte) error {
	if m.answered.Swap(true) {
		return ErrAnswered
	}
	if !m.wantsAck {
		return nil
	}
	// With the session over there is nobody to answer: the sender has heard lost.
	_ = m.session.submit(context.Background(), nil, func(b []byte, _ uint64) []byte {
		return codec.AppendAck(b, &codec.Ack{Token: m.token[:m.tokenLen], Code: code,
			Reason: []byte(reason[:min(len(reason), codec.MaxReason)]), Reply: reply})
	})
	return nil
}

// handling is where the handler's goroutine is, so that another can go on where a handler has ended
// it.
type handling struct {
	arrival
	rest []byte            // of arrival.buf
	many codec.DeliverMany // of a multicast: the recipients that are left
}

// handleAll is the handler's goroutine.
func (s *InProcess) handleAll() {
	over := false
	defer func() {
		if !over { // only runtime.Goexit in the handler leads here: this goroutine ends
			go s.handleAll()
		}
	}()
	for {
		d, ok := s.nextMessage()
		if !ok {
			break
		}
		s.handle(&d)
	}
	over = true
	<-s.callbacks.Drained()
	close(s.done)
}

// nextMessage waits for a message; ok is false when the session is over: whoever sent what is left
// has heard lost.
func (s *InProcess) nextMessage() (d codec.Deliver, ok bool) {
	h := &s.handling
	for {
		if r, ok := h.many.To.Next(); ok {
			return h.many.Deliver(&r), true
		}
		if len(h.rest) == 0 {
			if !s.nextArrival() {
				return d, false
			}
			continue
		}
		body, n, _ := codec.Split(h.rest, len(h.rest))
		h.rest = h.rest[n:]
		switch kind, _ := codec.PeekKind(body); kind {
		case codec.KindDeliver:
			if codec.DecodeDeliver(body, &d) == nil {
				return d, true
			}
		case codec.KindDeliverMany:
			if codec.DecodeDeliverMany(body, kind, len(body), &h.many) != nil {
				h.many = codec.DeliverMany{}
			}
		}
	}
}

// nextArrival gives back the buffer that has been worked through and waits for the next one.
func (s *InProcess) nextArrival() bool {
	h := &s.handling
	if h.buf != nil {
		s.queued.Add(-int64(len(h.buf)))
		s.eng.memory.held.Add(-int64(cap(h.buf)))
		s.eng.bufs.give([][]byte{h.buf})
		*h = handling{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.over {
		s.wake.Wait()
	}
	if s.over {
		return false
	}
	h.arrival = s.queue[0]
	s.queue[0] = arrival{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	h.rest = h.buf
	return true
}

// handle gives a message to the handler, or back if the session does not hold its ID (S14).
func (s *InProcess) handle(d *codec.Deliver) {
	s.mu.Lock()
	h := s.held[string(d.To)]
	mine := h != nil && (h.binds > 0 || h.epoch >= d.Epoch)
	s.mu.Unlock()
	if !mine {
		_ = s.submit(context.Background(), nil, func(b []byte, _ uint64) []byte { return codec.AppendNotHere(b, d) })
		return
	}
	m := &Message{To: string(d.To), From: string(d.From), Payload: d.Payload, session: s, wantsAck: d.Flags&codec.FlagAck != 0}
	m.tokenLen = uint8(copy(m.token[:], d.Token))
	if d.TTL > 0 {
		m.Deadline = s.handling.at.Add(time.Duration(d.TTL) * time.Millisecond)
		if time.Now().After(m.Deadline) { // its sender has heard timeout
			s.eng.unhandled.Add(1)
			return
		}
	}
	if s.cfg.Handler == nil {
		_ = m.Reject("this session handles no messages")
		return
	}
	s.callHandler(m)
}
