package engine

import (
	"net"
	"sync"
	"testing"
)

// A loop takes many new connections in one iteration: none waits for the one before it.
func TestManyConnectAtOnce(t *testing.T) {
	n := start(t, Config{Loops: 1})
	stood, release := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	n.loops[0].post(func() { close(stood); <-release })
	<-stood
	for range enrollAtOnce {
		nc, err := net.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	n.eventually("all are on their way to the loop", func() bool { return n.acceptor.clients.sockets() == enrollAtOnce })
	free()
	n.eventually("the loop has them", func() bool { return n.Stats().Connections == enrollAtOnce })
}
