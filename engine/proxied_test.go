package engine

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLocal     = proxySignature + "\x20\x00\x00\x00" // a connection of the balancer's own
)

// proxyHeader says that a connection comes from source, with a field behind that nobody needs.
func proxyHeader(source string) string {
	from := netip.MustParseAddrPort(source)
	b := []byte(proxySignature + "\x21\x11\x00\x11")
	b = append(append(b, from.Addr().AsSlice()...), 10, 0, 0, 1)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), 7400)
	return string(b) + "\x04\x00\x02xy"
}

func helloFrame() string {
	return string(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version}))
}

// noticing lets everyone in, and passes on from where they came.
func noticing() (hooks Hooks, from chan string) {
	from = make(chan string, 8)
	return Hooks{Authenticate: func(_ context.Context, l Login) (Identity, error) {
		from <- l.Remote.String()
		return Identity{}, nil
	}}, from
}

var loopback = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}

// A client behind a load balancer is one from the address in the header, however the bytes come.
func TestProxyHeader(t *testing.T) {
	hooks, from := noticing()
	n := start(t, Config{ProxyFrom: loopback, Hooks: hooks})
	whole := proxyHeader("203.0.113.9:50000") + helloFrame()
	for cut := range len(whole) + 1 {
		c := n.dial()
		c.write([]byte(whole[:cut]))
		if cut%7 == 0 { // or both come at once, or nearly
			n.eventually("it has come", func() bool { return n.acceptor.clients.sockets() > 0 })
		}
		c.write([]byte(whole[cut:]))
		c.expect(codec.KindWelcome)
		if got := <-from; got != "203.0.113.9:50000" {
			t.Fatalf("cut at %d, it is from %s", cut, got)
		}
		c.nc.Close()
		n.eventually("it is gone", func() bool { return n.acceptor.clients.sockets() == 0 })
	}
	c := n.dial()
	c.write([]byte(proxyLocal + helloFrame()))
	c.expect(codec.KindWelcome)
	if got := <-from; got != c.nc.LocalAddr().String() {
		t.Errorf("a connection of the balancer's own is from %s, want %s", got, c.nc.LocalAddr())
	}
}

func TestProxyHeaderBeforeTLS(t *testing.T) {
	s := secure(t)
	hooks, from := noticing()
	n := start(t, Config{ProxyFrom: loopback, TLS: s.server, Hooks: hooks})
	c := n.dial()
	c.write([]byte(proxyHeader("203.0.113.9:50000")))
	c.nc = tls.Client(c.nc, s.client)
	c.hello(codec.Hello{})
	c.bind("a")
	c.exchange("a", c, "a")
	if got := <-from; got != "203.0.113.9:50000" {
		t.Errorf("it is from %s", got)
	}
}

// What a load balancer sends instead of a header ends its connection, and nobody else's.
func TestNoProxyHeader(t *testing.T) {
	log := &notes{}
	n := start(t, Config{ProxyFrom: loopback, Logger: log.logger()})
	good := n.dial()
	good.write([]byte(proxyHeader("203.0.113.9:50000")))
	good.hello(codec.Hello{})
	wrong := []string{
		helloFrame(),
		"PROXY TCP4 203.0.113.9 10.0.0.1 50000 7400\r\n",
		proxySignature + "\x31\x11\x00\x00", proxySignature + "\x22\x11\x00\x00",
		proxySignature + "\x21\x12\x00\x0c", proxySignature + "\x21\x11\x00\x0b",
	}
	for _, text := range wrong {
		c := n.dial()
		c.write([]byte(text + strings.Repeat("x", 16)))
		if in, err := io.ReadAll(c.nc); len(in) > 0 {
			t.Errorf("%q: it reads %q, %v", text, in, err)
		}
	}
	log.has(n, "a load balancer sent no PROXY protocol header of version 2")
	good.alive()
	if s := n.counters(); s.NoProxyHeader != uint64(len(wrong)) || s.TLSFailed > 0 || len(s.Faults) > 0 {
		t.Errorf("%d without a header, want %d; %d of TLS; faults %v", s.NoProxyHeader, len(wrong), s.TLSFailed, s.Faults)
	}
	n.eventually("they are gone", func() bool { return n.Stats().Connections == 1 && n.acceptor.clients.sockets() == 1 })
}

// A header from elsewhere is garbage, whether it comes with TLS or without.
func TestProxyHeaderFromElsewhere(t *testing.T) {
	hooks, from := noticing()
	plain := start(t, Config{ProxyFrom: loopback[:1], Hooks: hooks})
	c := plain.dial()
	c.write([]byte(proxyHeader("203.0.113.9:50000") + helloFrame()))
	c.fails(codec.FaultFrameTooLarge)
	c = plain.join("a")
	if got := <-from; got != c.nc.LocalAddr().String() || plain.counters().NoProxyHeader != 0 {
		t.Errorf("a client without a header is from %s, want %s", got, c.nc.LocalAddr())
	}
	secret := start(t, Config{ProxyFrom: loopback[:1], TLS: secure(t).server, Hooks: hooks})
	c = secret.dial()
	c.write([]byte(proxyHeader("203.0.113.9:50000")))
	if in, _ := io.ReadAll(c.nc); strings.Contains(string(in), "welcome") || len(from) > 0 {
		t.Errorf("it reads %q", in)
	}
	secret.eventually("it is counted", func() bool { return secret.counters().TLSFailed == 1 })
}

// Connections whose header does not come, or stops in the middle, make room for others.
func TestProxyHeadersThatStandStill(t *testing.T) {
	const places, silent = 8, 24
	n := start(t, Config{ProxyFrom: loopback, MaxHandshakes: places})
	for i := range silent {
		n.dial().write([]byte(proxyHeader("203.0.113.9:50000")[:i]))
	}
	c := n.dial()
	c.write([]byte(proxyHeader("203.0.113.9:50000")))
	c.hello(codec.Hello{})
	if s := n.counters(); s.Displaced < silent+1-places || s.TLSFailed+s.NoProxyHeader > 0 {
		t.Errorf("%d have made room; %d have failed because of TLS, %d had no header", s.Displaced, s.TLSFailed, s.NoProxyHeader)
	}
}

// A header has the time that a hello has.
func TestProxyHeaderThatDoesNotCome(t *testing.T) {
	n := start(t, Config{ProxyFrom: loopback, HelloTimeout: 50 * time.Millisecond})
	c := n.dial()
	c.write([]byte(proxySignature))
	if in, _ := io.ReadAll(c.nc); len(in) > 0 {
		t.Errorf("it reads %q", in)
	}
	n.eventually("its place is free", func() bool { return n.acceptor.clients.sockets() == 0 })
}

// Limits per address count the addresses in the headers.
func TestConnectionsOfOneAddressBehindABalancer(t *testing.T) {
	const most, kept = 64, 64 / reservePart
	n := start(t, Config{MaxConns: most, ProxyFrom: loopback})
	from := func(source string) *client {
		c := n.dial()
		c.write([]byte(proxyHeader(source) + helloFrame()))
		return c
	}
	for i := range most - kept {
		from("203.0.113.9:" + strconv.Itoa(50000+i)).expect(codec.KindWelcome)
	}
	from("203.0.113.9:40000").fails(codec.FaultGoingAway)
	for i := range kept {
		from("203.0.113." + strconv.Itoa(10+i) + ":50000").expect(codec.KindWelcome)
	}
}

func TestProxyFromIsChecked(t *testing.T) {
	for _, network := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104)} {
		if _, err := New(Config{ProxyFrom: []netip.Prefix{network}}); err == nil || !strings.Contains(err.Error(), "ProxyFrom has") {
			t.Errorf("%v: %v", network, err)
		}
	}
}
