package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
)

// TestCredentialsFunc: every hello has what the function returned for it.
func TestCredentialsFunc(t *testing.T) {
	n := newFakeNode(t).start()
	var calls atomic.Int32
	_, c := attachFake(t, n, Config{CredentialsFunc: func(context.Context) ([]byte, error) {
		switch call := calls.Add(1); call {
		case 2:
			return nil, errors.New("the store is closed")
		case 3:
			panic("store")
		case 4:
			return make([]byte, maxCredentials+1), nil
		default:
			return fmt.Append(nil, "token ", call), nil
		}
	}})
	if got := string(c.hello.Credentials); got != "token 1" {
		t.Errorf("%q", got)
	}
	c.Close()
	if got := string(n.accept().hello.Credentials); got != "token 5" {
		t.Errorf("%q", got)
	}
}

// TestCredentialsFuncFails: Dial returns its error, after one call, whatever nodes there are. It
// does not wait longer than its context allows.
func TestCredentialsFuncFails(t *testing.T) {
	wrong, calls := errors.New("no token"), 0
	cfg := Config{Nodes: []string{"127.0.0.1:1", "127.0.0.1:2"}, Logger: quiet()}
	cfg.CredentialsFunc = func(context.Context) ([]byte, error) { calls++; return nil, wrong }
	if _, err := Dial(testContext(t), cfg); !errors.Is(err, wrong) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	release := make(chan struct{})
	cfg.CredentialsFunc = func(context.Context) ([]byte, error) { <-release; return nil, nil }
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	cfg.Credentials = []byte("x")
	if _, err := Dial(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "both Credentials and CredentialsFunc") {
		t.Error(err)
	}
}

// TestCredentialsFuncBlocks: while the function is asked for another login, the session still
// serves the connection that it has, and notices its end.
func TestCredentialsFuncBlocks(t *testing.T) {
	n := newFakeNode(t).start()
	var calls atomic.Int32
	blocked := make(chan struct{})
	_, c := attachFake(t, n, Config{CredentialsFunc: func(ctx context.Context) ([]byte, error) {
		call := calls.Add(1)
		if call == 2 {
			close(blocked)
			<-ctx.Done()
		}
		return fmt.Append(nil, "token ", call), nil
	}})
	c.put(codec.AppendRelogin(nil, 0, "log in again"))
	receive(t, blocked, "the second call")
	c.Close()
	if got := string(n.accept().hello.Credentials); got != "token 3" {
		t.Errorf("%q", got)
	}
}

// once is an Authenticate hook that accepts any credentials, but none a second time.
func once() func(context.Context, engine.Login) (engine.Identity, error) {
	var seen sync.Map
	return func(_ context.Context, l engine.Login) (engine.Identity, error) {
		if _, again := seen.LoadOrStore(string(l.Credentials), true); again {
			return engine.Identity{}, errors.New("used before")
		}
		return engine.Identity{Name: "me"}, nil
	}
}

// TestLoginAgain: logins are revoked again and again under load, and no message is lost, nor is the
// session ever detached. Each login has new credentials.
func TestLoginAgain(t *testing.T) {
	long(t)
	t.Parallel()
	n := startNode(t, engine.Config{Hooks: engine.Hooks{Authenticate: once()}, ExpiryGrace: 5 * time.Second})
	states := make(chan State, 100)
	var calls atomic.Int64
	cfg := Config{
		CredentialsFunc: func(context.Context) ([]byte, error) { return fmt.Append(nil, calls.Add(1)), nil },
		Handler:         func(_ context.Context, d *Delivery) { d.Reply(d.Payload) },
	}
	to := holder(t, cfg, n.addr, "to")
	cfg.OnState = func(s State) { states <- s }
	from := holder(t, cfg, n.addr, "from")
	first := from.State().Session
	sends := 0
	for attached := 0; attached < 4; {
		sends++
		if _, err := from.Send(testContext(t), Message{From: "from", To: "to", Payload: []byte("x")}); err != nil {
			t.Fatalf("send %d: %v", sends, err)
		}
		select {
		case s := <-states:
			attached++
			if !s.Attached || s.Session != first || s.Resumed != (attached > 1) {
				t.Errorf("%+v", s)
			}
			if attached < 4 {
				n.Revoke("me")
			}
		default:
		}
	}
	eventually(t, "all outcomes are counted", func() bool { return n.Stats().Outcomes[codec.CodeAcked] == uint64(sends) })
	if s := n.Stats(); s.LoginsEnded < 4 || s.LoginsCut != 0 || s.Sessions != 2 {
		t.Errorf("%d ended, %d cut, %d sessions", s.LoginsEnded, s.LoginsCut, s.Sessions)
	}
	if to.State().Session == first {
		t.Error("both have one session")
	}
}

// TestSecretReplaced: when a node uses another secret, the session moves to a connection with a
// resume secret that the new one signs. So it can be resumed when the former one is worth nothing.
func TestSecretReplaced(t *testing.T) {
	t.Parallel()
	former, latter := []byte("the former secret"), []byte("the latter secret")
	n := startNode(t, engine.Config{Secret: former, ExpiryGrace: time.Second, Hooks: engine.Hooks{
		Authenticate: func(context.Context, engine.Login) (engine.Identity, error) { return engine.Identity{Name: "me"}, nil },
	}})
	states := make(chan State, 100)
	holder(t, Config{OnState: func(s State) { states <- s }}, n.addr, "a")
	first := receive(t, states, "the first state")
	use := func(secrets ...[]byte) {
		t.Helper()
		if err := n.SetSecrets(engine.Secrets{Resume: secrets}); err != nil {
			t.Fatal(err)
		}
	}
	resumed := func(what string) {
		t.Helper()
		if s := receive(t, states, what); !s.Attached || !s.Resumed || s.Session != first.Session {
			t.Errorf("%s: %+v", what, s)
		}
	}
	use(former, latter)
	use(latter, former)
	resumed("a new connection")
	use(latter)
	n.Revoke("me")
	resumed("a connection with the new secret alone")
	if s := n.Stats(); s.Sessions != 1 || s.LoginsCut != 0 {
		t.Errorf("%d sessions, %d logins cut", s.Sessions, s.LoginsCut)
	}
}

// TestExpiredWhileAway: the credentials with which a session comes back are not valid any more, and
// the next ones are. That is no reason to begin another session, which could not bind the IDs of
// the first.
func TestExpiredWhileAway(t *testing.T) {
	t.Parallel()
	var good atomic.Pointer[string]
	first, second := "first", "second"
	good.Store(&first)
	n := startNode(t, engine.Config{ExpiryGrace: time.Millisecond, ResumeWindow: time.Minute, Hooks: engine.Hooks{
		Authenticate: func(_ context.Context, l engine.Login) (engine.Identity, error) {
			if string(l.Credentials) != *good.Load() {
				return engine.Identity{}, errors.New("expired")
			}
			return engine.Identity{Name: "me"}, nil
		},
	}})
	states := make(chan State, 100)
	var cut atomic.Bool
	var shown atomic.Int64 // the first credentials, after the connection was cut
	s := holder(t, Config{
		MaxBackoff: 50 * time.Millisecond,
		OnState: func(s State) {
			cut.CompareAndSwap(false, !s.Attached)
			states <- s
		},
		CredentialsFunc: func(context.Context) ([]byte, error) {
			if !cut.Load() || shown.Add(1) == 1 {
				return []byte(first), nil
			}
			return []byte(second), nil
		},
	}, n.addr, "a")
	before := receive(t, states, "the first state")
	good.Store(&second)
	n.Revoke("me")
	if v := receive(t, states, "the end"); v.Attached {
		t.Errorf("%+v", v)
	}
	if v := receive(t, states, "another login"); !v.Attached || !v.Resumed || v.Session != before.Session {
		t.Errorf("%+v", v)
	}
	if found, err := s.Lookup(testContext(t), "a"); err != nil || found[0].Code != CodeOK || s.Stats().Kicks != 0 {
		t.Errorf("%+v, %v, %d kicks", found, err, s.Stats().Kicks)
	}
}

// TestRevoked: a client whose credentials are not valid any more is cut off after the grace period,
// and comes back with its session when they are.
func TestRevoked(t *testing.T) {
	long(t)
	t.Parallel()
	var down, refused atomic.Bool
	n := startNode(t, engine.Config{ExpiryGrace: 2 * time.Second, ResumeWindow: time.Minute, Hooks: engine.Hooks{
		Authenticate: func(context.Context, engine.Login) (engine.Identity, error) {
			switch {
			case refused.Load():
				return engine.Identity{}, errors.New("revoked")
			case down.Load():
				return engine.Identity{}, fmt.Errorf("503: %w", engine.ErrRetryLogin)
			}
			return engine.Identity{Name: "me"}, nil
		},
	}})
	states := make(chan State, 100)
	s := holder(t, Config{MaxBackoff: 50 * time.Millisecond, OnState: func(s State) { states <- s }}, n.addr, "a")
	receive(t, states, "the first state")
	refused.Store(true)
	n.Revoke("me")
	if v := receive(t, states, "the end"); v.Attached || v.Err == nil || !strings.Contains(v.Err.Error(), "unauthenticated") {
		t.Errorf("%+v", v)
	}
	down.Store(true)
	refused.Store(false)
	before := n.Stats().Faults[codec.FaultGoingAway]
	eventually(t, "it is told to come again", func() bool { return n.Stats().Faults[codec.FaultGoingAway] > before+2 })
	down.Store(false)
	if v := receive(t, states, "another login"); !v.Attached || !v.Resumed {
		t.Errorf("%+v", v)
	}
	if found, err := s.Lookup(testContext(t), "a"); err != nil || found[0].Code != CodeOK {
		t.Errorf("%+v, %v", found, err)
	}
}
