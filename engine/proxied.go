package engine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"distmsg/engine/internal/proxyproto"
)

// A load balancer hides where a client comes from, unless it says so in a header before the
// client's first byte. The node reads that header in the connection's handshake, before TLS. It
// does so from the addresses in Config.ProxyFrom only, since whoever may send a header can claim to
// be anyone. Those have to send it, and bytes of a header from anywhere else are no frame.

// proxies are the networks of load balancers whose connections begin with a header.
type proxies []netip.Prefix

func (p proxies) have(remote net.Addr) bool {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return false
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(from) })
}

// errNoProxyHeader means that a load balancer's connection does not begin with a header.
var errNoProxyHeader = errors.New("engine: a connection from ProxyFrom does not begin as it has to")

// readProxyHeader reads the header of a connection from a load balancer. The connection is then one
// from the address that the header names. Without such an address, it stays one of the balancer.
func (s *shake) readProxyHeader() error {
	if !s.port.shaking.proxies.have(s.conn.remote) {
		return nil
	}
	h, err := proxyproto.Read(s.nc)
	switch {
	case err != nil && isGone(err):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errNoProxyHeader, err)
	}
	if h.Source.IsValid() {
		s.conn.remote = net.TCPAddrFromAddrPort(h.Source)
	}
	return nil
}
