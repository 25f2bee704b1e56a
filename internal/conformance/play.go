package conformance

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"distmsg/codec"
)

// The sections of docs/protocol.md that a verdict can name. A test checks that they exist.
const (
	secFrames    = "Frames"
	secLife      = "Life of a connection"
	secStates    = "States"
	secLimits    = "Limits and defaults"
	secHeart     = "Heartbeats"
	secHello     = "hello (1)"
	secReassert  = "reassert (9)"
	secMembers   = "members (12)"
	secRelogin   = "relogin (13)"
	secSend      = "send (32)"
	secAck       = "ack (34)"
	secNotHere   = "not_here (36)"
	secBindings  = "Bindings"
	secMessages  = "Messages"
	secMulticast = "Multicast"
	secWatching  = "Watching"
	secCodes     = "Codes"
	secOver      = "A limit of the client"
	secFaults    = "Faults"
	secEnding    = "Ending its own sends"
	secPolite    = "Being polite"
	secReconnect = "Reconnecting"
	secDrain     = "Drain"
	secMoving    = "Moving"
	secLeaving   = "Leaving"

	contractSection = "What your program does" // of docs/conformance.md
)

// settle is how long a scenario waits to see whether the client does something forbidden.
const settle = 300 * time.Millisecond

// play is one scenario with one client. The scenario's goroutine owns all of it except the parts
// under mu. A scenario says what the nodes do. play checks the rules that hold in all scenarios,
// and does what any node does unless the scenario says otherwise.
type play struct {
	scenario *Scenario
	patience time.Duration // how long the client may take for an answer
	arrival  time.Duration // how long it may take to connect
	waits    bool          // no program runs: any connection is the client's
	limits   codec.Limits
	tls      *tls.Config // nil: none
	ctx      context.Context
	stop     context.CancelFunc
	events   chan event
	readers  sync.WaitGroup

	mu       sync.Mutex
	accepted []net.Conn

	bindings bindings
	messages messages
	reports  reports

	nodes    []*node
	conns    []*conn // accepted, in this order
	sessions []*session
	exited   bool // the client program has ended
	mayExit  bool // the program may end: it has been refused, or was asked to leave

	// What a scenario can change.
	dress    func(frame []byte) []byte // transforms each frame that put writes
	trickle  bool                      // bytes are written one by one
	greet    func(c *conn)             // answers hello
	onBind   func(c *conn, b *bind)    // answers bind
	onSend   func(s *send)             // answers a send or post
	onWatch  func(c *conn, seq uint64, ids []string)
	onLeave  func(c *conn) // between leave and left
	features uint64        // that the nodes grant
	noResume bool          // sessions are never resumed

	verdict Verdict
}

// session is what the nodes know about a session of the client.
type session struct {
	id, secret []byte
	over       bool // it is not resumed any more
	said       bool // and the client has been notified
}

func newPlay(ctx context.Context, s *Scenario, cfg *Config) *play {
	ctx, stop := context.WithTimeout(ctx, cfg.Timeout)
	p := &play{
		scenario: s, patience: cfg.Patience, arrival: cfg.Arrival, waits: cfg.Client == nil, limits: defaultLimits, tls: cfg.TLS, features: knownFeatures, ctx: ctx, stop: stop,
		events: make(chan event, 1024), verdict: Verdict{Scenario: s.Name},
	}
	p.messages = messages{play: p, tokens: map[string]*delivery{}}
	p.reports = reports{play: p}
	p.bindings = bindings{
		play: p, clock: 1 << 52, epochs: map[string]uint64{}, granted: map[string]uint64{},
		wanted: map[string]bool{}, due: map[string]bool{}, unwanted: map[string]bool{},
	}
	for _, id := range []string{Driver, Alice, Bob} {
		p.bindings.wanted[id] = true
	}
	return p
}

// defaultLimits are the announced limits unless a scenario changes them.
var defaultLimits = codec.Limits{
	MaxPayload: 1 << 20, MaxFrame: 1<<20 + codec.FrameOverhead, MaxIDs: 1024, MaxInFlight: 1000, Credit: 1 << 20,
	MaxTTL: 60_000, DefaultTTL: 10_000, Heartbeat: 10_000, IdleTimeout: 30_000, ResumeWindow: 10_000,
	MaxMulticast: 100, MaxWatched: 100,
}

// act runs the scenario's script and the common end of all scripts, on a goroutine of its own. A
// verdict ends that goroutine.
func (p *play) act() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.scenario.script(p)
		p.goodbye()
		p.end(Pass, "")
	}()
	<-done
}

// end gives the verdict and ends the goroutine.
func (p *play) end(r Result, reason string) {
	p.verdict.Result, p.verdict.Reason = r, reason
	runtime.Goexit()
}

// blame ends the scenario with the rule that the client has broken. frame is the offending frame,
// or nil if nothing came.
func (p *play) blame(c *conn, section, expected, got string, frame []byte) {
	f := &Fault{Section: section, Expected: expected, Got: got}
	if frame != nil {
		f.Frame = hexOf(frame)
	}
	if c != nil && c.said != nil {
		f.After = hexOf(c.said)
	}
	p.verdict.Fault = f
	p.end(Fail, "")
}

// until handles the client's frames until ok returns true. If that takes longer than a client may
// take for an answer, the client has not done what the section expects.
func (p *play) until(c *conn, section, expected string, ok func() bool) {
	p.untilIn(p.patience, c, section, expected, ok)
}

func (p *play) untilIn(d time.Duration, c *conn, section, expected string, ok func() bool) {
	p.wait(d, ok, func(why string) { p.blame(c, section, expected, why+p.reports.unasked(), nil) })
}

// wait handles the client's frames until ok returns true. If that takes longer than d, wait calls
// late, which gives the verdict and does not return.
func (p *play) wait(d time.Duration, ok func() bool, late func(why string)) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !ok() {
		select {
		case e := <-p.events:
			p.handle(e)
		case <-timer.C:
			late(fmt.Sprintf("nothing of the kind within %v", d))
		case <-p.ctx.Done():
			p.cut(late)
		}
	}
}

// cut ends a scenario that has timed out or that the operator has interrupted.
func (p *play) cut(late func(why string)) {
	if context.Cause(p.ctx) == context.DeadlineExceeded {
		late("the time of the scenario is over")
	}
	p.end(Err, "interrupted")
}

// during handles the client's frames for a while. The client must not break a rule meanwhile.
func (p *play) during(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case e := <-p.events:
			p.handle(e)
		case <-timer.C:
			return
		case <-p.ctx.Done():
			p.cut(func(why string) { p.end(Err, why) })
		}
	}
}

func (p *play) handle(e event) {
	c := e.conn
	switch {
	case e.ended:
		p.exited = true
		// perhaps it could not be started, which says nothing about the protocol
		if !p.mayExit && len(p.conns) == 0 {
			p.end(Err, "the program did not connect to "+p.nodes[0].addr+": "+exitWords(e.err))
		}
		if !p.mayExit {
			p.blame(nil, contractSection, "the program runs until the instruction bye", exitWords(e.err), nil)
		}
	case e.frame == nil && e.err == nil:
		c.number, c.limits = len(p.conns)+1, p.limits
		c.credit = p.limits.Credit
		p.conns = append(p.conns, c)
	case e.frame == nil:
		c.ended = true
		if !c.over {
			p.lose(c)
		}
	case c.over:
	case e.err != nil:
		p.blame(c, secFrames, "a length prefix of at least 1 and at most max_frame", e.err.Error(), e.frame)
	default:
		p.frame(c, e.frame)
	}
}

func exitWords(err error) string {
	if err == nil {
		return "it ended by itself"
	}
	return "it ended: " + err.Error()
}

// first waits for the client's first connection and for its bindings.
func (p *play) first() *conn {
	p.arrives(func() bool { return len(p.conns) > 0 })
	return p.bound()
}

// firstToReset is first for a scenario that resets the connection at once. A reset may take what
// the client has not read yet, so the client must have read bound.
func (p *play) firstToReset() *conn {
	c := p.first()
	p.ping(c, boundNonce)
	return c
}

// boundNonce is the nonce of the ping after bound.
const boundNonce = 1 << 20

// arrives waits for the client. If no program runs and no client comes, that is not a client's
// fault.
func (p *play) arrives(here func() bool) {
	p.wait(p.arrival, here, func(why string) {
		if p.waits {
			p.end(Err, "no client has come to "+p.nodes[0].addr+": "+why)
		}
		p.blame(p.latest(), contractSection, "the program connects to "+p.nodes[0].addr, why, nil)
	})
}

// bound waits until the client holds the three IDs, and returns the connection that is used now.
func (p *play) bound() *conn {
	p.until(p.latest(), contractSection, "the program binds "+Driver+", "+Alice+" and "+Bob, func() bool {
		return p.bindings.epochs[Driver] != 0 && p.bindings.epochs[Alice] != 0 && p.bindings.epochs[Bob] != 0 && p.current() != nil
	})
	return p.current()
}

// current returns the newest connection that is open, nil if there is none.
func (p *play) current() *conn {
	for _, c := range slices.Backward(p.conns) {
		if c.open && !c.over && !c.left {
			return c
		}
	}
	return nil
}

func (p *play) latest() *conn {
	if len(p.conns) == 0 {
		return nil
	}
	return p.conns[len(p.conns)-1]
}

// again waits until the client has connected again and has its welcome, after the first n
// connections.
func (p *play) again(n int, section, expected string) *conn {
	p.untilIn(p.patience+maxPause, p.latest(), section, expected, func() bool { return p.current() != nil && p.current().number > n })
	return p.current()
}

// instruct sends an instruction to the client's program, and waits for the ack.
func (p *play) instruct(c *conn, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d := p.messages.deliver(c, codec.Deliver{To: []byte(Driver), Payload: []byte(text)})
	p.until(c, secMessages, "the client acks the instruction "+text, func() bool { return d.acks > 0 || d.void })
}

// works checks that messages flow in both directions over c.
func (p *play) works(c *conn, section, after string) {
	d := p.messages.deliver(c, codec.Deliver{To: []byte(Alice), Payload: []byte("still here?")})
	p.until(c, section, after+": the client continues, and acks what is delivered", func() bool { return d.acks > 0 })
}

// goodbye is the end of every scenario: the client finishes what is open and says bye.
func (p *play) goodbye() {
	c := p.current()
	if p.exited || p.mayExit {
		return
	}
	if c == nil {
		c = p.again(len(p.conns), secReconnect, "the client connects again")
	}
	p.mayExit = true
	before := len(p.conns)
	p.instruct(c, doBye)
	p.until(c, secLeaving, "the client ends its sends, answers what was delivered, and says bye", func() bool { return c.bye })
	p.messages.allAnswered()
	for _, open := range p.conns {
		p.hangUp(open)
	}
	p.until(c, secLeaving, "the client closes after bye", func() bool { return c.ended })
	if len(p.conns) > before {
		p.blame(p.latest(), secLeaving, "a client that has said bye does not connect again", "it did", nil)
	}
	if len(p.reports.pending) > 0 {
		p.blame(nil, contractSection, "the program reports what has happened, once", fmt.Sprintf("it also reported %q", p.reports.pending), nil)
	}
}

// newSession returns a new session.
func (p *play) newSession() *session {
	s := &session{id: make([]byte, codec.SessionIDLen), secret: make([]byte, codec.SecretLen)}
	rand.Read(s.id)     // never fails
	rand.Read(s.secret) // never fails
	p.sessions = append(p.sessions, s)
	return s
}

// close closes everything that the play has opened, and waits for the end.
func (p *play) close() {
	p.stop()
	p.mu.Lock()
	for _, c := range p.accepted {
		c.Close()
	}
	p.mu.Unlock()
	for _, n := range p.nodes {
		n.ln.Close()
	}
	p.readers.Wait()
}

// list joins words for people to read.
func list(words []string) string { return strings.Join(words, ", ") }

// maxPause is the longest pause before another attempt to connect.
const maxPause = 5 * time.Second
