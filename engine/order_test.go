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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
)

// Order and integrity under load (S20). The files in testdata/order say who sends what to whom.
// Each message carries its sender, its receiver, its number in that stream, and a checksum. Senders
// cut their input anywhere. Each message of a stream must come on one connection, unchanged, and in
// order; and each outcome must be that of its own send.

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

// orderLoad is what a file in testdata/order says.
type orderLoad struct {
	receivers []int // how many connections each has
	senders   int
	messages  int    // of each sender
	acks      [2]int // so many of so many are with ack
	window    int    // a sender pauses while more of them wait for their outcome
	sizes     []orderSize
}

// orderSize is the size of some of the messages: part of whole have least to most bytes.
type orderSize struct{ part, whole, least, most int }

// readOrderLoad reads such a file. Each line is one of three sentences, empty, or a comment.
func readOrderLoad(t *testing.T, path string) (load orderLoad) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var i, conns int
		var s orderSize
		sentence := strings.NewReplacer(" connections", " connection", " senders", " sender", " has ", " have ").Replace(strings.TrimSpace(line))
		switch {
		case sentence == "" || sentence[0] == '#':
		case scanned(sentence, "receiver %d have %d connection", &i, &conns):
			load.receivers = append(load.receivers, conns)
		case scanned(sentence, "%d sender, each with %d messages: %d of %d with ack, a pause while more than %d of them are open",
			&load.senders, &load.messages, &load.acks[0], &load.acks[1], &load.window):
		case scanned(sentence, "%d of %d messages have %d to %d bytes", &s.part, &s.whole, &s.least, &s.most):
			load.sizes = append(load.sizes, s)
		default:
			t.Fatalf("%s: what does this say? %q", path, line)
		}
	}
	return load
}

func scanned(line, sentence string, values ...any) bool {
	n, err := fmt.Sscanf(line, sentence, values...)
	return err == nil && n == len(values)
}

// size chooses the size of a message.
func (load *orderLoad) size(rnd *rand.Rand) int {
	at := rnd.IntN(load.sizes[0].whole)
	for _, s := range load.sizes {
		if at -= s.part; at < 0 {
			return s.least + rnd.IntN(s.most-s.least+1)
		}
	}
	return 0
}

// arrivals knows of each stream where it comes, and its last number.
type arrivals struct {
	mu   sync.Mutex
	last map[stream]lastArrival
}

type lastArrival struct {
	number uint32
	at     *client
}

// take checks a message that came to a connection.
func (a *arrivals) take(d *codec.Deliver, at *client) error {
	s, number, err := readStream(d)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	last, known := a.last[s]
	switch {
	case known && last.at != at:
		return fmt.Errorf("%v came on two connections", s)
	case number <= last.number:
		return fmt.Errorf("%v: number %d after %d", s, number, last.number)
	}
	a.last[s] = lastArrival{number, at}
	return nil
}

// receiveInOrder answers each message with its checksum, until the connection ends.
func receiveInOrder(c *client, a *arrivals) error {
	for {
		f, err := c.read()
		if err != nil {
			return err
		}
		switch f.kind {
		case codec.KindPing, codec.KindCredit:
			continue
		case codec.KindDeliver:
		default:
			return fmt.Errorf("%v %s", f.kind, describe(f))
		}
		var d codec.Deliver
		if err := codec.DecodeDeliver(f.body, &d); err != nil {
			return err
		}
		if err := a.take(&d, c); err != nil {
			return err
		}
		if d.Flags&codec.FlagAck == 0 {
			continue
		}
		sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(d.Payload))
		if _, err := c.nc.Write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked, Reply: sum})); err != nil {
			return err
		}
	}
}

// orderSender sends the messages of one sender, and checks their outcomes.
type orderSender struct {
	load    *orderLoad
	c       *client
	index   int
	rnd     *rand.Rand
	open    map[uint64]uint32 // by sequence number: the checksum that the outcome must carry
	numbers map[stream]uint32
	buf     []byte // frames that are not written yet
	payload []byte
	credit  uint64 // bytes without ack: allowed
	used    uint64 // and sent
}

func (s *orderSender) run() error {
	for k := range s.load.messages {
		s.add(uint64(k))
		if len(s.buf) < 100_000 && s.rnd.IntN(8) > 0 {
			continue // several frames at once
		}
		for s.used > s.credit || len(s.open) > s.load.window {
			if err := s.flush(); err != nil {
				return err
			}
			if err := s.handle(); err != nil {
				return err
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	for len(s.open) > 0 {
		if err := s.handle(); err != nil {
			return err
		}
	}
	return nil
}

// add makes the next message.
func (s *orderSender) add(seq uint64) {
	to := stream{s.index, s.rnd.IntN(len(s.load.receivers))}
	s.numbers[to]++
	s.payload = streamPayload(s.payload, to, s.numbers[to], s.load.size(s.rnd), s.rnd)
	m := codec.Send{Seq: seq, To: []byte(receiverID(to.to)), From: []byte(senderID(s.index)), Payload: s.payload}
	if s.rnd.IntN(s.load.acks[1]) < s.load.acks[0] {
		m.Flags = codec.FlagAck
		s.open[seq] = crc32.ChecksumIEEE(s.payload)
	}
	before := len(s.buf)
	s.buf = codec.AppendSend(s.buf, &m)
	if m.Flags == 0 {
		s.used += uint64(len(s.buf) - before)
	}
}

// flush writes what was added, in pieces that end anywhere.
func (s *orderSender) flush() error {
	err := writeChopped(s.c.nc, s.buf, s.rnd)
	s.buf = s.buf[:0]
	return err
}

// handle waits for the next frame of the node.
func (s *orderSender) handle() error {
	f, err := s.c.read()
	if err != nil {
		return err
	}
	switch f.kind {
	case codec.KindPing:
		return nil
	case codec.KindCredit:
		s.credit, err = codec.DecodeCredit(f.body)
		return err
	case codec.KindOutcome:
		var o codec.Outcome
		if err := codec.DecodeOutcome(f.body, &o); err != nil {
			return err
		}
		return s.outcome(&o)
	}
	return fmt.Errorf("%v %s", f.kind, describe(f))
}

// outcome takes the outcome of a message, which may be overflow.
func (s *orderSender) outcome(o *codec.Outcome) error {
	sum, ok := s.open[o.Seq]
	delete(s.open, o.Seq)
	switch {
	case !ok:
		return fmt.Errorf("an outcome of %d, which is not open: %v", o.Seq, o.Code)
	case o.Code == codec.CodeOverflow:
	case o.Code != codec.CodeAcked:
		return fmt.Errorf("%v %q", o.Code, o.Reason)
	case len(o.Reply) != 4 || binary.BigEndian.Uint32(o.Reply) != sum:
		return fmt.Errorf("the reply to %d is another's", o.Seq)
	}
	return nil
}

func TestOrder(t *testing.T) {
	long(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ORDER_SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	t.Logf("ORDER_SEED=%d", seed)
	files, err := filepath.Glob(filepath.Join("testdata", "order", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d loads, %v", len(files), err)
	}
	for _, file := range files {
		load := readOrderLoad(t, file)
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			eachLoops(t, func(t *testing.T, loops int) { load.run(t, loops, seed) }, 1, 2, 4)
		})
	}
}

// run sends everything through a node, and waits until all of it has ended.
func (load *orderLoad) run(t *testing.T, loops int, seed uint64) {
	cpus := loops
	if loops == 4 {
		cpus = 1
	}
	n := start(t, Config{Loops: loops, CPUs: cpus, MaxPayload: 200_000, MaxPending: 1 << 20, DefaultTTL: time.Minute})
	var running, sending sync.WaitGroup
	receiving := load.join(n)
	all := &arrivals{last: make(map[stream]lastArrival)}
	for _, c := range receiving {
		c.nc.SetWriteDeadline(time.Time{}) // reading has one, and this may take long
		running.Go(func() {
			if err := receiveInOrder(c, all); !errors.Is(err, net.ErrClosed) {
				t.Errorf("receiver: %v", err)
			}
		})
	}
	for i := range load.senders {
		c := n.join(senderID(i))
		c.nc.SetWriteDeadline(time.Time{})
		s := &orderSender{load: load, c: c, index: i, rnd: rand.New(rand.NewPCG(seed, uint64(i))),
			open: make(map[uint64]uint32), numbers: make(map[stream]uint32), credit: c.welcome.Limits.Credit}
		sending.Go(func() {
			if err := s.run(); err != nil {
				t.Errorf("sender %d: %v", i, err)
			}
		})
	}
	sending.Wait()
	n.checkBooks()
	s := n.counters()
	if s.Sends != uint64(load.senders*load.messages) ||
		(s.Outcomes[codec.CodeAcked] > 0) != (load.acks[0] > 0) || (s.Written > 0) != (load.acks[0] < load.acks[1]) {
		t.Errorf("%+v", s)
	}
	for _, c := range receiving {
		c.nc.Close()
	}
	running.Wait()
}

// join makes the connections of all receivers.
func (load *orderLoad) join(n *node) (all []*client) {
	for i, conns := range load.receivers {
		c := n.join()
		all = append(all, c)
		for range conns - 1 {
			more := n.dial()
			more.hello(c.resume())
			all = append(all, more)
		}
		c.bind(receiverID(i))
	}
	return all
}
