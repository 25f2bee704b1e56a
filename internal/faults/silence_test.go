package faults

import (
	"bytes"
	"fmt"
	"net"
	"time"

	"distmsg/codec"
)

// Connections that are silent, and sessions that end.

const (
	silenceWindow = 4 * time.Second // the resume window
	noticed       = 3 * time.Second // after which silence is too much
)

// hears sends until the outcome is that one, and returns how long that took from begin.
func (p *proof) hears(u *Users, id, want string, begin time.Time) time.Duration {
	p.Helper()
	var tally Tally
	for {
		outcome := u.Send(p.ctx, id, tryTTL)
		tally.Add(outcome)
		if outcome == want {
			p.Logf("until %s the sends to %s ended: %s", want, id, counts(tally.Counts()))
			return time.Since(begin)
		}
		if !Pause(p.ctx, tryPause) {
			p.Fatalf("%s never heard %s: %s", id, want, counts(tally.Counts()))
		}
	}
}

// silence breaks the path between an app server and its node without a reset, and then lets the app
// server's host vanish.
func silence(p *proof) {
	sender := p.users(0, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	thief := p.users(2, UsersConfig{Name: "thief", Sessions: 1, PerUser: 1})
	victims := p.users(0, UsersConfig{Name: "victim", Sessions: 1, PerUser: 10, Host: p.c.AppHost})
	p.reach(sender, victims.IDs, time.Now())
	p.says("ok", time.Now()) // the first rebuild window is over

	cut := time.Now()
	p.check(p.c.AppHost.Cut(p.c.Hosts[0]))
	p.check(thief.sessions[0].Bind(p.ctx, victims.IDs[0])) // whose kick is lost
	p.Within("path broken: another node delivers", noticed+time.Second, p.reach(sender, victims.IDs[1:], cut))
	p.kicked(victims, 1)
	p.Within("the lost kick is heard", noticed+time.Second, time.Since(cut))
	p.check(p.c.AppHost.Mend(p.c.Hosts[0]))

	vanished := time.Now()
	p.check(p.c.AppHost.Partition())
	p.Within("host vanished: unreachable", noticed, p.hears(sender, victims.IDs[1], "unreachable", vanished))
	gone := p.hears(sender, victims.IDs[1], "no_route", vanished)
	p.Within("host vanished: no_route", noticed+silenceWindow, gone)
	if gone < silenceWindow {
		p.Errorf("no_route after %v, before the resume window of %v is over", gone, silenceWindow)
	}
	p.check(p.c.AppHost.Heal())
	p.Logf("back after %v", p.reach(sender, victims.IDs[1:], time.Now()).Round(time.Millisecond))
	p.Count("kicks", 1, victims.Kicks())
}

// kicked waits until the users have lost n IDs.
func (p *proof) kicked(u *Users, n int) {
	p.Helper()
	for u.Kicks() < n {
		if !Pause(p.ctx, pollEvery) {
			p.Fatalf("%d kicks, want %d", u.Kicks(), n)
		}
	}
}

// bye ends a session at one of the nodes that it is attached to.
func bye(p *proof) {
	sender := p.users(2, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	p.says("ok", time.Now()) // the first rebuild window is over
	first := p.dial(0, codec.Hello{})
	const id = "raw"
	first.put(codec.AppendBind(nil, 1, codec.PolicyKickOld, []codec.IDEpoch{{ID: []byte(id)}}))
	first.expect(codec.KindBound)
	second := p.dial(1, codec.Hello{Session: first.welcome.Session, Secret: first.welcome.Secret})
	if second.welcome.Flags&codec.WelcomeResumed == 0 || !bytes.Equal(second.welcome.Session, first.welcome.Session) {
		p.Fatal("the session was not resumed")
	}
	// nobody answers it
	p.Outcomes("before bye", map[string]uint64{sender.Send(p.ctx, id, tryTTL): 1}, "timeout")

	said := time.Now()
	first.put(codec.AppendBye(nil))
	var f codec.ErrorFrame
	p.check(codec.DecodeError(second.expect(codec.KindError), &f))
	if f.Fault != codec.FaultSessionEnded {
		p.Fatalf("the other node says %v (%s)", f.Fault, f.Message)
	}
	p.Within("the connection at another node hears session_ended", time.Second, time.Since(said))
	p.Within("senders at a third hear no_route", time.Second, p.hears(sender, id, "no_route", said))
	for node := range p.c.Nodes {
		again := p.dial(node, codec.Hello{Session: first.welcome.Session, Secret: first.welcome.Secret})
		p.Count(fmt.Sprintf("resumes at n%d", node+1), 0, int(again.welcome.Flags&codec.WelcomeResumed))
	}
}

// rawConn is a client that speaks the protocol by hand.
type rawConn struct {
	p       *proof
	nc      net.Conn
	in      []byte
	welcome codec.Welcome
}

// dial attaches to a node.
func (p *proof) dial(node int, hello codec.Hello) *rawConn {
	p.Helper()
	nc, err := net.Dial("tcp", p.c.Nodes[node].Addr)
	p.check(err)
	p.Cleanup(func() { nc.Close() })
	c := &rawConn{p: p, nc: nc}
	hello.MinVersion, hello.MaxVersion = codec.Version, codec.Version
	c.put(codec.AppendHello(nil, &hello))
	p.check(codec.DecodeWelcome(c.expect(codec.KindWelcome), &c.welcome))
	return c
}

func (c *rawConn) put(frame []byte) {
	c.p.Helper()
	_, err := c.nc.Write(frame)
	c.p.check(err)
}

// expect returns the next frame of a kind, and passes over all others.
func (c *rawConn) expect(kind codec.Kind) []byte {
	c.p.Helper()
	_ = c.nc.SetReadDeadline(time.Now().Add(settleTimeout))
	for {
		body, n, err := codec.Split(c.in, 1<<24)
		c.p.check(err)
		if n > 0 {
			c.in = c.in[n:]
			if got, _ := codec.PeekKind(body); got == kind {
				return body
			}
			continue
		}
		chunk := make([]byte, 4096)
		if n, err = c.nc.Read(chunk); n == 0 {
			c.p.Fatalf("waiting for %v: %v", kind, err)
		}
		c.in = append(c.in, chunk[:n]...)
	}
}
