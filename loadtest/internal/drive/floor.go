package drive

import (
	"encoding/binary"
	"errors"

	"distmsg/codec"
	"distmsg/loadtest/floor"
	"distmsg/loadtest/internal/traffic"
)

// bare speaks to the relay without features (loadtest/floor), for comparison. The number of an ID
// is its index. The body of a message is the number of the sender (4 bytes), the number of the
// message (8 bytes), and the payload. The body of an ack is the number of the message. A message to
// all others goes to a group with the number behind those of the IDs.
type bare struct {
	leg   *leg
	t     *traffic.Traffic
	index int
}

func floorKind() Kind {
	return Kind{Name: "floor", Protocol: "floor", Server: "a loadtest floor", Broadcast: true,
		make: func(t *traffic.Traffic, cfg *Config) Driver { return newWire(t, cfg, newBare) }}
}

func newBare(c *wireConn) func(*leg) protocol {
	return func(l *leg) protocol { return &bare{l, c.wire.t, c.index} }
}

// bareHead is the length of what precedes the payload.
const bareHead = 4 + 8

var errBare = errors.New("bad frame from the floor")

// everybody returns the number of the group.
func (f *bare) everybody() uint32 { return uint32(len(f.t.IDs)) }

// own returns the number of the connection's first ID.
func (f *bare) own() uint32 { return uint32(f.index * f.t.PerConn) }

func (f *bare) open(b []byte) []byte {
	for i := range f.t.PerConn {
		b = floor.Begin(b, f.own()+uint32(i), floor.Claim, 0)
	}
	if f.t.Fanout > 1 {
		b = floor.Begin(b, f.everybody(), floor.Join, 0)
	}
	return f.beat(b) // it comes back when the relay has handled all of this
}

func (f *bare) send(b []byte, m *traffic.Message) ([]byte, bool) {
	to := uint32(m.To)
	if m.Copies > 1 {
		to = f.everybody()
	}
	b = floor.Begin(b, to, floor.Message, bareHead+len(m.Payload))
	b = binary.LittleEndian.AppendUint32(b, uint32(m.From))
	b = binary.LittleEndian.AppendUint64(b, m.Seq)
	return append(b, m.Payload...), true
}

func (f *bare) ping(b []byte) []byte { return f.echo(b, settleNonce) }

func (f *bare) beat(b []byte) []byte { return f.echo(b, beatNonce) }

// echo appends a frame to the connection itself.
func (f *bare) echo(b []byte, nonce byte) []byte {
	return append(floor.Begin(b, f.own(), floor.Ping, 1), nonce)
}

func (f *bare) leave(b []byte) []byte { return b }

func (f *bare) bye(b []byte) []byte { return b }

func (f *bare) parse(b []byte) (used int, err error) {
	for err == nil {
		frame, n, nextErr := floor.Next(b[used:])
		if n == 0 {
			return used, nextErr
		}
		used += n
		err = f.frame(&frame)
	}
	return used, err
}

func (f *bare) frame(frame *floor.Frame) error {
	body := frame.Body
	if f.t.Fanout > 1 && frame.To == f.everybody() {
		frame.To = f.own()
	}
	switch {
	case frame.Kind == floor.Message && len(body) >= bareHead && int(frame.To) < len(f.t.IDs):
		if f.t.Deliver(f.index, f.t.IDs[frame.To], nil, body[bareHead:]) && f.t.Acks {
			b := floor.Begin(f.leg.pending, binary.LittleEndian.Uint32(body), floor.Ack, 8)
			f.leg.pending = append(b, body[4:bareHead]...)
			f.leg.touch()
		}
	case frame.Kind == floor.Ack && len(body) == 8:
		f.leg.ended()
		f.t.Outcome(f.index, binary.LittleEndian.Uint64(body), codec.CodeAcked)
	case frame.Kind == floor.Ping && len(body) == 1:
		switch {
		case f.leg.conn.cur != f.leg:
			f.leg.up(f.leg.addr, traffic.Unlimited)
		case body[0] == settleNonce:
			f.leg.ponged()
		}
	default:
		return errBare
	}
	return nil
}
