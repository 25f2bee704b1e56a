package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// notes is a log that a test reads while others write it.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *notes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *notes) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *notes) has(n *node, all ...string) {
	n.t.Helper()
	for _, want := range all {
		n.eventually(want+" in the log", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return strings.Contains(l.b.String(), want)
		})
	}
}

// notReturning is what application code may do in place of returning.
var notReturning = map[string]func(){"panic": func() { panic("a secret") }, "goexit": runtime.Goexit}

// TestHooksDoNotReturn: a hook that panics, or ends its goroutine, refuses what it was asked, says
// nothing to the client of why, and takes nothing else with it.
func TestHooksDoNotReturn(t *testing.T) {
	for name, ends := range notReturning {
		t.Run(name, func(t *testing.T) {
			var log notes
			var down, up, kicks atomic.Int32
			hooks := Hooks{
				Authenticate: func(_ context.Context, credentials []byte, _ net.Addr) (string, error) {
					if len(credentials) > 0 {
						ends()
					}
					return "me", nil
				},
				Bind: func(_, id string) error {
					if strings.HasPrefix(id, "bad") {
						ends()
					}
					return nil
				},
				Kick:        func(routing.SessionID, string, string, uint64) { kicks.Add(1); ends() },
				SessionUp:   func(routing.SessionID, string) { up.Add(1); ends() },
				SessionDown: func(routing.SessionID, string) { down.Add(1); ends() },
			}
			n := start(t, Config{Loops: 1, Logger: log.logger(), Hooks: hooks})
			c := n.dial()
			c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version, Credentials: []byte("x")}))
			if f := c.fails(codec.FaultInternal); strings.Contains(f.Message, "secret") {
				t.Errorf("%+v", f)
			}
			var ids []string // in every lane
			for i := range 64 {
				ids = append(ids, string(rune('A'+i)), "bad"+string(rune('A'+i)))
			}
			for range 2 {
				alice := n.join()
				for i, r := range alice.tryBind(codec.PolicyKickOld, withEpochs(ids)...) {
					if want := [2]codec.Code{codec.CodeOK, codec.CodeDenied}[i%2]; r.Code != want {
						t.Errorf("%s: %s, want %s", ids[i], r.Code, want)
					}
				}
			}
			n.eventually("all kicks", func() bool { return kicks.Load() == 64 })
			bye := n.join("bye")
			bye.write(codec.AppendBye(nil))
			n.eventually("the end of a session", func() bool { return down.Load() == 1 })
			n.join("Z").exchange("Z", n.join("Y"), "Y")
			log.has(n, "Hooks.Authenticate", "Hooks.Bind", "Hooks.Kick", "Hooks.SessionUp", "Hooks.SessionDown", "TestHooksDoNotReturn", "stack=")
		})
	}
}

// TestLoopHooksPanic: the loop goes on, and the message is refused.
func TestLoopHooksPanic(t *testing.T) {
	var log notes
	on := func(payload []byte, word string) {
		if string(payload) == word {
			panic("a secret")
		}
	}
	n := start(t, Config{Loops: 1, Logger: log.logger(), Hooks: Hooks{
		Send: func(_ string, m *codec.Send) codec.Code { on(m.Payload, "send"); return codec.CodeOK },
		Deliver: func(_ routing.SessionID, _ string, m *codec.Deliver) codec.Code {
			on(m.Payload, "deliver")
			return codec.CodeOK
		},
		Undeliverable: func(*codec.Deliver, codec.Code) { panic("a secret") },
	}})
	from, to := n.join("from"), n.join("to")
	for range 3 {
		for _, payload := range []string{"send", "deliver"} {
			if o := from.hears(from.send("from", "to", payload), codec.CodeDenied); strings.Contains(string(o.Reason), "secret") {
				t.Errorf("%s: %q", payload, o.Reason)
			}
		}
		from.hears(from.send("from", "nobody", "x"), codec.CodeNoRoute)
		from.exchange("from", to, "to")
	}
	log.has(n, "Hooks.Send panicked", "Hooks.Deliver panicked", "Hooks.Undeliverable panicked", "a secret", "stack=")
}

// TestHooksAllocateNothing: to contain a hook on a loop takes no memory.
func TestHooksAllocateNothing(t *testing.T) {
	n := start(t, Config{Loops: 1, Hooks: Hooks{
		Deliver:       func(routing.SessionID, string, *codec.Deliver) codec.Code { return codec.CodeOK },
		Undeliverable: func(*codec.Deliver, codec.Code) {},
	}})
	s := n.inside(InProcessConfig{}, "in")
	d := &codec.Deliver{To: []byte("in")}
	if a := testing.AllocsPerRun(100, func() {
		n.hooks.mayDeliver(s.session, d)
		n.hooks.undelivered(d, codec.CodeNoRoute)
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

// TestInProcessDoesNotReturn: whatever a handler or callback does in place of returning, the
// session goes on, and the sender hears rejected.
func TestInProcessDoesNotReturn(t *testing.T) {
	for name, ends := range notReturning {
		t.Run(name, func(t *testing.T) {
			var log notes
			var kicks, changes, calls atomic.Int32
			n := start(t, Config{Loops: 1, Logger: log.logger(), DefaultTTL: patience})
			s := n.inside(InProcessConfig{
				Handler:    func(m *Message) { ends() },
				OnKick:     func(string, uint64) { kicks.Add(1); ends() },
				OnPresence: func(Presence) { changes.Add(1); ends() },
			}, "in", "in2", "a", "b")
			if _, err := s.Watch(patient(t), "x", "y"); err != nil {
				t.Fatal(err)
			}
			remote := n.join("out", "a", "x")
			remote.bind("b", "y")
			n.eventually("all kicks and changes", func() bool { return kicks.Load() == 2 && changes.Load() == 2 })
			for range 3 {
				if o := remote.hears(remote.send("out", "in", "x"), codec.CodeRejected); strings.Contains(string(o.Reason), "secret") {
					t.Errorf("%q", o.Reason)
				}
				remote.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: 1 << 40, From: []byte("out"), Flags: codec.FlagAck, Payload: []byte("m")},
					[]string{"in", "in2", "in"}))
				for range 3 { // the recipients behind the first
					if o := remote.outcome(); o.Code != codec.CodeRejected {
						t.Errorf("%+v", o)
					}
				}
				s.SendAsync(patient(t), "in", "nobody", nil, func([]byte, error) { calls.Add(1); ends() })
			}
			n.eventually("all callbacks", func() bool { return calls.Load() == 3 })
			log.has(n, "in-process session: a handler", "in-process session: OnKick", "in-process session: OnPresence",
				"in-process session: the callback of a SendAsync", "TestInProcessDoesNotReturn", "stack=")
		})
	}
}

// TestInProcessStuck: callbacks that do not return hold up neither sends, nor the callbacks of
// others, nor each other; nor does the handler hold up what is told of kicks and presence.
func TestInProcessStuck(t *testing.T) {
	long(t)
	t.Parallel()
	var log notes
	release := make(chan struct{})
	n := start(t, Config{Loops: 1, Logger: log.logger(), DefaultTTL: patience, MaxInFlight: 2})
	kicks, changes, entered := make(chan string, 1), make(chan Presence, 1), make(chan struct{}, 1)
	s := n.inside(InProcessConfig{
		Handler:    func(*Message) { entered <- struct{}{}; <-release },
		OnKick:     func(id string, _ uint64) { kicks <- id },
		OnPresence: func(p Presence) { changes <- p },
	}, "in", "mine")
	t.Cleanup(func() { close(release) })
	if _, err := s.Watch(patient(t), "x"); err != nil {
		t.Fatal(err)
	}
	remote := n.join("out", "x")
	remote.send("out", "in", "to a handler that is stuck")
	<-entered
	if p := <-changes; p.ID != "x" {
		t.Errorf("%+v", p)
	}
	remote.bind("mine")
	if id := <-kicks; id != "mine" {
		t.Errorf("%s", id)
	}
	called := make(chan error, 1)
	s.SendAsync(patient(t), "in", "nobody", nil, func([]byte, error) { called <- nil; <-release })
	<-called
	for range 5 { // more than may be in flight
		if _, err := s.Send(patient(t), "in", "nobody", nil); !errors.Is(err, ErrNoRoute) {
			t.Fatal(err)
		}
		s.SendAsync(patient(t), "in", "nobody", nil, func(_ []byte, err error) { called <- err })
		if err := <-called; !errors.Is(err, ErrNoRoute) {
			t.Fatal(err)
		}
	}
	log.has(n, "the callback of a SendAsync does not return")
}

// TestInProcessCallbackSends: a callback may send although all places are taken by sends whose
// callbacks wait behind it.
func TestInProcessCallbackSends(t *testing.T) {
	n := start(t, Config{Loops: 1, MaxInFlight: 2, DefaultTTL: patience})
	s := n.inside(InProcessConfig{}, "in")
	over, stop := context.WithCancel(patient(t))
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for over.Err() == nil {
				s.SendAsync(patient(t), "in", "nobody", nil, func([]byte, error) {})
			}
		})
	}
	done := make(chan error, 1)
	var again func(left int)
	again = func(left int) {
		s.SendAsync(patient(t), "in", "nobody", nil, func([]byte, error) {
			if _, err := s.Send(patient(t), "in", "nobody", nil); left == 0 || !errors.Is(err, ErrNoRoute) {
				done <- err
				return
			}
			again(left - 1)
		})
	}
	again(50)
	if err := <-done; !errors.Is(err, ErrNoRoute) {
		t.Error(err)
	}
	stop()
	others.Wait()
}

// TestInProcessMessageIsOver: a message that a goroutine holds on to answers nobody once its
// handler has returned.
func TestInProcessMessageIsOver(t *testing.T) {
	n := start(t, Config{Loops: 1, DefaultTTL: patience})
	var old []*Message
	n.inside(InProcessConfig{Handler: func(m *Message) {
		for _, o := range old {
			if o.Ack([]byte("not yours")) != ErrAnswered || o.Reject("no") != ErrAnswered || o.Payload != nil {
				t.Errorf("%+v answers", o)
			}
		}
		old = append(old, m)
		if string(m.Payload) == "panic" {
			panic("on purpose")
		}
		if err := m.Ack(append([]byte("to "), m.Payload...)); err != nil {
			t.Error(err)
		}
	}}, "in")
	remote := n.join("out")
	for range 5 {
		if o := remote.hears(remote.send("out", "in", "a"), codec.CodeAcked); string(o.Reply) != "to a" {
			t.Errorf("%q", o.Reply)
		}
		remote.hears(remote.send("out", "in", "panic"), codec.CodeRejected)
		remote.post("out", "in", "without ack", 0)
	}
}

// TestInProcessUnhandled: a message whose sender has heard timeout while it waited is not handled.
func TestInProcessUnhandled(t *testing.T) {
	n := start(t, Config{Loops: 1})
	release, entered := make(chan struct{}), make(chan struct{})
	var handled atomic.Int32
	n.inside(InProcessConfig{Handler: func(m *Message) {
		if handled.Add(1) == 1 {
			close(entered)
			<-release
		}
	}}, "in")
	remote := n.join("out")
	first := remote.send("out", "in", "x")
	<-entered
	remote.write(sendFrame(1<<40, "out", "in", "late", codec.FlagAck, 1))
	remote.hears(1<<40, codec.CodeTimeout)
	time.AfterFunc(10*time.Millisecond, func() { close(release) }) // later than the deadline by the receiver's clock
	remote.hears(first, codec.CodeAcked)
	remote.hears(remote.send("out", "in", "x"), codec.CodeAcked)
	if got, s := handled.Load(), n.Stats(); got != 2 || s.Unhandled != 1 {
		t.Errorf("%d handled, %d not", got, s.Unhandled)
	}
}

// TestBindReasons: whoever binds hears why a hook said no, inside the process and outside; an
// answer with many reasons fits into a frame.
func TestBindReasons(t *testing.T) {
	n := start(t, Config{Loops: 1, MaxPayload: 1000, Hooks: Hooks{Bind: func(_, id string) error {
		if strings.HasPrefix(id, "bad") {
			return errors.New(id + " is not yours" + strings.Repeat("!", 300))
		}
		return nil
	}}})
	c := n.join()
	ids := []string{"good", "bad"}
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("bad", i))
	}
	c.write(codec.AppendBind(nil, 1, codec.PolicyKickOld, withEpochs(ids)))
	body := c.expect(codec.KindBound)
	var f codec.Results
	if err := codec.DecodeResults(body, codec.KindBound, &f); err != nil || f.All.Len() != len(ids) || len(body) > 64<<10 {
		t.Fatalf("%d results in %d bytes, %v", f.All.Len(), len(body), err)
	}
	reasons := make(map[uint64]string)
	for r, ok := f.Reasons.Next(); ok; r, ok = f.Reasons.Next() {
		reasons[r.Index] = string(r.Text)
	}
	if len(reasons) < 50 || len(reasons) > 200 || reasons[0] != "" {
		t.Errorf("%d reasons", len(reasons))
	}
	for i, text := range reasons {
		if !strings.HasPrefix(text, ids[i]+" is not yours!") || len(text) != codec.MaxReason {
			t.Errorf("%s: %q", ids[i], text)
		}
	}
	s := n.inside(InProcessConfig{})
	err := s.Bind(patient(t), "good2", "bad", "")
	var failed *BindError
	if !errors.As(err, &failed) || !errors.Is(err, ErrDenied) || !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), `bind "bad": denied: bad is not yours!`) {
		t.Errorf("%v", err)
	}
}
