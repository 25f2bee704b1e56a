package attack

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/internal/faults"
)

// Attacks on nodes that use TLS and ask who clients are. The attackers trust every node.

// letIn counts attackers that were let in although they showed wrong credentials.
const letIn = "wrong credentials let in"

// balancer is the address of the load balancer that attackers pretend to be.
const balancer = "127.0.0.2"

// anyNode is for attackers, who do not care whom they attack. They resume sessions of TLS, because
// that costs them less.
func anyNode() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
}

// again runs n attackers. Each calls attempt again and again until ctx ends. It counts the
// attempts, and pauses for a moment after those that fail at once.
func (t *Target) again(ctx context.Context, n int, name string, attempt func(i int) error) {
	t.each(ctx, n, func(i int) error {
		for ; ctx.Err() == nil; i += n {
			began := time.Now()
			err := attempt(i)
			t.count(name, 1)
			if err != nil && time.Since(began) < time.Millisecond {
				faults.Pause(ctx, time.Millisecond)
			}
		}
		return nil
	})
}

// open connects from an address, or from any if that is empty, and closes the connection when do
// returns or ctx ends.
func open(ctx context.Context, from, addr string, do func(nc *net.TCPConn) error) error {
	nc, err := connectFrom(ctx, from, addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer nc.Close()
	defer stop()
	return do(nc.(*net.TCPConn))
}

// untilClosed reads until the node closes the connection.
func untilClosed(nc net.Conn) error {
	for b := make([]byte, 4096); ; {
		if _, err := nc.Read(b); err != nil {
			return err
		}
	}
}

// say writes bytes, and waits until the node closes the connection.
func say(nc net.Conn, b []byte) error {
	if _, err := nc.Write(b); err != nil {
		return err
	}
	return untilClosed(nc)
}

// recorder is a connection that keeps what is written first, and that has nothing to read.
type recorder struct {
	net.Conn
	first []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.first == nil {
		r.first = slices.Clone(b)
	}
	return len(b), nil
}

func (r *recorder) Read([]byte) (int, error) { return 0, errors.New("nothing") }

func (r *recorder) Close() error { return nil }

// clientHello returns the first record of a handshake. It can be used for many connections: a node
// has to compute its answer anew for each of them.
func clientHello() []byte {
	var r recorder
	_ = tls.Client(&r, &tls.Config{InsecureSkipVerify: true}).Handshake()
	return r.first
}

// tlsHalves begins handshakes and then waits: before the node has the client's first record, or
// when the node has answered it.
func tlsHalves(ctx context.Context, t *Target) {
	hello := clientHello()
	t.again(ctx, t.n(2000), "halves of handshakes", func(i int) error {
		return open(ctx, "", t.Clients[0], func(nc *net.TCPConn) error {
			if i%2 == 0 {
				return say(nc, hello[:len(hello)/2])
			}
			return say(nc, hello)
		})
	})
}

// tlsStorm does whole handshakes. Half of the attackers resume sessions of TLS.
func tlsStorm(ctx context.Context, t *Target) {
	resuming, fresh := anyNode(), anyNode()
	fresh.ClientSessionCache = nil
	t.again(ctx, t.n(64), "handshakes", func(i int) error {
		return open(ctx, "", t.Clients[0], func(nc *net.TCPConn) error {
			config := fresh
			if i%2 == 0 {
				config = resuming
			}
			secure, err := shake(ctx, nc, config)
			if err != nil {
				return err
			}
			return secure.Close()
		})
	})
}

// tlsResets resets connections at each step of the handshake, and just after it.
func tlsResets(ctx context.Context, t *Target) {
	first, config := clientHello(), anyNode()
	steps := []func(nc *net.TCPConn) error{
		func(*net.TCPConn) error { return nil },
		func(nc *net.TCPConn) error { return only(nc.Write(first[:len(first)/2])) },
		func(nc *net.TCPConn) error { return only(nc.Write(first)) },
		func(nc *net.TCPConn) error {
			_, err := nc.Write(first)
			return errors.Join(err, only(nc.Read(make([]byte, 64))))
		},
		func(nc *net.TCPConn) error {
			_, err := shake(ctx, nc, config)
			return err
		},
		func(nc *net.TCPConn) error {
			secure, err := shake(ctx, nc, config)
			if err != nil {
				return err
			}
			return only(secure.Write(codec.AppendHello(nil, &codec.Hello{
				MinVersion: codec.Version, MaxVersion: codec.Version, Credentials: []byte(t.WrongToken),
			})))
		},
	}
	t.again(ctx, t.n(64), "resets", func(i int) error {
		return open(ctx, "", t.Clients[0], func(nc *net.TCPConn) error {
			_ = nc.SetLinger(0)
			return steps[i%len(steps)](nc)
		})
	})
}

// only returns the error of a read or write.
func only(_ int, err error) error { return err }

// tlsGarbage sends what is no TLS. The last kind is TLS, but each of its records has one byte of a
// hello that has no end.
func tlsGarbage(ctx context.Context, t *Target) {
	first, config, noise := clientHello(), anyNode(), make([]byte, 16<<10)
	rand.Read(noise) // never fails
	record := func(kind byte, size int) []byte {
		return append([]byte{kind, 3, 3, byte(size >> 8), byte(size)}, noise[:min(size, len(noise))]...)
	}
	const alert, handshake, data = 21, 22, 23
	kinds := []func(nc *net.TCPConn) error{
		func(nc *net.TCPConn) error { return say(nc, noise) },
		func(nc *net.TCPConn) error { return say(nc, record(handshake, 1<<16-1)) },
		func(nc *net.TCPConn) error { return say(nc, record(handshake, len(noise))) },
		func(nc *net.TCPConn) error { return say(nc, slices.Repeat(record(alert, 2), 1000)) },
		func(nc *net.TCPConn) error { return say(nc, slices.Concat(first, record(data, len(noise)))) },
		func(nc *net.TCPConn) error {
			if _, err := shake(ctx, nc, config); err != nil {
				return err
			}
			return say(nc, record(data, len(noise)))
		},
		func(nc *net.TCPConn) error {
			secure, err := shake(ctx, nc, config)
			if err != nil {
				return err
			}
			for _, b := range slices.Concat([]byte{0, 0, 15, 0xff}, noise[:1000]) {
				if _, err := secure.Write([]byte{b}); err != nil {
					return err
				}
			}
			return untilClosed(secure)
		},
	}
	t.again(ctx, t.n(64), "connections with garbage", func(i int) error {
		return open(ctx, "", t.Clients[0], kinds[i%len(kinds)])
	})
}

// logins shows wrong credentials of all kinds. A node must let none of them in.
func logins(ctx context.Context, t *Target) {
	config := anyNode()
	noise := make([]byte, 3<<10)
	rand.Read(noise) // never fails
	unknown := []byte(t.WrongToken)
	copy(unknown[len("dmt_"):], "000000000000")
	wrong := [][]byte{[]byte(t.WrongToken), unknown, nil, noise, []byte("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.")}
	t.again(ctx, t.n(64), "logins", func(i int) error {
		w, err := hello(ctx, t.Clients[0], config, codec.Hello{Credentials: wrong[i%len(wrong)]})
		if err != nil {
			t.count("ended: "+why(err), 1)
			return err
		}
		t.count(letIn, 1)
		return w.nc.Close()
	})
}

// proxies connects from the address of a load balancer.
func proxies(ctx context.Context, t *Target) {
	first, config := clientHello(), anyNode()
	t.again(ctx, t.n(500), "connections of the balancer", func(i int) error {
		return open(ctx, balancer, t.Clients[0], func(nc *net.TCPConn) error {
			switch header := proxyHeader(i, 0); i % 5 {
			case 0: // half a header, and then nothing
				return say(nc, header[:len(header)/2])
			case 1: // the largest one, without its last byte
				large := proxyHeader(i, 1<<16-1-12)
				return say(nc, large[:len(large)-1])
			case 2: // no header
				return say(nc, first)
			case 3: // a header, and half a handshake
				return say(nc, append(proxyHeader(i, 8<<10), first...))
			default: // a header, and a client with a wrong token
				if _, err := nc.Write(header); err != nil {
					return err
				}
				secure, err := shake(ctx, nc, config)
				if err != nil {
					return err
				}
				return say(secure, codec.AppendHello(nil, &codec.Hello{
					MinVersion: codec.Version, MaxVersion: codec.Version, Credentials: []byte(t.WrongToken),
				}))
			}
		})
	})
}

// proxyHeader returns a header of the PROXY protocol, version 2, for client n of a million, with
// more bytes after the addresses.
func proxyHeader(n, more int) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, 0x11)
	b = binary.BigEndian.AppendUint16(b, uint16(12+more))
	b = append(b, 10, byte(n>>16)&15, byte(n>>8), byte(n), 127, 0, 0, 1)
	b = binary.BigEndian.AppendUint16(b, uint16(1024+n%60000))
	b = binary.BigEndian.AppendUint16(b, 7400)
	return append(b, make([]byte, more)...)
}
