package engine

import (
	"distmsg/codec"
	"distmsg/routing"
)

// echoes are pings whose pongs come last. When such a pong arrives, the other node has read
// everything that was sent over the link before the ping. And everything that it has sent for that,
// or had under way to this link by then, has arrived here. The loop owns them.
type echoes struct {
	loop *loop // static

	asked   uint64          // how many pings were sent
	waiting map[uint64]echo // by the nonce of their pings
}

type echo struct {
	link  routing.Handle
	heard func()
}

const (
	// echoPing marks the ping of an echo. The ping of a heartbeat carries a time instead. The bits
	// from echoLoop on hold the index of the loop.
	echoPing = 1 << 63
	echoLoop = 40
)

// ask sends a ping over a link, on any loop. The loop calls heard once: when the pong has arrived,
// or when the link has ended.
func (es *echoes) ask(h routing.Handle, heard func()) {
	l := es.loop
	es.asked++
	no := echoPing | uint64(l.idx)<<echoLoop | es.asked
	es.waiting[no] = echo{h, heard}
	l.links.send(h, codec.AppendPing(l.scratch.control[:0], no))
}

// heard ends the echo of a nonce, if it waits.
func (es *echoes) heard(no uint64) {
	if e, ok := es.waiting[no]; ok {
		delete(es.waiting, no)
		e.heard()
	}
}

// linkEnded ends all echoes of a link. Nothing more comes over it.
func (es *echoes) linkEnded(h routing.Handle) {
	for no, e := range es.waiting {
		if e.link == h {
			es.heard(no)
		}
	}
}

// handlePong passes the pong of an echo to the loop that has asked.
func (k *link) handlePong(body []byte) error {
	c := k.conn
	no, err := codec.DecodePong(body)
	if loop := uint16(no &^ echoPing >> echoLoop); err == nil && no&echoPing != 0 && int(loop) < len(c.loop.eng.loops) {
		c.loop.mail.notify(loop, note{kind: noteEcho, seq: no})
	}
	return err
}

// handlePing answers a ping of the other node. The answer to an echo comes after what other loops
// have for the link.
func (k *link) handlePing(body []byte) error {
	l := k.conn.loop
	no, err := codec.DecodePing(body)
	switch {
	case err != nil:
		return err
	case no&echoPing == 0 || len(l.eng.loops) == 1:
		k.conn.out.wroteControl(codec.AppendPong(k.conn.out.buf(), no))
		return nil
	}
	// In the first round the other loops get what this one has for them, and in the second this
	// one gets what they answer.
	rounds, h := &l.eng.mailRounds, k.handle
	rounds.after(func() {
		rounds.after(func() {
			l.post(func() { l.links.send(h, codec.AppendPong(l.scratch.control[:0], no)) })
		})
	})
	return nil
}
