package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/token"
)

// mailFrame is a frame between loops: a message on its way to a client or over a link, for one
// receiver or for several.
type mailFrame struct {
	kind    codec.Kind
	deliver codec.Deliver // of one for several, what they share
	forward codec.Forward // scratch
	many    codec.DeliverMany
}

func (f *mailFrame) decode(body []byte) (err error) {
	if f.kind, err = codec.PeekKind(body); err != nil {
		return err
	}
	switch f.kind {
	case codec.KindDeliver:
		return codec.DecodeDeliver(body, &f.deliver)
	case codec.KindDeliverMany, codec.KindForwardMany:
		err = codec.DecodeDeliverMany(body, f.kind, len(body), &f.many)
		f.deliver = codec.Deliver{From: f.many.From, TTL: f.many.TTL, Flags: f.many.Flags, Payload: f.many.Payload, Trace: f.many.Trace}
	default:
		err = codec.DecodeForward(body, f.kind, &f.forward)
		f.deliver = f.forward.Deliver
	}
	return err
}

func (f *mailFrame) isMany() bool {
	return f.kind == codec.KindDeliverMany || f.kind == codec.KindForwardMany
}

// count is how many receivers it has.
func (f *mailFrame) count() int {
	if f.isMany() {
		return f.many.To.Len()
	}
	return 1
}

// messages yields its messages, one for each receiver; each is good until the next.
func (f *mailFrame) messages(yield func(*codec.Deliver) bool) {
	if !f.isMany() {
		yield(&f.deliver)
		return
	}
	walk := f.many.To
	for r, ok := walk.Next(); ok; r, ok = walk.Next() {
		if d := f.many.Deliver(&r); !yield(&d) {
			return
		}
	}
}

// refuseMail ends a frame's messages.
func (mr *mailroom) refuseMail(f *mailFrame, v verdict) {
	for d := range f.messages {
		mr.refuseOne(d, v)
	}
}

// each walks a buffer that this package has filled with whole frames. f may move
// the bytes of the frame it is given, but none that follow.
func (mr *mailroom) each(buf []byte, f func(frame []byte, m *mailFrame)) {
	for len(buf) > 0 {
		body, n, err := codec.Split(buf, len(buf))
		if err == nil {
			err = mr.walk.decode(body)
		}
		if err != nil || n == 0 {
			panic("engine: mail between loops is corrupt") // our own bytes, so our own bug
		}
		frame := buf[:n]
		buf = buf[n:]
		f(frame, &mr.walk)
		mr.loop.pace.worked(mr.walk.count())
	}
}

// refuse ends every frame in buf as v says: none of them was written.
func (mr *mailroom) refuse(buf []byte, v verdict) {
	mr.each(buf, func(_ []byte, f *mailFrame) { mr.refuseMail(f, v) })
}

// refuseOne ends a message that was armed or reported by its own loop, and not written here.
func (mr *mailroom) refuseOne(d *codec.Deliver, v verdict) {
	l := mr.loop
	if _, _, ok := token.Link(d.Token); ok {
		l.links.refuse(d, v)
		return
	}
	code := v.code
	l.eng.hooks.undelivered(d, code)
	switch {
	case d.Flags&codec.FlagAck != 0:
		mr.sayFailed(token.Entry(d.Token), v)
	case d.Flags&codec.FlagReport != 0:
		l.stats.outcomes[code]++
		h, seq := token.Report(d.Token)
		mr.notify(h.Loop, note{kind: noteReport, handle: h, seq: seq, code: code})
	default:
		l.stats.outcomes[code]++
	}
}

// undelivered is undelivered for a buffer of mail that is thrown away.
func (mr *mailroom) undelivered(buf []byte, code codec.Code) {
	l := mr.loop
	if l.eng.cfg.Hooks.Undeliverable == nil {
		return
	}
	mr.each(buf, func(_ []byte, f *mailFrame) {
		for d := range f.messages {
			l.eng.hooks.undelivered(d, code)
		}
	})
}
