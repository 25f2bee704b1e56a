package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
)

// Order and integrity under load (S20): many senders and receivers, on every loop, frames of every size, input cut
// anywhere. Each message carries who sent it to whom, its number in that stream, and a checksum.

type stream struct{ from, to int }

const streamHead = 4 + 4 + 4 + 4 // from, to, number, checksum of the rest

func streamPayload(b []byte, s stream, number uint32, size int, rnd *rand.Rand) []byte {
	b = binary.BigEndian.AppendUint32(b[:0], uint32(s.from))
	b = binary.BigEndian.AppendUint32(b, uint32(s.to))
	b = binary.BigEndian.AppendUint32(b, number)
	b = append(b, 0, 0, 0, 0)
	fill := rnd.Uint64()
	for len(b) < streamHead+size {
		fill = fill*6364136223846793005 + 1442695040888963407
		b = binary.BigEndian.AppendUint64(b, fill)
	}
	b = b[:streamHead+size]
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[streamHead:]))
	return b
}

// readStream checks a payload against the IDs of its deliver.
func readStream(d *codec.Deliver) (s stream, number uint32, err error) {
	p := d.Payload
	if len(p) < streamHead {
		return s, 0, fmt.Errorf("%d bytes", len(p))
	}
	s = stream{int(binary.BigEndian.Uint32(p)), int(binary.BigEndian.Uint32(p[4:]))}
	number = binary.BigEndian.Uint32(p[8:])
	switch {
	case binary.BigEndian.Uint32(p[12:]) != crc32.ChecksumIEEE(p[streamHead:]):
		err = errors.New("the payload has changed")
	case string(d.From) != senderID(s.from) || string(d.To) != receiverID(s.to):
		err = fmt.Errorf("a message of %v came as %s -> %s", s, d.From, d.To)
	}
	return s, number, err
}

func senderID(i int) string   { return fmt.Sprint("sender ", i) }
func receiverID(i int) string { return fmt.Sprint("receiver ", i) }

// anySize is mostly small, sometimes over a read buffer, seldom the maximum.
func anySize(rnd *rand.Rand, most int) int {
	switch rnd.IntN(40) {
	case 0:
		return most - streamHead
	case 1, 2:
		return (60 << 10) + rnd.IntN(10<<10)
	case 3, 4, 5, 6:
		return rnd.IntN(8 << 10)
	}
	return rnd.IntN(200)
}

// writeChopped writes b in pieces that end anywhere.
func writeChopped(w io.Writer, b []byte, rnd *rand.Rand) error {
	for len(b) > 0 {
		n := len(b)
		switch rnd.IntN(4) {
		case 0:
			n = min(n, 1+rnd.IntN(7))
		case 1:
			n = min(n, 1+rnd.IntN(3000))
		}
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func TestOrder(t *testing.T) {
	long(t)
	eachLoops(t, testOrder, 1, 2, 4)
}

func testOrder(t *testing.T, loops int) {
	const (
		senders, receivers = 6, 5
		messages           = 400 // of each sender
		most               = 200_000
	)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ORDER_SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	t.Logf("ORDER_SEED=%d", seed)
	n := start(t, Config{Loops: loops, MaxPayload: most, MaxPending: 1 << 20, DefaultTTL: time.Minute})

	// Receivers: some IDs each, some with two connections.
	var got sync.Map // stream -> *last
	type last struct {
		mu     sync.Mutex
		number uint32
		at     any
	}
	seen := func(d *codec.Deliver, at *client) error {
		s, number, err := readStream(d)
		if err != nil {
			return err
		}
		v, _ := got.LoadOrStore(s, &last{at: at})
		l := v.(*last)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.at != at {
			return fmt.Errorf("%v came on two connections", s)
		}
		if number <= l.number {
			return fmt.Errorf("%v: number %d after %d", s, number, l.number)
		}
		l.number = number
		return nil
	}
	var running, sending sync.WaitGroup
	receive := func(c *client) error {
		for {
			f, err := c.read()
			if err != nil {
				return err
			}
			var d codec.Deliver
			switch f.kind {
			case codec.KindDeliver:
				if err := codec.DecodeDeliver(f.body, &d); err != nil {
					return err
				}
				if err := seen(&d, c); err != nil {
					return err
				}
				if d.Flags&codec.FlagAck != 0 {
					sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(d.Payload))
					if _, err := c.nc.Write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked, Reply: sum})); err != nil {
						return err
					}
				}
			case codec.KindPing, codec.KindCredit:
			default:
				return fmt.Errorf("%v %s", f.kind, describe(f))
			}
		}
	}
	var receiving []*client
	for i := range receivers {
		c := n.join()
		receiving = append(receiving, c)
		if i%2 == 0 {
			more := n.dial()
			more.hello(c.resume())
			receiving = append(receiving, more)
		}
		c.bind(receiverID(i))
	}
	for _, c := range receiving {
		c.nc.SetWriteDeadline(time.Time{}) // reading has one, and this may take long
		running.Go(func() {
			if err := receive(c); !errors.Is(err, net.ErrClosed) {
				t.Errorf("receiver: %v", err)
			}
		})
	}

	// Senders keep a window of acked sends open, with others in between, and hold the outcomes to account.
	send := func(c *client, i int, rnd *rand.Rand) error {
		const window = 32
		open := make(map[uint64]uint32) // seq -> checksum
		numbers := make(map[stream]uint32)
		var buf, payload []byte
		credit := c.welcome.Limits.Credit
		var used uint64
		handle := func() error {
			f, err := c.read()
			if err != nil {
				return err
			}
			switch f.kind {
			case codec.KindCredit:
				credit, err = codec.DecodeCredit(f.body)
			case codec.KindOutcome:
				var o codec.Outcome
				if err := codec.DecodeOutcome(f.body, &o); err != nil {
					return err
				}
				sum, ok := open[o.Seq]
				if !ok {
					return fmt.Errorf("an outcome of %d, which is not open: %v", o.Seq, o.Code)
				}
				delete(open, o.Seq)
				switch {
				case o.Code == codec.CodeOverflow:
				case o.Code != codec.CodeAcked:
					return fmt.Errorf("%v %q", o.Code, o.Reason)
				case len(o.Reply) != 4 || binary.BigEndian.Uint32(o.Reply) != sum:
					return fmt.Errorf("the reply to %d is another's", o.Seq)
				}
			case codec.KindPing:
			default:
				return fmt.Errorf("%v %s", f.kind, describe(f))
			}
			return err
		}
		for k := range messages {
			s := stream{i, rnd.IntN(receivers)}
			numbers[s]++
			payload = streamPayload(payload, s, numbers[s], anySize(rnd, most), rnd)
			m := codec.Send{Seq: uint64(k), To: []byte(receiverID(s.to)), From: []byte(senderID(i)), Payload: payload}
			if rnd.IntN(3) > 0 {
				m.Flags = codec.FlagAck
				open[m.Seq] = crc32.ChecksumIEEE(payload)
			}
			before := len(buf)
			buf = codec.AppendSend(buf, &m)
			if m.Flags == 0 {
				used += uint64(len(buf) - before)
			}
			if len(buf) < 100_000 && rnd.IntN(8) > 0 {
				continue
			}
			for used > credit || len(open) > window {
				if used > credit && len(open) == 0 {
					return errors.New("no credit")
				}
				if err := writeChopped(c.nc, buf, rnd); err != nil {
					return err
				}
				buf = buf[:0]
				if err := handle(); err != nil {
					return err
				}
			}
			if err := writeChopped(c.nc, buf, rnd); err != nil {
				return err
			}
			buf = buf[:0]
		}
		if err := writeChopped(c.nc, buf, rnd); err != nil {
			return err
		}
		for len(open) > 0 {
			if err := handle(); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range senders {
		c := n.join(senderID(i))
		c.nc.SetWriteDeadline(time.Time{})
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		sending.Go(func() {
			if err := send(c, i, rnd); err != nil {
				t.Errorf("sender %d: %v", i, err)
			}
		})
	}
	sending.Wait()
	n.checkBooks()
	s := n.counters()
	if s.Sends != senders*messages || s.Outcomes[codec.CodeAcked] == 0 || s.Written == 0 {
		t.Errorf("%+v", s)
	}
	for _, c := range receiving {
		c.nc.Close()
	}
	running.Wait()
}
