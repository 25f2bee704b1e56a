package engine

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// New names each field with an invalid value.
func TestConfigRejects(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		names []string
	}{
		"NodeID":              {Config{NodeID: strings.Repeat("n", 256)}, []string{"NodeID"}},
		"Loops":               {Config{Loops: -1}, []string{"Loops"}},
		"many Loops":          {Config{Loops: 257}, []string{"Loops"}},
		"CPUs":                {Config{CPUs: -1}, []string{"CPUs"}},
		"Secret":              {Config{Secret: make([]byte, 15)}, []string{"Secret"}},
		"empty Secret":        {Config{Secret: []byte{}}, []string{"Secret"}},
		"MaxPayload":          {Config{MaxPayload: -1}, []string{"MaxPayload"}},
		"large MaxPayload":    {Config{MaxPayload: 1<<30 + 1}, []string{"MaxPayload"}},
		"MaxIDs":              {Config{MaxIDs: -1}, []string{"MaxIDs"}},
		"MaxInFlight":         {Config{MaxInFlight: -1}, []string{"MaxInFlight"}},
		"MaxPending":          {Config{MaxPending: -1}, []string{"MaxPending"}},
		"small MaxPending":    {Config{MaxPending: 1<<20 + 1}, []string{"MaxPending"}},
		"Credit":              {Config{Credit: -1}, []string{"Credit"}},
		"small Credit":        {Config{Credit: 2 << 20}, []string{"Credit"}},
		"MaxConns":            {Config{MaxConns: -1}, []string{"MaxConns"}},
		"HelloTimeout":        {Config{HelloTimeout: -1}, []string{"HelloTimeout"}},
		"Heartbeat":           {Config{Heartbeat: -1}, []string{"Heartbeat"}},
		"IdleTimeout":         {Config{IdleTimeout: -1}, []string{"IdleTimeout"}},
		"short IdleTimeout":   {Config{Heartbeat: time.Second, IdleTimeout: time.Second}, []string{"IdleTimeout"}},
		"SlowConsumerTimeout": {Config{SlowConsumerTimeout: -1}, []string{"SlowConsumerTimeout"}},
		"ResumeWindow":        {Config{ResumeWindow: -1}, []string{"ResumeWindow"}},
		"DefaultTTL":          {Config{DefaultTTL: -1}, []string{"DefaultTTL"}},
		"long DefaultTTL":     {Config{DefaultTTL: 6 * time.Minute}, []string{"DefaultTTL"}},
		"MaxTTL":              {Config{MaxTTL: -1}, []string{"MaxTTL"}},
		"long MaxTTL":         {Config{MaxTTL: 61 * time.Minute}, []string{"MaxTTL"}},
		"LoopGap":             {Config{LoopGap: -1}, []string{"LoopGap"}},
		"DrainSpread":         {Config{DrainSpread: -1}, []string{"DrainSpread"}},
		"two":                 {Config{LoopGap: -1, MaxIDs: -1}, []string{"LoopGap", "MaxIDs"}},
	} {
		e, err := New(c.cfg)
		if err == nil || e != nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, field := range c.names {
			if !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %q does not name %s", name, err, field)
			}
		}
	}
}

// The zero value works, and so does each field that is set alone to something sensible.
func TestConfigDefaults(t *testing.T) {
	for name, cfg := range map[string]Config{
		"zero":             {},
		"short MaxTTL":     {MaxTTL: time.Second},
		"small MaxPayload": {MaxPayload: 1},
		"large MaxPayload": {MaxPayload: 64 << 20},
		"short Heartbeat":  {Heartbeat: time.Second},
		"one ID":           {MaxIDs: 1},
		"NodeID":           {NodeID: strings.Repeat("n", 255)},
		"most Loops":       {Loops: 256},
	} {
		e, err := New(cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.NodeID() == "" || e.Stats().Loops < 1 || e.limits.MaxFrame < e.limits.MaxPayload+codec.FrameOverhead ||
			e.limits.Credit < e.limits.MaxPayload || e.limits.DefaultTTL > e.limits.MaxTTL || e.limits.MaxFrame > math.MaxUint32 {
			t.Errorf("%s: %+v", name, e.limits)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0", "localhost:0"} {
		t.Run(addr, func(t *testing.T) {
			n := start(t, Config{Addr: addr})
			got := n.Addr().(*net.TCPAddr)
			if got.Port == 0 {
				t.Error(got)
			}
			c := n.join("a")
			c.exchange("a", c, "a")
			m := c.welcome.Members
			if got.IP.IsUnspecified() { // no address for anybody to connect to
				if len(m) != 0 {
					t.Errorf("members %v", m)
				}
			} else if len(m) != 1 || m[0].Addr != got.String() || m[0].Node != n.NodeID() {
				t.Errorf("members %v", m)
			}
		})
	}
}

func TestRunErrors(t *testing.T) {
	n := start(t, Config{})
	if err := n.Run(t.Context()); err == nil || !errors.Is(err, ErrAlreadyRun) {
		t.Errorf("a second Run: %v", err)
	}
	n.join("a").alive()

	for addr, check := range map[string]func(error) bool{
		n.Addr().String(): func(err error) bool { return errors.Is(err, syscall.EADDRINUSE) },
		"no port":         func(err error) bool { return err != nil },
		"127.0.0.1:99999": func(err error) bool { return err != nil },
	} {
		e, err := New(Config{Addr: addr, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(t.Context()); !check(err) || !strings.HasPrefix(err.Error(), "engine: ") {
			t.Errorf("%s: %v", addr, err)
		}
		select {
		case <-e.Ready():
			t.Errorf("%s: ready", addr)
		default:
		}
		if s := e.Stats(); s.Connections != 0 || s.Sends != 0 || s.Outcomes == nil || s.Faults == nil {
			t.Errorf("%+v", s)
		}
	}
	e, err := New(Config{Addr: "127.0.0.1:0", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- e.Run(ended) }()
	select {
	case <-done: // nil or the context's error: it was over before it began
	case <-time.After(patience):
		t.Error("Run with an ended context does not return")
	}
}

// Clients get the reason why their connections end. Run returns nil soon, and Stats counts the
// ends.
func TestStop(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, DefaultTTL: time.Minute})
		a, b, fresh := n.join("a"), n.join("b"), n.dial()
		seq := a.send("a", "b", "hi")
		b.gets("a", "b", "hi")
		n.eventually("the third is there", func() bool { return n.Stats().Connections == 3 })
		n.cancel()
		for _, c := range []*client{b, fresh} {
			if e := c.fails(codec.FaultGoingAway); !strings.Contains(e.Message, "shutting down") || e.Kind != 0 {
				t.Errorf("%+v", e)
			}
		}
		if f := a.next(); f.kind == codec.KindOutcome { // it may have ended before b, or after
			var o codec.Outcome
			a.decoded(codec.DecodeOutcome(f.body, &o))
			if o.Seq != seq || o.Code != codec.CodeLost {
				t.Errorf("%d %v", o.Seq, o.Code)
			}
		} else {
			a.in = append(prefixed(f.body...), a.in...)
		}
		a.fails(codec.FaultGoingAway)
		began := time.Now()
		if err := n.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("Run returned %v after the last client had gone", took)
		}
		s := n.Stats()
		sum := s.Written + s.Abandoned
		for _, v := range s.Outcomes {
			sum += v
		}
		if s.Connections != 0 || s.Pending != 0 || s.Accepted != 3 || s.Closed != 3 || s.Faults[codec.FaultGoingAway] != 3 || s.Sends != sum {
			t.Errorf("%+v", s)
		}
		if _, err := net.DialTimeout("tcp", n.Addr().String(), patience); err == nil {
			t.Error("still listening")
		}
	})
}

// Clients that do not hang up, do not read, or are in the middle of something do not hold up the
// stop.
func TestStopStubborn(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Loops: 2, MaxPayload: 1 << 20, DefaultTTL: time.Minute})
	stubborn, deaf, partial := n.join("stubborn"), n.join("deaf"), n.dial()
	for range 12 {
		stubborn.post("stubborn", "deaf", strings.Repeat("x", 1<<20), 0)
	}
	stubborn.arrived()
	partial.write([]byte{0, 0})
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the stop took %v", took)
	}
	deaf.nc.Close()
}

// A hook that waits for its context ends with the engine.
func TestStopHook(t *testing.T) {
	long(t)
	t.Parallel()
	entered := make(chan struct{}, 1)
	n := start(t, Config{Hooks: Hooks{Authenticate: func(ctx context.Context, _ Login) (Identity, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return Identity{}, ctx.Err()
	}}})
	c := n.dial()
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	<-entered
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	c.fails(codec.FaultGoingAway)
}

// hung is a registry that answers nothing until the caller gives up.
type hung struct {
	routing.Registry
	attached chan struct{}
	once     sync.Once
}

func (h *hung) Attach(ctx context.Context, _ routing.SessionID, _ routing.Presence) error {
	h.once.Do(func() { close(h.attached) })
	<-ctx.Done()
	return routing.ErrUnavailable
}

// A registry that hangs delays neither the clients nor, for long, the stop.
func TestStopHungRegistry(t *testing.T) {
	long(t)
	t.Parallel()
	reg := &hung{Registry: routing.NewMemory(routing.MemoryConfig{}), attached: make(chan struct{})}
	n := start(t, Config{Registry: reg})
	c := n.dial()
	c.hello(codec.Hello{})
	<-reg.attached
	c.alive()
	if err := n.stop(); err != nil { // within patience, which is more than registryTimeout
		t.Error(err)
	}
}

// Several engines in one process do not affect each other.
func TestSeveral(t *testing.T) {
	long(t)
	t.Parallel()
	var nodes []*node
	for range 3 {
		nodes = append(nodes, start(t, Config{Loops: 2}))
	}
	var clients []*client
	for _, n := range nodes {
		clients = append(clients, n.join("same"))
	}
	clients[0].post("same", "same", "x", 0)
	clients[0].gets("same", "same", "x")
	for _, c := range clients {
		c.silent()
	}
	if err := nodes[1].stop(); err != nil {
		t.Error(err)
	}
	clients[1].fails(codec.FaultGoingAway)
	for _, i := range []int{0, 2} {
		clients[i].exchange("same", clients[i], "same")
	}
	if nodes[0].NodeID() == nodes[2].NodeID() {
		t.Error("two nodes have one ID")
	}
}

// A secret that nodes share makes sessions known to both; one that they do not share, to none.
func TestSecret(t *testing.T) {
	secret := []byte("0123456789abcdef")
	a, b, c := start(t, Config{Secret: secret}), start(t, Config{Secret: secret}), start(t, Config{})
	first := a.join()
	other := b.dial()
	if w := other.hello(first.resume()); w.Flags != 0 { // proven, but not known there: a new one
		t.Error("resumed where it never was")
	}
	stranger := c.dial()
	h := first.resume()
	h.MinVersion, h.MaxVersion = 1, 1
	stranger.write(codec.AppendHello(nil, &h))
	stranger.fails(codec.FaultUnauthenticated)
}

func TestDrain(t *testing.T) {
	long(t)
	t.Parallel()
	t.Run("idle", func(t *testing.T) {
		n := start(t, Config{Loops: 2})
		c := n.join("a")
		for range 2 {
			if err := n.Drain(patient(t)); err != nil {
				t.Error(err)
			}
		}
		c.expect(codec.KindDrain) // once
		c.alive()
		if !n.Draining() {
			t.Error("not draining")
		}
		// A session goes on, but not on a new connection.
		again := n.dial()
		h := c.resume()
		h.MinVersion, h.MaxVersion = 1, 1
		again.write(codec.AppendHello(nil, &h))
		again.fails(codec.FaultGoingAway)
	})
	t.Run("context ends", func(t *testing.T) {
		n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
		c := n.join("a")
		c.send("a", "a", "hi")
		c.gets("a", "a", "hi")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := n.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cause := errors.New("enough")
		ctx2, stop := context.WithCancelCause(t.Context())
		stop(cause)
		if err := n.Drain(ctx2); !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	})
	t.Run("engine stops", func(t *testing.T) {
		n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
		c := n.join("a")
		c.send("a", "a", "hi")
		c.gets("a", "a", "hi")
		drained := make(chan error, 1)
		go func() { drained <- n.Drain(context.Background()) }()
		c.expect(codec.KindDrain)
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-drained:
			if err == nil {
				t.Error("drained, with a send cut off")
			}
		case <-time.After(patience):
			t.Error("Drain waits for an engine that has stopped")
		}
		if err := n.Drain(patient(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the stop: %v", err)
		}
	})
	t.Run("while somebody joins", func(t *testing.T) {
		entered, release := make(chan struct{}, 1), make(chan struct{})
		n := start(t, Config{Loops: 2, Hooks: Hooks{Authenticate: func(context.Context, Login) (Identity, error) {
			entered <- struct{}{}
			<-release
			return Identity{}, nil
		}}})
		c := n.dial()
		c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
		<-entered
		if err := n.Drain(patient(t)); err != nil {
			t.Error(err)
		}
		close(release)
		c.fails(codec.FaultGoingAway)
	})
	t.Run("not running", func(t *testing.T) {
		e, err := New(Config{Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// Frames that were cut short by the end of the stream are just the end.
func TestHangUpAnywhere(t *testing.T) {
	n := start(t, Config{Loops: 2})
	by := n.watchOver()
	frame := sendFrame(1, "a", "bystander-0", "never whole", 0, 0)
	hello := codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1})
	for cut := 1; cut < len(hello); cut++ {
		c := n.dial()
		c.write(hello[:cut])
		c.nc.(*net.TCPConn).CloseWrite()
		c.ends()
	}
	for cut := 1; cut < len(frame); cut++ {
		c := n.join("a")
		c.write(frame[:cut])
		c.nc.(*net.TCPConn).CloseWrite()
		c.ends()
	}
	n.eventually("all are gone", func() bool { return n.Stats().Connections == 2 })
	if s := n.counters(); len(s.Faults) != 0 || s.Written != 0 {
		t.Errorf("%+v", s)
	}
	by.unharmed()
}

// Who waits for an engine that could not start hears of it.
func TestDialerWithoutRun(t *testing.T) {
	n := start(t, Config{})
	e, err := New(Config{Addr: n.Addr().String(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(patient(t)); err == nil {
		t.Fatal("two engines at one address")
	}
	if _, err := e.Dialer()(patient(t), InProcessAddr); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}
