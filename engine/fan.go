package engine

import (
	"distmsg/codec"
	"distmsg/routing"
)

// target is a recipient whose route is known.
type target struct {
	seq     uint64 // of its send, if the message began at this node
	token   []byte // of its forward, if the message came over a link
	to      []byte
	session *routing.Session
	epoch   uint64
	tries   int // how often it was parked
	// in the fan: 1 + the index of the next target of its batch, or 0 for the last
	next int
}

// batch is the part of a multicast that goes to one connection or over one link.
type batch struct {
	handle      routing.Handle
	link        bool
	size        int // bounds the frame
	singly      int // bytes so far for a client that gets one frame per message
	n           int // targets
	first, last int // their indexes in fan.targets
}

// fits checks for room for one more message where b.size is not enough: a client without
// deliver_many gets the payload with each message (S21).
func (b *batch) fits(dest destination, d *codec.Deliver) verdict {
	c := dest.conn
	if c == nil || c.kind == linkConn || c.receiver.takesMany {
		return verdict{}
	}
	b.singly += codec.DeliverSize(d) + codec.MaxToken
	if !c.out.fits(b.singly) {
		return c.out.full(b.singly)
	}
	return verdict{}
}

// fan groups the targets of one multicast by their routes. It is the loop's scratch, and empty
// between two multicasts.
type fan struct {
	at         map[routing.Handle]int // indexes in batches
	batches    []batch
	targets    []target // of all batches
	recipients []codec.Recipient
	bytes      []byte // tokens and session IDs of recipients
	back       []codec.Recipient
	others     [][]codec.Recipient // by loop; recipients to handle there
	asking     []string
	refusing   bool // many messages are being taken back, and one error reports the refused ones
	refused    bool // some have been refused
	each       int  // cost of writing to one recipient, in units of work
	cost       int  // rough cost for all recipients and their payloads
}

func (f *fan) add(h routing.Handle, link bool, payload int, t target) {
	i, ok := f.at[h]
	if !ok {
		if f.at == nil {
			f.at = make(map[routing.Handle]int)
		}
		i = len(f.batches)
		f.at[h] = i
		f.cost += batchCost + payload/bytesPerUnit
		f.batches = append(f.batches, batch{handle: h, link: link, size: codec.MulticastSize[[]byte](payload, nil), first: len(f.targets)})
	}
	b := &f.batches[i]
	if b.n > 0 {
		f.targets[b.last].next = len(f.targets) + 1
	}
	b.last = len(f.targets)
	b.n++
	f.cost += f.each
	b.size += codec.RecipientSize(t.to)
	f.targets = append(f.targets, t)
}

// of yields the targets of a batch in the order in which they were added.
func (f *fan) of(b *batch) func(yield func(*target) bool) {
	return func(yield func(*target) bool) {
		for i := b.first + 1; i > 0; i = f.targets[i-1].next {
			if !yield(&f.targets[i-1]) {
				return
			}
		}
	}
}

// away adds a recipient that another loop has to handle. It does nothing if loop is not an index
// below n.
func (f *fan) away(loop, n int, r codec.Recipient) {
	if loop >= n {
		return
	}
	for len(f.others) < n {
		f.others = append(f.others, nil)
	}
	f.others[loop] = append(f.others[loop], r)
}

// reset forgets the targets and all data that they refer to.
func (f *fan) reset() {
	clear(f.targets)
	clear(f.back)
	clear(f.asking)
	clear(f.at)
	for i := range f.others {
		clear(f.others[i])
		f.others[i] = f.others[i][:0]
	}
	f.batches, f.targets, f.back, f.asking, f.cost = f.batches[:0], f.targets[:0], f.back[:0], f.asking[:0], 0
}

// written forgets the recipients of a frame and all data that they refer to.
func (f *fan) written(all []codec.Recipient) {
	clear(all)
	f.recipients, f.bytes = all[:0], f.bytes[:0]
}

// recipient makes a recipient. It copies short-lived data to the fan's bytes.
func (l *loop) recipient(d *codec.Deliver, session routing.SessionID) codec.Recipient {
	keep := func(b []byte) []byte {
		l.scratch.fan.bytes = append(l.scratch.fan.bytes, b...)
		return l.scratch.fan.bytes[len(l.scratch.fan.bytes)-len(b):]
	}
	return codec.Recipient{Token: keep(d.Token), To: d.To, Epoch: d.Epoch, Session: keep(session[:])}
}

// writeMany appends a message for several recipients to its destination. write does the same for
// one.
func (l *loop) writeMany(to destination, kind codec.Kind, m *codec.DeliverMany, all []codec.Recipient) {
	if len(all) == 0 {
		return
	}
	if len(m.Trace) > 0 {
		l.spans.note(m.Trace, kind == codec.KindForwardMany, len(all))
	}
	unacked := unackedOf(m.Flags, len(all))
	if kind == codec.KindForwardMany {
		l.stats.multicastForwards++
	} else {
		l.stats.multicastDelivers++
	}
	c := to.conn
	if c == nil {
		ch := l.mail.chunkFor(to, unacked)
		ch.many = true
		ch.buf = codec.AppendDeliverMany(ch.buf, kind, m, all)
		l.mail.gathered(to, ch)
		return
	}
	c.receiver.countUnacked(unacked)
	c.out.holdsMessages(1, l.readAt)
	if kind == codec.KindDeliverMany && !c.receiver.takesMany {
		l.stats.framesOut += uint64(len(all) - 1)
		c.out.wrote(appendSingly(c.out.buf(), m, all))
		return
	}
	c.out.wrote(codec.AppendDeliverMany(c.out.buf(), kind, m, all))
}

// appendSingly appends one deliver per recipient, for a client without deliver_many.
func appendSingly(b []byte, m *codec.DeliverMany, all []codec.Recipient) []byte {
	for i := range all {
		d := m.Deliver(&all[i])
		b = codec.AppendDeliver(b, &d)
	}
	return b
}
