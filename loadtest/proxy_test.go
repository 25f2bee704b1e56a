package loadtest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"distmsg/codec"
)

// tamper decides what happens to one whole frame between client conn and the node. The frame
// includes its prefix. tamper returns the frames to forward instead, if any. frame is valid only
// during the call. Many goroutines call tamper, one at a time.
type tamper func(p *proxy, conn int, toNode bool, kind codec.Kind, frame []byte) [][]byte

// firstSession is the first connection that carries load. The connection before it only asks
// whether the node is there.
const firstSession = 1

// proxy stands between the driver and a node and understands frames.
type proxy struct {
	t      *testing.T
	addr   string
	mu     sync.Mutex // held by tamper and every write; guards all below
	node   string
	tamper tamper
	links  []*link
}

// link is one client's connection through the proxy.
type link struct{ client, node net.Conn }

func startProxy(t *testing.T, node string, f tamper) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, addr: ln.Addr().String(), node: node, tamper: f}
	var pumps sync.WaitGroup
	pumps.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			p.link(client, &pumps)
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		for i := range p.links {
			p.cut(i)
		}
		p.mu.Unlock()
		pumps.Wait()
	})
	return p
}

func (p *proxy) link(client net.Conn, pumps *sync.WaitGroup) {
	p.mu.Lock()
	addr := p.node
	p.mu.Unlock()
	node, err := net.Dial("tcp", addr)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := len(p.links)
	p.links = append(p.links, &link{client, node})
	pumps.Go(func() { p.pump(conn, client, node, true) })
	pumps.Go(func() { p.pump(conn, node, client, false) })
}

// pump moves frames in one direction until either side ends.
func (p *proxy) pump(conn int, from, to net.Conn, toNode bool) {
	defer from.Close()
	defer to.Close()
	r := bufio.NewReader(from)
	for {
		var prefix [codec.PrefixLen]byte
		if _, err := io.ReadFull(r, prefix[:]); err != nil {
			return
		}
		frame := make([]byte, codec.PrefixLen+int(binary.BigEndian.Uint32(prefix[:])))
		copy(frame, prefix[:])
		if _, err := io.ReadFull(r, frame[codec.PrefixLen:]); err != nil {
			return
		}
		kind, err := codec.PeekKind(frame[codec.PrefixLen:])
		if err != nil {
			p.t.Errorf("no frame: %v", err)
			return
		}
		p.mu.Lock()
		for _, f := range p.tamper(p, conn, toNode, kind, frame) {
			to.Write(f)
		}
		p.mu.Unlock()
	}
}

// toClient sends a frame to any client. tamper may call it.
func (p *proxy) toClient(conn int, frame []byte) { p.links[conn].client.Write(frame) }

// toAnother sends a frame to a client other than conn. tamper may call it. It skips connections
// that only asked whether the node is there, because they have closed.
func (p *proxy) toAnother(conn int, frame []byte) {
	for i := 1; i < len(p.links); i++ {
		if _, err := p.links[(conn+i)%len(p.links)].client.Write(frame); err == nil {
			return
		}
	}
	p.t.Error("there is no other client")
}

// cut resets a connection. tamper may call it.
func (p *proxy) cut(conn int) {
	p.links[conn].client.Close()
	p.links[conn].node.Close()
}
