package engine

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
)

// heapInUse is how many bytes are in use. What a test before this one has left takes several
// collections: engines end late, and pools keep what they have through one.
func heapInUse() int64 {
	for least := int64(math.MaxInt64); ; {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now := int64(m.HeapAlloc)
		if now >= least-least/100 {
			return now
		}
		least = now
	}
}

// shrink makes the kernel's buffers between node and client small, so that what the client does not
// read soon waits in the node.
func (c *client) shrink() {
	c.t.Helper()
	if err := c.nc.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		c.t.Fatal(err)
	}
}

// Who does not read costs itself its connection, its senders an overflow, and the node no more than
// MaxPending (S21, S22).
func TestSlowConsumer(t *testing.T) {
	long(t)
	for _, mode := range []struct {
		name  string
		flags uint8
		ends  codec.Code
	}{{"with ack", codec.FlagAck, codec.CodeLost}, {"with report", codec.FlagReport, codec.CodeOK}} {
		t.Run(mode.name, func(t *testing.T) {
			cfg := Config{MaxPending: 1 << 20, MaxPayload: 1 << 16, SlowConsumerTimeout: time.Second, DefaultTTL: time.Minute,
				ResumeWindow: time.Minute, // until then who is gone is unreachable
				Credit:       1 << 30}     // the sender waits for no more of it
			acrossLoops(t, cfg, func(t *testing.T, n *node, from, to *client) {
				by := n.watchOver()
				before := heapInUse()
				payload := strings.Repeat("x", 1<<16)

				// Far more than the queue and the kernel's buffers take.
				const sends = 3000
				heard := make(chan map[codec.Code]int)
				expected := sends
				if mode.flags == codec.FlagReport {
					expected = 1 // at least; see below
				}
				go func() {
					outcomes := make(map[codec.Code]int)
					for total := 0; total < expected; {
						f, err := from.read()
						if err != nil {
							t.Error(err)
							break
						}
						if f.kind != codec.KindOutcome {
							continue
						}
						var o codec.Outcome
						if err := codec.DecodeOutcome(f.body, &o); err != nil {
							t.Error(err)
						}
						outcomes[o.Code]++
						total++
					}
					heard <- outcomes
					io.Copy(io.Discard, from.nc) // else it is the next slow consumer
				}()
				for range sends {
					from.post("from", "to", payload, mode.flags)
				}
				n.settle()
				// its queue, and what the buffer pools keep
				if grown := heapInUse() - before; grown > 96<<20 {
					t.Errorf("the node grew by %d MiB for one connection that does not read", grown>>20)
				}
				n.eventually("the slow consumer is closed", func() bool { return n.Stats().Faults[codec.FaultSlowConsumer] == 1 })
				outcomes := <-heard
				if outcomes[codec.CodeOverflow] == 0 || outcomes[codec.CodeAcked] > 0 {
					t.Errorf("outcomes %v, want overflow", outcomes)
				}
				if mode.ends != codec.CodeOK && outcomes[mode.ends] == 0 {
					t.Errorf("outcomes %v, want some %v", outcomes, mode.ends)
				}
				by.unharmed()
				if mode.flags == codec.FlagReport {
					n.eventually("every send is counted", func() bool {
						s := n.Stats()
						return s.Written+s.Outcomes[codec.CodeOverflow]+s.Outcomes[codec.CodeUnreachable] == sends
					})
				}
				// It is gone, not only told.
				to.nc.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.Copy(io.Discard, to.nc); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection is still there")
				}
			})
		})
	}
}

// A queue that is not full, but of which no byte is taken, is reason enough.
func TestDeafConsumer(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Loops: 2, MaxPayload: 1 << 20, MaxPending: 64 << 20, SlowConsumerTimeout: time.Second, DefaultTTL: time.Minute})
	by := n.watchOver()
	from := n.join("from")
	n.join("deaf")
	began := time.Now()
	for range 15 {
		from.post("from", "deaf", strings.Repeat("x", 1<<20), codec.FlagReport)
	}
	n.eventually("it is closed", func() bool { return n.Stats().Faults[codec.FaultSlowConsumer] == 1 })
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	if slow := n.counters().SlowConsumers; slow["nothing_read"] != 1 || slow["queue_full"] != 0 {
		t.Errorf("slow consumers: %v", slow)
	}
	// for the last ones it was too late, but none found a full queue
	for _, f := range from.arrived() {
		var o codec.Outcome
		from.decoded(codec.DecodeOutcome(f.body, &o))
		if o.Code != codec.CodeUnreachable {
			t.Errorf("%v", o.Code)
		}
	}
	from.hears(from.send("from", "deaf", "hi"), codec.CodeUnreachable)
	by.unharmed()
}

// Answers have room of their own, but not without end: a client that only asks is closed too.
func TestAnswersNotRead(t *testing.T) {
	n := start(t, Config{Loops: 1, MaxPending: 1 << 17, MaxPayload: 1 << 10, MaxInFlight: 100, SlowConsumerTimeout: time.Hour})
	by := n.watchOver()
	c := n.join("asker")
	c.shrink()
	before := heapInUse()
	pings := make([]byte, 0, 64<<10)
	for len(pings) < cap(pings)-16 {
		pings = codec.AppendPing(pings, 1<<50)
	}
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	for n.Stats().Faults[codec.FaultSlowConsumer] == 0 {
		if _, err := c.nc.Write(pings); err != nil {
			break
		}
	}
	n.eventually("closed", func() bool { return n.Stats().Faults[codec.FaultSlowConsumer] == 1 })
	if grown := heapInUse() - before; grown > 16<<20 {
		t.Errorf("the node grew by %d MiB", grown>>20)
	}
	by.unharmed()
}

// A client that reads slowly but all the time is no slow consumer, as long as its queue is not
// full.
func TestSteadyReader(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{MaxPayload: 1 << 16, MaxPending: 16 << 20, SlowConsumerTimeout: 3 * time.Second, DefaultTTL: time.Minute})
	from, to := n.join("from"), n.join("to")
	to.shrink()
	payload := strings.Repeat("x", 1<<15)
	for range 300 { // 10 MB: some of it waits in the node for as long as this test reads
		from.post("from", "to", payload, codec.FlagReport)
	}
	n.settle()
	// The pace of a slow reader: a third of the kernel's buffer takes it some seconds. It catches
	// up when the machine has held it up: it is the bytes for each second that make it steady.
	const pace = 160 << 10
	buf, read := make([]byte, 4<<10), 0
	for began := time.Now(); time.Since(began) < 7*time.Second; {
		for ; read < int(pace*time.Since(began).Seconds()); read += len(buf) {
			to.nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(to.nc, buf); err != nil {
				t.Fatal(err)
			}
		}
		// A trickle of new messages must not hide that old ones are taken.
		from.post("from", "to", "x", codec.FlagReport)
		time.Sleep(25 * time.Millisecond) // the rest of its time it does not read
	}
	if s := n.counters(); s.Faults[codec.FaultSlowConsumer] > 0 {
		t.Errorf("closed as slow: %v", s.Faults)
	}
}

// Bytes are no heartbeat: only complete frames are.
func TestTrickle(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, Heartbeat: 500 * time.Millisecond, IdleTimeout: 1500 * time.Millisecond})
		by := n.watchOver()
		c := n.join()
		lazy := n.join()
		began := time.Now()
		go func() {
			for _, b := range append([]byte{0, 0, 0, 200}, make([]byte, 100)...) {
				if _, err := c.nc.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(200 * time.Millisecond) // the pace of a trickle
			}
		}()
		for _, c := range []*client{c, lazy} {
			// The ping comes first; nobody answers it.
			f, err := c.read()
			if err != nil || f.kind != codec.KindPing {
				t.Fatalf("%v, %v; want ping", f.kind, err)
			}
			e := c.fails(codec.FaultIdleTimeout)
			if !strings.Contains(e.Message, "no complete frame for 1.5s") {
				t.Errorf("message %q", e.Message)
			}
		}
		if took := time.Since(began); took < 1400*time.Millisecond {
			t.Errorf("closed after %v", took)
		}
		by.unharmed()
	})
}

// Who answers pings lives for ever.
func TestHeartbeat(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Heartbeat: 300 * time.Millisecond, IdleTimeout: 2 * time.Second})
	c := n.join()
	began := time.Now()
	for pings := 0; time.Since(began) < 2500*time.Millisecond; pings++ {
		f, err := c.read()
		if err != nil || f.kind != codec.KindPing {
			t.Fatalf("after %d pings: %v %s, %v", pings, f.kind, describe(f), err)
		}
		nonce, err := codec.DecodePing(f.body)
		c.decoded(err)
		if nonce >= 1<<53 {
			t.Errorf("nonce %d", nonce)
		}
		c.write(codec.AppendPong(nil, nonce))
	}
	c.write(codec.AppendPong(nil, 12345)) // one that nobody asked for is allowed
	c.alive()
}

func TestHelloTimeout(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, HelloTimeout: time.Second})
		by := n.watchOver()
		before := n.counters()
		silent, partial := n.dial(), n.dial()
		began := time.Now()
		partial.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1})[:10])
		for i, c := range []*client{silent, partial} {
			if e := c.fails(codec.FaultHelloTimeout); !strings.Contains(e.Message, "no hello in 1s") || e.Kind != 0 {
				t.Errorf("%+v", e)
			}
			if took := time.Since(began); took < 900*time.Millisecond {
				t.Errorf("closed after %v", took)
			}
			if got := n.counters().Faults[codec.FaultHelloTimeout]; got < before.Faults[codec.FaultHelloTimeout]+uint64(i)+1 {
				t.Errorf("counted %d", got)
			}
		}
		by.unharmed()
	})
}

// 5,000 clients that connect and say nothing, or not all of hello.
func TestHalfOpenHandshakes(t *testing.T) {
	long(t)
	const flood = 5000
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, HelloTimeout: 2500 * time.Millisecond})
		by := n.watchOver()
		before := heapInUse()
		conns := make([]net.Conn, 0, flood)
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		half := codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1})
		half = half[:len(half)-1]
		for i := range flood {
			nc, err := net.DialTimeout("tcp", n.Addr().String(), patience)
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			conns = append(conns, nc)
			if i%2 == 0 {
				if _, err := nc.Write(half); err != nil {
					t.Fatal(err)
				}
			}
			if i%500 == 0 {
				by.unharmed()
			}
		}
		if grown := heapInUse() - before; grown > 64<<20 {
			t.Errorf("%d half-open connections take %d MiB", flood, grown>>20)
		}
		n.join("latecomer").alive()
		n.eventually("all are told", func() bool { return n.Stats().Faults[codec.FaultHelloTimeout] == flood })
		by.unharmed()
		for i, nc := range conns {
			c := clientOn(t, n, nc)
			if e := c.fails(codec.FaultHelloTimeout); e.Flags != codec.ErrorClosing {
				t.Fatalf("%d: %+v", i, e)
			}
		}
		n.eventually("all are gone", func() bool { return n.Stats().Connections == 3 && n.Stats().Closed >= flood })
	})
}

// MaxConns lets the next client wait, not fail.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	n := start(t, Config{MaxConns: 3})
	first := []*client{n.join(), n.join(), n.join()}
	fourth := n.dial()
	fourth.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	n.settle()
	if s := n.counters(); s.Connections != 3 || s.Accepted != 3 {
		t.Errorf("%d connections, %d accepted, want 3", s.Connections, s.Accepted)
	}
	for _, c := range first {
		c.alive()
	}
	first[1].nc.Close()
	fourth.expect(codec.KindWelcome)
	fourth.alive()
}

// The credit is what the protocol document says: bytes of frames without ack, prefix included.
func TestCredit(t *testing.T) {
	t.Parallel()
	const credit = 8 << 10
	n := start(t, Config{MaxPayload: 1 << 10, Credit: credit})
	from, to := n.join("from"), n.join("to")
	if from.welcome.Limits.Credit != credit {
		t.Fatalf("credit %d", from.welcome.Limits.Credit)
	}
	used, total := 0, credit
	for i := range 200 {
		flags := uint8(0)
		if i%2 == 0 {
			flags = codec.FlagReport
		}
		frame := sendFrame(uint64(i), "from", "to", strings.Repeat("x", 7*i%1000), flags, 0)
		// Sends with ack, pings and the like are free.
		from.write(codec.AppendPing(sendFrame(uint64(1000+i), "from", "nobody", strings.Repeat("x", 1000), codec.FlagAck, 0), uint64(i)))
		from.write(frame)
		used += len(frame)
		renewed := total-used < credit/2
		if renewed {
			total = used + credit
		}
		from.hears(uint64(1000+i), codec.CodeNoRoute)
		if f, err := from.read(); err != nil || f.kind != codec.KindPong {
			t.Fatalf("%v, %v", f.kind, err)
		}
		if !renewed {
			continue
		}
		f, err := from.read()
		if err != nil || f.kind != codec.KindCredit {
			t.Fatalf("frame %d: %v %s, %v; want credit", i, f.kind, describe(f), err)
		}
		if got, err := codec.DecodeCredit(f.body); err != nil || got != uint64(total) {
			t.Fatalf("frame %d: credit %d, %v; want %d", i, got, err, total)
		}
	}
	for range 200 {
		to.delivered()
	}
}

// Sends to nobody and denied ones count too.
func TestCreditOfFailures(t *testing.T) {
	t.Parallel()
	const credit = 8 << 10
	n := start(t, Config{MaxPayload: 1 << 10, Credit: credit})
	for _, ids := range [][2]string{{"from", "nobody"}, {"stranger", "from"}} {
		c := n.join("from")
		for range 3 {
			c.post(ids[0], ids[1], strings.Repeat("x", 1000), 0)
		}
		c.alive()
		for range 2 {
			c.post(ids[0], ids[1], strings.Repeat("x", 1000), 0)
		}
		if f, err := c.read(); err != nil || f.kind != codec.KindCredit {
			t.Fatalf("%v %v, want credit", f.kind, err)
		}
		c.alive()
		c.write(codec.AppendBye(nil))
		c.ends()
	}
}

// A connection beyond its credit is closed and the frame that did it is dropped, uncounted as a
// send.
func TestCreditExceeded(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		const credit = 8 << 10
		n := start(t, Config{Loops: loops, MaxPayload: 1 << 10, Credit: credit})
		by := n.watchOver()
		to := n.join("to")
		for _, flags := range []uint8{0, codec.FlagReport} {
			c := n.join("from")
			before := n.counters()
			c.post("from", "to", "fine", flags)
			to.gets("from", "to", "fine")
			// Over max_payload, but not over max_frame: the one kind of frame that no credit is
			// enough for.
			frame := sendFrame(9, "from", "to", strings.Repeat("x", 2*credit), flags, 0)
			c.write(append(frame, sendFrame(10, "from", "to", "behind", flags, 0)...))
			if e := c.fails(codec.FaultCreditExceeded); e.Kind != 0 || !strings.Contains(e.Message, "credit") {
				t.Errorf("%+v", e)
			}
			after := n.counters()
			if got := after.Faults[codec.FaultCreditExceeded] - before.Faults[codec.FaultCreditExceeded]; got != 1 {
				t.Errorf("counted %d times", got)
			}
			to.silent()
			by.unharmed()
		}
		// One that sends on without waiting for the credit frame: it is all there at once.
		c := n.join("from")
		var burst []byte
		for seq := uint64(1); len(burst) < 4*credit; seq++ {
			burst = append(burst, sendFrame(seq, "from", "nobody", "x", 0, 0)...)
		}
		c.write(burst)
		c.fails(codec.FaultCreditExceeded)
		by.unharmed()
		// With ack the same frame is only too large.
		c = n.join("from")
		c.hears(c.send("from", "to", strings.Repeat("x", 2*credit)), codec.CodeTooLarge)
		c.alive()
	})
}

// Requests that a slow hook or registry holds up are bounded in bytes, for each connection (S21).
func TestRequestsAreBounded(t *testing.T) {
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	n := start(t, Config{Loops: 2, Hooks: Hooks{Bind: func(_, id string) error {
		if strings.HasPrefix(id, "x") {
			<-hold
		}
		return nil
	}}})
	t.Cleanup(release) // whatever happens, before the engine stops
	greedy, modest := n.join("greedy"), n.join("modest")
	before := heapInUse()
	ids := make([]codec.IDEpoch, n.limits.MaxIDs)
	for i := range ids {
		ids[i].ID = []byte(longID[1:])
	}
	const frames = 150 // 48 MB
	for i := range uint64(frames) {
		greedy.write(codec.AppendBind(nil, 1000+i, codec.PolicyKickOld, ids))
	}
	overflows := 0
	// all has been read by now, and the loops have been told of the answers
	answers := greedy.arrived()
	n.settleLoops()
	for _, f := range append(answers, greedy.arrived()...) {
		var r codec.Results
		greedy.decoded(codec.DecodeResults(f.body, codec.KindBound, &r))
		if v, _ := r.All.Next(); v.Code != codec.CodeOverflow {
			t.Errorf("%d: %v while the hook stands still", r.Seq, v)
		}
		overflows++
	}
	if overflows < frames/2 || overflows == frames {
		t.Errorf("%d of %d overflow", overflows, frames)
	}
	if grown := heapInUse() - before; grown > 40<<20 {
		t.Errorf("the node grew by %d MiB", grown>>20)
	}
	greedy.exchange("greedy", modest, "modest") // messages need no lane
	release()
	for range frames - overflows {
		greedy.expect(codec.KindBound)
	}
	greedy.bind("xagain")
}
