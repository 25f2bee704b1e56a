package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/routing"
)

// notes is a log that a test reads while others write to it.
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

// lines counts the lines with that text.
func (l *notes) lines(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// notReturning holds what application code may do instead of returning.
var notReturning = map[string]func(){"panic": func() { panic("a secret") }, "goexit": runtime.Goexit}

// A hook that panics, or ends its goroutine, refuses what it was asked. The client does not learn
// why, and nothing else ends.
func TestHooksDoNotReturn(t *testing.T) {
	for name, ends := range notReturning {
		t.Run(name, func(t *testing.T) {
			var log notes
			var down, up, kicks atomic.Int32
			hooks := Hooks{
				Authenticate: func(_ context.Context, l Login) (Identity, error) {
					if len(l.Credentials) > 0 {
						ends()
					}
					return Identity{Name: "me"}, nil
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

// The loop continues, and the message is refused.
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

// Containing a hook on a loop allocates nothing.
func TestHooksAllocateNothing(t *testing.T) {
	n := start(t, Config{Loops: 1, Hooks: Hooks{
		Deliver:       func(routing.SessionID, string, *codec.Deliver) codec.Code { return codec.CodeOK },
		Undeliverable: func(*codec.Deliver, codec.Code) {},
	}})
	s := n.table.Session(n.join("in").sessionID())
	d := &codec.Deliver{To: []byte("in")}
	if a := testing.AllocsPerRun(100, func() {
		n.hooks.mayDeliver(s, d)
		n.hooks.undelivered(d, codec.CodeNoRoute)
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

// A client that binds gets the reason of the hook's refusal, inside the process and outside. An
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
	s := n.attach(sdk.Config{})
	err := s.Bind(patient(t), "good2", "bad", "")
	if !errors.Is(err, sdk.ErrDenied) || !errors.Is(err, sdk.ErrBadID) || !strings.Contains(err.Error(), "bad is not yours!") {
		t.Errorf("%v", err)
	}
}
