package engine

import (
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// probing pings connections for operators. The loop owns it.
type probing struct {
	loop *loop // static

	next uint64
	open map[uint64]probe // by nonce
}

// probe is a ping whose pong somebody waits for.
type probe struct {
	handle routing.Handle
	began  time.Duration        // on the engine's clock
	pong   chan<- time.Duration // of capacity 1: how long the answer took
}

// probeNonce marks the nonces of probes. Other pings have the loop's time, which is smaller. A
// client that reads nonces as floating-point numbers can still tell them apart.
const probeNonce = 1 << 52

// maxProbes bounds the probes of a loop that wait.
const maxProbes = 256

// begin pings a connection. It returns false if too many probes wait. The caller ends the probe.
func (p *probing) begin(c *conn, pong chan<- time.Duration) (nonce uint64, ok bool) {
	if len(p.open) >= maxProbes {
		return 0, false
	}
	if p.open == nil {
		p.open = make(map[uint64]probe)
	}
	p.next++
	nonce = probeNonce | p.next
	p.open[nonce] = probe{c.handle(), p.loop.eng.clock(), pong}
	c.out.wroteControl(codec.AppendPing(c.out.buf(), nonce))
	return nonce, true
}

func (p *probing) end(nonce uint64) { delete(p.open, nonce) }

// handlePong handles a pong of a client.
func (p *probing) handlePong(c *conn, body []byte) {
	nonce, err := codec.DecodePong(body)
	if err != nil {
		c.decodeFault(err, codec.KindPong)
		return
	}
	if v, ok := p.open[nonce]; ok && v.handle == c.handle() {
		delete(p.open, nonce)
		v.pong <- p.loop.eng.clock() - v.began
	}
}
