package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// An operator reads who was refused, who has reached a limit, why a session has ended, and how a
// drain begins and ends, and no credentials. A message that clients repeat has one line a second,
// which says how many were left out.
func TestClientLines(t *testing.T) {
	var log notes
	n := start(t, Config{
		Logger:         log.logger(),
		IdentityLimits: Limits{Messages: Rate{PerSecond: 1, Burst: 1}},
		Hooks: Hooks{Authenticate: func(_ context.Context, l Login) (Identity, error) {
			if string(l.Credentials) == "the wrong password" {
				return Identity{}, errors.New("no such token")
			}
			return Identity{Name: "backend-1"}, nil
		}},
	})
	for range 3 {
		c := n.dial()
		c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1, Credentials: []byte("the wrong password")}))
		c.fails(codec.FaultUnauthenticated)
	}
	log.has(n, `level=WARN msg="refused a login" component=clients remote=127.0.0.1:`, `reason="no such token"`)
	broken := n.join("b")
	broken.write(make([]byte, codec.PrefixLen))
	broken.fails(codec.FaultZeroLength)
	log.has(n, `level=WARN msg="closed a connection that breaks the protocol" component=clients remote=`, `identity=backend-1 fault=zero_length detail=`)
	c := n.join("a")
	for len(n.counters().Limited) == 0 {
		c.send("a", "nobody", "x")
	}
	log.has(n, `msg="a client has reached a limit, and hears overflow, or to come again later" component=clients limit=identity-messages identity=backend-1 remote=`)
	c.write(codec.AppendBye(nil))
	log.has(n, `level=INFO msg="session ended" component=sessions session=`, `identity=backend-1 ids=1 why="its client has said bye`)
	if err := n.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	log.has(n, `level=INFO msg="draining: clients are asked to move to other nodes" clients=`, " nodes=0 grace=0s",
		`level=INFO msg="drained: nothing is under way any more" took=`)
	log.mu.Lock()
	defer log.mu.Unlock()
	if strings.Contains(log.b.String(), "password") {
		t.Error("the log has a password")
	}
}

// A loop has one line a second for each limit, and says how many it has left out.
func TestLimitLines(t *testing.T) {
	var log notes
	n := start(t, Config{Logger: log.logger()})
	n.join()
	ask(t.Context(), n.Engine, func(l *loop) bool {
		var c *conn
		for _, other := range l.conns {
			if other != nil && other.kind == clientConn {
				c = other
			}
		}
		var news limitNews
		for range 3 {
			news.reached(c, "backend-1", 0)
		}
		news.reached(c, "backend-1", 1)
		news.said[0] -= limitPause
		news.reached(c, "backend-1", 0)
		return true
	})
	log.has(n, "left_out=2")
	if !n.log.Flush(time.Minute) {
		t.Error("the log is not written")
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if lines := strings.Count(log.b.String(), "has reached a limit"); lines != 3 {
		t.Errorf("%d lines: %s", lines, log.b.String())
	}
}

// The end of a link says why, at both ends.
func TestLinkLines(t *testing.T) {
	logs := map[string]*notes{"n0": new(notes), "n1": new(notes)}
	g := startGroupWith(t, 2, 1, func(cfg *Config) { cfg.Logger = logs[cfg.NodeID].logger() })
	if err := g.nodes[1].stop(); err != nil {
		t.Error(err)
	}
	logs["n0"].has(g.nodes[0], `level=INFO msg="link down" component=links node=n1 remote=`, ` why="the other node, or the network, has closed it"`)
	logs["n1"].has(g.nodes[0], `level=INFO msg="link down" component=links node=n0 remote=`, ` why="the node is shutting down"`)
}
