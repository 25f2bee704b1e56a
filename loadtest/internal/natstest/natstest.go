// Package natstest has the smallest NATS server that satisfies the load test, for tests. The real
// one takes longer to build than the tests may take.
package natstest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// broker knows who gets what.
type broker struct {
	mu sync.Mutex
	// by subject; a wildcard ends in "*"
	subs map[string][]subscription
}

// subscription is what gets the messages to a subject.
type subscription struct {
	of net.Conn
	to func(subject, reply string, payload []byte)
}

// Serve serves the clients that connect to ln, and returns when ln is closed and they have left.
// With a TLS configuration, it sends its INFO and then expects TLS, as nats-server does. It closes
// the connection of a client that says what it does not know.
func Serve(ln net.Listener, secure *tls.Config) {
	b := &broker{subs: make(map[string][]subscription)}
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer c.Close()
			b.serve(c, secure)
		})
	}
}

func (b *broker) serve(c net.Conn, secure *tls.Config) {
	fmt.Fprintf(c, "INFO {\"max_payload\":1048576,\"server_name\":\"test\",\"tls_required\":%v}\r\n", secure != nil)
	if secure != nil {
		c = tls.Server(c, secure)
	}
	r := bufio.NewReader(c)
	echo := true
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		args := strings.Fields(line)
		switch args[0] {
		case "PONG":
		case "CONNECT":
			echo = !strings.Contains(line, `"echo":false`)
		case "PING":
			b.mu.Lock()
			fmt.Fprintf(c, "PONG\r\nPING\r\n")
			b.mu.Unlock()
		case "SUB":
			b.subscribe(args[1], subscription{c, func(subject, reply string, payload []byte) {
				fmt.Fprintf(c, "MSG %s %s %s%d\r\n%s\r\n", subject, args[2], reply, len(payload), payload)
			}})
		case "PUB":
			var size int
			fmt.Sscan(args[len(args)-1], &size)
			payload := make([]byte, size+2)
			if _, err := io.ReadFull(r, payload); err != nil {
				return
			}
			reply := ""
			if len(args) == 4 {
				reply = args[2] + " "
			}
			but := c // who does not get it
			if echo {
				but = nil
			}
			b.publish(but, args[1], reply, payload[:size])
		default:
			return
		}
	}
}

func (b *broker) subscribe(subject string, s subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[subject] = append(b.subs[subject], s)
}

func (b *broker) publish(but net.Conn, subject, reply string, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	subs := b.subs[subject]
	if subs == nil {
		subs = b.subs[subject[:strings.LastIndexByte(subject, '.')+1]+"*"]
	}
	for _, s := range subs {
		if s.of != but {
			s.to(subject, reply, payload)
		}
	}
}
