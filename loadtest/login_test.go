package loadtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/engine"
)

// token is the one that a node lets in, and the file in which a load test finds it.
type token struct {
	t     *testing.T
	good  atomic.Pointer[string]
	file  string
	grant atomic.Int64 // logins that were granted
	deny  atomic.Int64 // logins that were refused
}

func newToken(t *testing.T) *token {
	k := &token{t: t, file: filepath.Join(t.TempDir(), "token")}
	k.set("first")
	k.write("first")
	return k
}

func (k *token) set(text string) { k.good.Store(&text) }

// write replaces the file, with the newline that relay token add prints.
func (k *token) write(text string) {
	k.t.Helper()
	if err := errors.Join(os.WriteFile(k.file+".new", []byte(text+"\n"), 0o600), os.Rename(k.file+".new", k.file)); err != nil {
		k.t.Error(err)
	}
}

func (k *token) authenticate(_ context.Context, l engine.Login) (engine.Identity, error) {
	if string(l.Credentials) != *k.good.Load() {
		k.deny.Add(1)
		return engine.Identity{}, errors.New("the token is wrong")
	}
	k.grant.Add(1)
	return engine.Identity{Name: "load"}, nil
}

// eventually waits until ok returns true.
func (k *token) eventually(what string, ok func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Errorf("not within a minute: %s", what)
			return
		}
	}
}

// TestLoginAgain replaces the token while messages flow. Every connection logs in again on another
// connection, and no message is lost.
func TestLoginAgain(t *testing.T) {
	long(t)
	for name, change := range map[string]func(*Config){
		"acked":  func(*Config) {},
		"no ack": func(c *Config) { c.NoAck = true },
		"fanout": func(c *Config) { c.Fanout = 5 },
		"sdk":    func(c *Config) { c.Driver = DriverSDK },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newToken(t)
			e := runEngine(t, engine.Config{Loops: 2, Hooks: engine.Hooks{Authenticate: k.authenticate}, ExpiryGrace: 6 * time.Second})
			cfg := quick
			cfg.Nodes, cfg.CredentialsFile = []string{e.Addr().String()}, k.file
			change(&cfg)
			conns, rounds := int64(cfg.Conns), []string{"second", "third"}
			replace := func() {
				for i, text := range rounds {
					k.write(text)
					k.set(text)
					e.Revoke("load")
					want := 1 + int64(i+2)*conns // the run logs in once more, before
					k.eventually("every connection has logged in again", func() bool { return k.grant.Load() >= want })
				}
			}
			replaced := make(chan struct{})
			started := false
			r := runUntil(t, cfg, func(s Snapshot) bool {
				if !started {
					started = true
					go func() { defer close(replaced); replace() }()
				}
				select {
				case <-replaced:
					return true
				default:
					return false
				}
			})
			checkClean(t, r)
			if r.LostConnections != 0 || r.Moves < uint64(conns) || !cfg.NoAck && r.Acked != r.Sent {
				t.Errorf("%d sent, outcomes %v, %d connections lost, %d moves", r.Sent, r.Outcomes, r.LostConnections, r.Moves)
			}
		})
	}
}

// TestLoginRefused lets the new token come into the file late: some logins are refused before, and
// the connections that are up continue.
func TestLoginRefused(t *testing.T) {
	long(t)
	t.Parallel()
	k := newToken(t)
	e := runEngine(t, engine.Config{Loops: 1, Hooks: engine.Hooks{Authenticate: k.authenticate}, ExpiryGrace: 6 * time.Second})
	cfg := quick
	cfg.Nodes, cfg.CredentialsFile, cfg.Conns = []string{e.Addr().String()}, k.file, 2
	revoked := false
	r := runUntil(t, cfg, func(Snapshot) bool {
		if !revoked {
			revoked = true
			k.set("second")
			e.Revoke("load")
		}
		if k.deny.Load() > 0 {
			k.write("second")
		}
		return k.grant.Load() >= int64(1+2*cfg.Conns)
	})
	checkClean(t, r)
	if r.LostConnections != 0 || r.Acked != r.Sent {
		t.Errorf("%d sent, outcomes %v, %d connections lost", r.Sent, r.Outcomes, r.LostConnections)
	}
}

// TestLoginCut has a token that does not come in time: the node closes the connections, and the run
// says so. They come back with the old token and are refused. When the new one comes, the sessions
// are resumed.
func TestLoginCut(t *testing.T) {
	long(t)
	t.Parallel()
	k := newToken(t)
	e := runEngine(t, engine.Config{Loops: 1, Hooks: engine.Hooks{Authenticate: k.authenticate}, ExpiryGrace: 100 * time.Millisecond})
	cfg := quick
	cfg.Nodes, cfg.CredentialsFile, cfg.Conns = []string{e.Addr().String()}, k.file, 2
	revoked, denied, at := false, int64(-1), uint64(0)
	r := runUntil(t, cfg, func(s Snapshot) bool {
		if !revoked {
			revoked = true
			k.set("second")
			e.Revoke("load")
		}
		if cut := e.Stats().LoginsCut >= uint64(cfg.Conns); cut && denied < 0 {
			denied = k.deny.Load() // those before the connections were closed
		} else if cut && k.deny.Load() > denied && at == 0 {
			k.write("second")
			at = s.Delivered + 1
		}
		return at > 0 && s.Delivered > at+100
	})
	if code, why := r.Verdict(); code != ExitOK || r.LostConnections != uint64(cfg.Conns) {
		t.Errorf("exit code %d (%s), %d connections lost, errors %v", code, why, r.LostConnections, r.Errors)
	}
}

// TestNoCredentials wants errors that say what to do.
func TestNoCredentials(t *testing.T) {
	t.Parallel()
	k := newToken(t)
	node := startEngine(t, engine.Config{Loops: 1, Hooks: engine.Hooks{Authenticate: k.authenticate}})
	k.write("wrong")
	for _, driver := range []Driver{DriverRelay, DriverSDK} {
		for _, file := range []string{"", k.file} {
			_, err := Run(t.Context(), Config{Nodes: []string{node}, Driver: driver, CredentialsFile: file})
			if err == nil || !strings.Contains(err.Error(), "the token is wrong") {
				t.Errorf("%s with %q: %v", driver, file, err)
			}
		}
	}
}
