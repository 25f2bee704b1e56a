package engine

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/routing"
)

// sdkConfig sets the fields with which a client in this process connects to the node.
func (n *node) sdkConfig(cfg sdk.Config) sdk.Config {
	cfg.Nodes = []string{InProcessAddr}
	if cfg.Dialer == nil {
		cfg.Dialer = n.Dialer()
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	return cfg
}

// attach opens a session of the SDK in this process and binds ids. It closes at the end of the
// test.
func (n *node) attach(cfg sdk.Config, ids ...string) *sdk.Session {
	n.t.Helper()
	s, err := sdk.Dial(patient(n.t), n.sdkConfig(cfg))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		ended, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_ = s.Close(ended)
	})
	if len(ids) > 0 {
		if err := s.Bind(patient(n.t), ids...); err != nil {
			n.t.Fatal(err)
		}
	}
	return s
}

// sessionOf returns a session's ID at the node.
func sessionOf(s *sdk.Session) (id routing.SessionID) {
	b, _ := hex.DecodeString(s.State().Session)
	copy(id[:], b)
	return id
}

// answering is a handler that does what the payload says.
func answering(_ context.Context, d *sdk.Delivery) {
	switch text := string(d.Payload); {
	case strings.HasPrefix(text, "reject"):
		_ = d.Reject("no")
	case strings.HasPrefix(text, "later"):
		r := d.Defer()
		go func() { _ = r.Reply([]byte("it is later")) }()
	default:
		_ = d.Reply([]byte("got " + text))
	}
}

// codeOf returns the outcome that an error of the SDK stands for.
func codeOf(err error) codec.Code {
	var failed *sdk.Error
	if errors.As(err, &failed) {
		return failed.Code
	}
	return codec.CodeOK
}

// A client in the node's process and one outside send to each other, and get each kind of outcome.
func TestDialer(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxPayload: 100_000})
		s := n.attach(sdk.Config{Handler: answering}, "in", "in2")
		outside := n.join("out")
		ctx := patient(t)

		for payload, want := range map[string]codec.Code{"hi": codec.CodeAcked, "reject": codec.CodeRejected, "later": codec.CodeAcked} {
			outside.hears(outside.send("out", "in", payload), want)
		}
		for _, c := range []struct {
			from, to, payload string
			code              codec.Code
		}{
			{"in", "in2", "hi", codec.CodeOK},
			{"in", "in2", "reject", codec.CodeRejected},
			{"in", "nobody", "x", codec.CodeNoRoute},
			{"out", "in", "x", codec.CodeDenied},
			{"in", "out", strings.Repeat("x", 100_001), codec.CodeTooLarge},
			{"in", "in2", strings.Repeat("x", 100_000), codec.CodeOK},
		} {
			_, err := s.Send(ctx, sdk.Message{From: c.from, To: c.to, Payload: []byte(c.payload)})
			if codeOf(err) != c.code || (err == nil) != (c.code == codec.CodeOK) {
				t.Errorf("%q to %q: %v, want %v", c.from, c.to, err, c.code)
			}
		}
		replied := make(chan error, 1)
		go func() {
			r, err := s.Send(ctx, sdk.Message{From: "in", To: "out", Payload: []byte("hello")})
			if string(r.Payload) != "yes" {
				err = fmt.Errorf("reply %q, %w", r.Payload, err)
			}
			replied <- err
		}()
		outside.ack(outside.gets("in", "out", "hello"), "yes")
		if err := <-replied; err != nil {
			t.Error(err)
		}
		results, err := s.Multicast(ctx, sdk.Message{From: "in", Payload: []byte("all")}, []string{"in", "in2", "nobody"})
		if err != nil || results[0].Err != nil || results[1].Err != nil || codeOf(results[2].Err) != codec.CodeNoRoute {
			t.Errorf("%v %v", results, err)
		}
		if err := s.BindWith(ctx, sdk.BindOptions{RejectNew: true}, "out"); !errors.Is(err, sdk.ErrTaken) {
			t.Errorf("%v", err)
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		n.settle() // the session has ended, and its bindings are about to
		outside.hears(outside.send("out", "in", "hi"), codec.CodeNoRoute)
		n.eventually("its connection is gone", func() bool { return n.counters().Connections == 1 })
	})
}

// Messages from one ID to another arrive in order, whichever call sends them.
func TestDialerOrder(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		const each = 3000
		var mu sync.Mutex
		next := make(map[string]int)
		done := make(chan struct{}, 4)
		handler := func(_ context.Context, d *sdk.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			key := d.From + ">" + d.To
			if want := fmt.Sprint(next[key]); string(d.Payload) != want {
				t.Errorf("%s: got %q, want %q", key, d.Payload, want)
			}
			if next[key]++; next[key] == each {
				done <- struct{}{}
			}
		}
		a, b := n.attach(sdk.Config{Handler: handler}, "a"), n.attach(sdk.Config{Handler: handler}, "b")
		for s, from := range map[*sdk.Session]string{a: "a", b: "b"} {
			for _, to := range []string{"a", "b"} {
				go func() {
					for i := range each {
						s.SendAsync(patient(t), sdk.Message{From: from, To: to, Payload: fmt.Append(nil, i)}, func(_ sdk.Reply, err error) {
							if err != nil {
								t.Error(err)
							}
						})
					}
				}()
			}
		}
		for range 4 {
			<-done
		}
	})
}

// memoryClient speaks the protocol directly over a connection in memory.
func (n *node) memoryClient(ids ...string) *client {
	n.t.Helper()
	nc, err := n.Dialer()(patient(n.t), InProcessAddr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { nc.Close() })
	c := clientOn(n.t, n, nc)
	c.hello(codec.Hello{})
	if len(ids) > 0 {
		c.bind(ids...)
	}
	return c
}

// When a client does not read, its senders get overflow, and then it loses its connection, like a
// client outside.
func TestDialerSlowConsumer(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxPayload: 1 << 12, MaxPending: 4 * pipeBuffer, SlowConsumerTimeout: time.Second})
		by := n.watchOver()
		slow, from := n.memoryClient("slow"), n.join("from")
		const sends = 100 // of which half fits at least
		for range sends {
			from.post("from", "slow", strings.Repeat("x", 1<<12), codec.FlagReport)
		}
		overflows := 0
		n.settle()
		for _, f := range from.arrived() {
			var o codec.Outcome
			from.decoded(codec.DecodeOutcome(f.body, &o))
			if o.Code != codec.CodeOverflow {
				t.Errorf("%v while it does not read", o.Code)
			}
			overflows++
		}
		if overflows == 0 || overflows > sends/2 {
			t.Errorf("%d of %d overflow", overflows, sends)
		}
		by.unharmed()
		n.eventually("it is closed", func() bool { return n.counters().Faults[codec.FaultSlowConsumer] == 1 })
		for range sends - overflows {
			slow.gets("from", "slow", strings.Repeat("x", 1<<12))
		}
		slow.fails(codec.FaultSlowConsumer)
	})
}

// A client that writes more than the loop takes blocks until its deadline passes or the loop takes
// it.
func TestDialerWriteWaits(t *testing.T) {
	n := start(t, Config{})
	c := n.memoryClient("me")
	blocked, release := make(chan struct{}), make(chan struct{})
	n.loops[0].post(func() { close(blocked); <-release })
	<-blocked
	frame := sendFrame(1, "me", "nobody", strings.Repeat("x", 1000), 0, 0)
	whole := bytes.Repeat(frame, 2*pipeBuffer/len(frame))
	soon := time.Now().Add(50 * time.Millisecond)
	_ = c.nc.SetWriteDeadline(soon)
	wrote, err := c.nc.Write(whole)
	if !errors.Is(err, os.ErrDeadlineExceeded) || wrote != pipeBuffer || time.Now().Before(soon) {
		t.Errorf("wrote %d, %v", wrote, err)
	}
	if n, err := c.nc.Write(whole); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind the deadline: wrote %d, %v", n, err)
	}
	if c.nc.(*clientEnd).TryWrite([]byte{1}) {
		t.Error("TryWrite wrote although there was no room")
	}
	_ = c.nc.SetWriteDeadline(time.Time{})
	rest := make(chan error, 1)
	go func() { _, err := c.nc.Write(whole[wrote:]); rest <- err }()
	select {
	case err := <-rest:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-rest; err != nil {
		t.Error(err)
	}
	c.alive()
}

// A connection in memory has the deadlines and the end of a net.Conn.
func TestDialerConn(t *testing.T) {
	n := start(t, Config{})
	c := n.memoryClient()
	buf := make([]byte, 10)
	_ = c.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	var timeout net.Error
	if _, err := c.nc.Read(buf); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v", err)
	}
	_ = c.nc.SetDeadline(time.Time{})
	reads := make(chan error, 1)
	read := func() { _, err := c.nc.Read(buf); reads <- err }
	go read()
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // while it waits, or before
	if err := <-reads; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	c.alive()
	go read()
	if err := c.nc.Close(); err != nil {
		t.Error(err)
	}
	if err := <-reads; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := c.nc.Write(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := c.nc.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	n.eventually("the node has let it go", func() bool { return n.counters().Connections == 0 })

	// What was written before Close is handled. What the node closes can be read to its end.
	from, to := n.memoryClient("from"), n.join("to")
	from.write(sendFrame(1, "from", "to", "last words", 0, 0))
	from.nc.Close()
	to.gets("from", "to", "last words")
	wrong := n.memoryClient()
	wrong.write(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version}))
	wrong.fault(codec.FaultUnexpectedKind)
	if _, err := wrong.nc.Read(buf); err != io.EOF {
		t.Errorf("%v", err)
	}
	n.eventually("writing fails", func() bool { _, err := wrong.nc.Write(buf); return err != nil })
}

// The Dialer connects to one address only, and only while the engine runs.
func TestDialerRefuses(t *testing.T) {
	e, err := New(Config{Addr: "none", Logger: quiet(), Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Dialer()(soon, InProcessAddr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not running: %v", err)
	}
	if _, err := e.Dialer()(soon, InProcessAddr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended context: %v", err)
	}
	n := start(t, Config{Addr: "none"})
	if _, err := n.Dialer()(t.Context(), "127.0.0.1:7400"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:7400") {
		t.Errorf("another address: %v", err)
	}
	s := n.attach(sdk.Config{}, "me")
	raw := n.memoryClient()
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	raw.fault(codec.FaultGoingAway)
	if _, err := raw.nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	if _, err := n.Dialer()(t.Context(), InProcessAddr); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	if s.State().Attached {
		n.eventually("the session hears of it", func() bool { return !s.State().Attached })
	}
}

// The Dialer supplies the identity. The engine does not call Hooks.Authenticate.
func TestDialerAs(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{
		Authenticate: func(context.Context, Login) (Identity, error) { return Identity{}, errors.New("nobody") },
		Bind: func(identity, id string) error {
			if identity != id {
				return errors.New("not yours")
			}
			return nil
		},
	}})
	n.attach(sdk.Config{Dialer: n.DialerAs(Identity{Name: "alice"})}, "alice")
	other := n.attach(sdk.Config{})
	if err := other.Bind(patient(t), "bob"); !errors.Is(err, sdk.ErrDenied) {
		t.Errorf("%v", err)
	}
}

// A node that was stopped for long drops its clients in memory too. The SDK reconnects by itself.
func TestDialerFence(t *testing.T) {
	n := start(t, Config{Loops: 2})
	states := make(chan sdk.State, 16)
	s := n.attach(sdk.Config{Handler: answering, OnState: func(st sdk.State) { states <- st }}, "me")
	if st := <-states; !st.Attached {
		t.Errorf("%+v", st)
	}
	n.fence(time.Minute)
	if st := <-states; st.Attached {
		t.Errorf("%+v", st)
	}
	if st := <-states; !st.Attached || !st.Resumed {
		t.Errorf("%+v", st)
	}
	if r, err := s.Send(patient(t), sdk.Message{From: "me", To: "me", Payload: []byte("hi")}); string(r.Payload) != "got hi" {
		t.Errorf("%q %v", r.Payload, err)
	}
}

// A drain does not disturb clients in memory, and ends when nothing is pending.
func TestDialerDrain(t *testing.T) {
	n := start(t, Config{Loops: 2})
	entered, release := make(chan struct{}), make(chan struct{})
	s := n.attach(sdk.Config{
		Handler: func(context.Context, *sdk.Delivery) { close(entered); <-release },
		OnDrain: func(sdk.Drain) { t.Error("it was told to leave") },
	}, "me")
	sent := make(chan error, 1)
	go func() {
		_, err := s.Send(patient(t), sdk.Message{From: "me", To: "me"})
		sent <- err
	}()
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- n.Drain(patient(t)) }()
	n.eventually("it drains", n.Draining)
	select {
	case err := <-drained:
		t.Errorf("drained while a message was being handled: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := errors.Join(<-sent, <-drained); err != nil {
		t.Error(err)
	}
	if _, err := s.Send(patient(t), sdk.Message{From: "me", To: "me"}); !errors.Is(err, sdk.ErrDraining) {
		t.Errorf("%v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := sdk.Dial(short, n.sdkConfig(sdk.Config{})); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("%v", err)
	}
}
