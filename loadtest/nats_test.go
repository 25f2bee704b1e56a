package loadtest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// broker is the smallest NATS server that satisfies the driver.
type broker struct {
	mu sync.Mutex
	// by subject; a wildcard ends in "*"
	subs map[string]func(subject, reply string, payload []byte)
}

// startBroker starts a broker. With a TLS configuration, it sends its INFO and then expects TLS, as
// nats-server does.
func startBroker(t *testing.T, secure *tls.Config) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{subs: make(map[string]func(string, string, []byte))}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				b.serve(t, c, secure)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return ln.Addr().String()
}

func (b *broker) serve(t *testing.T, c net.Conn, secure *tls.Config) {
	fmt.Fprintf(c, "INFO {\"max_payload\":1048576,\"server_name\":\"test\",\"tls_required\":%v}\r\n", secure != nil)
	if secure != nil {
		c = tls.Server(c, secure)
	}
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		args := strings.Fields(line)
		switch args[0] {
		case "CONNECT", "PONG":
		case "PING":
			b.mu.Lock()
			fmt.Fprintf(c, "PONG\r\nPING\r\n")
			b.mu.Unlock()
		case "SUB":
			sid := args[2]
			b.mu.Lock()
			b.subs[args[1]] = func(subject, reply string, payload []byte) {
				fmt.Fprintf(c, "MSG %s %s %s%d\r\n%s\r\n", subject, sid, reply, len(payload), payload)
			}
			b.mu.Unlock()
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
			b.publish(args[1], reply, payload[:size])
		default:
			t.Errorf("the driver says %q", line)
		}
	}
}

func (b *broker) publish(subject, reply string, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sub := b.subs[subject]
	if sub == nil {
		sub = b.subs[subject[:strings.LastIndexByte(subject, '.')+1]+"*"]
	}
	if sub != nil {
		sub(subject, reply, payload)
	}
}

func TestNATSDriver(t *testing.T) {
	long(t)
	t.Parallel()
	server, client := tlsEnds(t)
	for _, secure := range []bool{false, true} {
		for _, noAck := range []bool{false, true} {
			cfg := quick
			cfg.Driver, cfg.NoAck, cfg.IDsPerConn = DriverNATS, noAck, 3
			if secure {
				cfg.Nodes, cfg.TLS = []string{startBroker(t, server)}, client
			} else {
				cfg.Nodes = []string{startBroker(t, nil)}
			}
			r := mustRun(t, cfg)
			checkClean(t, r)
			if r.Sent != r.Delivered || r.Acked != map[bool]uint64{false: r.Sent}[noAck] {
				t.Errorf("%d sent, %d delivered, %d acked", r.Sent, r.Delivered, r.Acked)
			}
		}
	}
	_, err := Run(t.Context(), Config{Driver: DriverNATS, Nodes: []string{startBroker(t, server)}})
	if err == nil || !strings.Contains(err.Error(), "add --tls") {
		t.Errorf("without TLS at a server that wants it: %v", err)
	}
}
