package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"distmsg/codec"
)

// Scenarios about how a client moves from one node to another.
var movingScenarios = []Scenario{
	{
		Name:   "drain",
		About:  "the node drains and names another one. The client moves there without a gap: it attaches, leaves, answers what still arrives, and closes.",
		script: drains,
	},
	{
		Name:   "drain-not-resumed",
		About:  "the node drains, and the other one does not know the session. The client asserts its IDs there.",
		script: drainsToStranger,
	},
	{
		Name:   "drain-alone",
		About:  "the only node drains and goes away. The client stays until then, and reconnects.",
		script: drainsAlone,
	},
	{
		Name:   "relogin",
		About:  "the node asks the client to log in again. The client moves to a new connection to the same node without a gap, and its send on the old one ends there. For clients that know the kind; others reconnect.",
		script: logsInAgain,
	},
	{
		Name:   "members",
		About:  "the node says that there is another one, and dies. The client goes there with its session.",
		script: membersChange,
	},
}

// another opens a second node.
func (p *play) another() *node {
	n, err := p.listen("n2", "127.0.0.1:0")
	if err != nil {
		p.end(Err, err.Error())
	}
	return n
}

// movesTo waits for the client at another node.
func (p *play) movesTo(n *node, section, expected string) *conn {
	var there *conn
	p.untilIn(p.patience+maxPause, p.latest(), section, expected, func() bool {
		there = p.current()
		return there != nil && there.node == n
	})
	return there
}

func drains(p *play) {
	c := p.first()
	other := p.another()
	var last *delivery
	p.onLeave = func(old *conn) {
		last = p.messages.deliver(old, codec.Deliver{To: []byte(Alice), Payload: []byte("the last one here")})
	}
	p.put(c, codec.AppendDrain(nil, &codec.Drain{Spread: 200, Deadline: 10_000, Addrs: []string{other.addr}}))
	p.works(c, secDrain, "after drain, since all continues until the client has moved")
	next := p.movesTo(other, secDrain, "the client moves to "+other.addr+", which drain names")
	p.resumes(next)
	p.leaves(c)
	p.messages.acked(last, secMoving, "what is delivered before left is answered there")
	p.until(c, secMoving, "the client closes the old connection after left, when nothing is open on it", func() bool { return c.ended })
	p.works(next, secMoving, "after it has moved")
	p.instruct(next, "%s carol 1 5", doSend)
	p.reports.outcomes(secMoving, "new sends go over the new connection", "carol", 1, "acked", "yes")
}

// leaves waits until the client has said leave on a connection that it moves away from.
func (p *play) leaves(c *conn) {
	p.until(c, secMoving, "the client says leave on the connection that it moves away from, before it closes that", func() bool {
		if c.ended && !c.left {
			p.blame(c, secMoving, "the client says leave on the connection that it moves away from, and reads on until left", "it closed the connection", nil)
		}
		return c.left
	})
}

func drainsToStranger(p *play) {
	c := p.first()
	other := p.another()
	p.noResume = true
	p.put(c, codec.AppendDrain(nil, &codec.Drain{Spread: 100, Deadline: 10_000, Addrs: []string{other.addr}}))
	next := p.movesTo(other, secDrain, "the client moves to "+other.addr+", which drain names")
	if len(next.hello.Session) == 0 {
		p.blame(next, secMoving, "hello has the session and the secret", "a hello that asks for a new session", nil)
	}
	p.mayLeaveTwice(next)
	p.reasserted(p.current())
	p.works(p.current(), secMoving, "after its re-assert at the other node")
}

// mayLeaveTwice lets a client end a new session that a node without knowledge of its session made.
// The section Several nodes at once allows that: the client says bye there and tries again.
func (p *play) mayLeaveTwice(next *conn) {
	p.during(settle)
	if next.bye || next.ended {
		p.noResume = false
		clear(p.bindings.due)
		p.movesTo(next.node, secMoving, "the client moves in the end")
	}
}

func drainsAlone(p *play) {
	c := p.first()
	p.put(c, codec.AppendDrain(nil, &codec.Drain{Spread: 100, Deadline: 10_000}))
	p.during(2 * settle)
	p.works(c, secDrain, "after drain, with no other node to go to")
	before := len(p.conns)
	p.fault(c, codec.FaultGoingAway)
	c = p.again(before, secReconnect, "the client connects again after going_away")
	p.resumes(c)
	p.works(c, secReconnect, "after going_away")
}

// reloginWithin is the time that a client has to log in again.
const reloginWithin = 10 * time.Second

func logsInAgain(p *play) {
	c := p.first()
	p.onSend = func(*send) {} // its outcome comes when the client has moved
	p.instruct(c, "%s carol 1 5", doSend)
	p.until(c, secMessages, "the client sends what the application asks for", func() bool { return len(p.messages.sent) == 1 })
	p.onSend = nil
	var last *delivery
	p.onLeave = func(old *conn) {
		last = p.messages.deliver(old, codec.Deliver{To: []byte(Alice), Payload: []byte("the last one here")})
	}
	p.put(c, codec.AppendRelogin(nil, uint64(reloginWithin.Milliseconds()), "the credentials have expired"))
	p.works(c, secRelogin, "after relogin, since everything works as before")
	moved := func() bool { return p.current() != nil && p.current() != c }
	p.wait(reloginWithin, moved, func(string) { p.ignoresRelogin(c) })
	next := p.current()
	p.resumes(next)
	if next.hello.Flags&codec.HelloReplace != 0 {
		p.blame(next, secRelogin, "a client that logs in again does not set replace, because its old connection still has work", "a hello with replace", nil)
	}
	p.leaves(c)
	p.messages.outcome(p.messages.sent[0], codec.CodeAcked)
	p.reports.outcomes(secRelogin, "a send on the old connection ends there", "carol", 1, "acked", "yes")
	p.messages.acked(last, secMoving, "what is delivered before left is answered there")
	p.until(c, secMoving, "the client closes the old connection after left, when nothing is open on it", func() bool { return c.ended })
	p.works(next, secRelogin, "after it has logged in again")
}

// ignoresRelogin closes the connection of a client that has not logged in again. The client may
// ignore the kind, but must connect again.
func (p *play) ignoresRelogin(c *conn) {
	before := len(p.conns)
	c.session.over, c.session.said = true, true
	p.fault(c, codec.FaultUnauthenticated)
	c = p.again(before, secReconnect, "the client connects again after unauthenticated, with a new session")
	p.reasserted(c)
	p.works(c, secReconnect, "after a relogin that it ignored")
	p.end(Skip, "the client does not log in again when the node asks for it, but reconnects when the connection ends")
}

// withWrongNodes returns a members frame with good nodes after wrong entries.
func withWrongNodes(good []codec.Member) []byte {
	const list = codec.PrefixLen + 2 // where the header of the list is
	b := codec.AppendMembers(nil, good)
	wrong := []byte{
		7,                    // not a list
		0x91, 0xa2, 'n', '3', // without an address
		0x92, 0xa2, 'n', '4', 0xa7, 'n', 'o', 'w', 'h', 'e', 'r', 'e',
		0x92, 0xa2, 'n', '5', 0xa7, 'h', ':', '7', '0', '0', '0', '0', // no port
		0x92, 0xa2, 'n', '6', 0xda, 0x01, 0x2c, // an address of 300 bytes
	}
	wrong = append(wrong, bytes.Repeat([]byte{'a'}, 300)...)
	const wrongs = 5
	return raw(slices.Concat([]byte{0x92, byte(codec.KindMembers), b[list] + wrongs}, wrong, b[list+1:])...)
}

func membersChange(p *play) {
	c := p.first()
	other := p.another()
	p.put(c, withWrongNodes([]codec.Member{{Node: "n1", Addr: c.node.addr}, {Node: "n9"}, {Node: "n2", Addr: other.addr}}))
	p.works(c, secMembers, "after members, of which some are wrong")
	before := len(p.conns)
	c.node.ln.Close()
	p.reset(c)
	next := p.movesTo(other, secMembers, fmt.Sprintf("the client goes to the other node that members names, %s", other.addr))
	p.resumes(next)
	p.works(next, secReconnect, "after it has gone to another node")
	p.during(time.Second)
	if dials := len(p.conns) - before; dials > 3 {
		p.blame(p.latest(), secReconnect, "a client that has a connection does not make others all the time", fmt.Sprintf("%d connections", dials), nil)
	}
}
