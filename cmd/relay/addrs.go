package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"distmsg/discovery"
	"distmsg/internal/cli"
)

// parsePeers reads ID=CLIENT_ADDR/PEER_ADDR,…
func parsePeers(list string) ([]discovery.Record, error) {
	if list == "" {
		return nil, nil
	}
	var peers []discovery.Record
	known := make(map[string]bool)
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part) // "a=…, b=…"
		id, addrs, found := strings.Cut(part, "=")
		addr, peerAddr, both := strings.Cut(addrs, "/")
		switch {
		case !found || id == "" || !both:
			return nil, cli.Usagef("--peers: %q is not ID=ADDRESS/PEER-ADDRESS, as in n2=10.0.0.2:7400/10.0.0.2:7402", part)
		case known[id]:
			return nil, cli.Usagef("--peers names %q twice: each node needs an ID of its own", id)
		}
		known[id] = true
		if err := discovery.CheckName(id); err != nil {
			return nil, cli.Usagef("--peers: the name of a node %v", err)
		}
		for _, a := range []struct{ what, addr string }{{"the address for clients", addr}, {"the address for nodes", peerAddr}} {
			if err := discovery.CheckAddr(a.addr); err != nil {
				return nil, cli.Usagef("--peers: %s: %s, %s, %v", brief(part), a.what, brief(a.addr), err)
			}
		}
		peers = append(peers, discovery.Record{ID: id, Addr: addr, PeerAddr: peerAddr})
	}
	return peers, nil
}

func (o *options) checkAddrs() (err error) {
	if o.proxies, err = parseNetworks(o.proxyFrom); err != nil {
		return err
	}
	if o.auth.anonymous && !o.insecureListen && slices.ContainsFunc(o.proxies, hasLoopback) {
		return cli.Usagef("--auth-anonymous would let in whoever comes through a load balancer on this machine: " +
			"leave it out, or name no loopback address in --proxy-protocol-from")
	}
	for _, a := range []flagValue{{"--advertise", o.advertise}, {"--peer-advertise", o.peerAdvertise}} {
		if a.value == "" {
			continue
		}
		if err := discovery.CheckAddr(a.value); err != nil {
			return cli.Usagef("%s %s %v", a.flag, brief(a.value), err)
		}
	}
	secure := o.insecureListen || o.tls.provesClients() || o.auth.on() && o.tls.clients.Cert != ""
	if err := o.checkListen("--listen", &o.listen, secure, o.advertise); err != nil {
		return err
	}
	if o.peerListen != "" {
		// nodes authenticate each other
		if err := o.checkListen("--peer-listen", &o.peerListen, true, o.peerAdvertise); err != nil {
			return err
		}
	}
	if err := o.checkOTLP(); err != nil {
		return err
	}
	if o.adminListen == "" || o.adminListen == noAdmin {
		if o.adminListen = noAdmin; o.pprof {
			return cli.Usagef("--pprof works only with --admin-listen: the profiles are there")
		}
		return nil
	}
	name, _, _ := net.SplitHostPort(o.adminListen)
	// this address is not announced
	if err := o.checkListen("--admin-listen", &o.adminListen, o.insecureListen, o.adminListen); err != nil {
		return err
	}
	if tcp, err := net.ResolveTCPAddr("tcp", o.adminListen); err == nil && (tcp.IP.IsLoopback() || len(o.adminHosts) > 0) {
		// requests may name the address in the flag
		o.adminHosts = append(o.adminHosts, name)
	}
	return nil
}

// parseNetworks reads the values of --proxy-protocol-from. A single address is a network, too.
func parseNetworks(texts []string) (networks []netip.Prefix, err error) {
	for _, text := range texts {
		text = strings.TrimSpace(text) // "10.0.0.5, 10.0.0.6"
		network, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil {
			network, err = addr.Unmap().Prefix(addr.Unmap().BitLen())
		}
		if err != nil || network.Addr().Is4In6() || network.Addr().Zone() != "" {
			return nil, cli.Usagef("--proxy-protocol-from: %s is not a network, as in 10.0.0.0/8, nor an address", brief(text))
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// hasLoopback reports whether a network has addresses of this machine.
func hasLoopback(network netip.Prefix) bool {
	return network.Overlaps(netip.PrefixFrom(netip.IPv6Loopback(), 128)) ||
		network.Overlaps(netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8))
}

// explainAddr explains why an address could not be resolved.
func explainAddr(addr string, err error) string {
	host, port, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return "is not host:port: give an address like 127.0.0.1:7400"
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && host != "" {
		return fmt.Sprintf("names the unknown host %q: give an IP address of this machine", host)
	}
	return fmt.Sprintf("has the port %q: want a number from 0 to 65535", port)
}

// checkListen resolves an address to listen on. advertised is the address that is announced
// instead, if any.
func (o *options) checkListen(flag string, addr *string, insecure bool, advertised string) error {
	tcp, err := net.ResolveTCPAddr("tcp", *addr)
	switch {
	case err != nil:
		return cli.Usagef("%s %q %s", flag, *addr, explainAddr(*addr, err))
	case !tcp.IP.IsLoopback() && !insecure && flag == "--listen" && o.auth.on():
		return cli.Usagef("%s %s would carry credentials in plaintext: add --tls-cert and --tls-key, "+
			"listen on 127.0.0.1 or [::1], or add --insecure-listen", flag, *addr)
	case !tcp.IP.IsLoopback() && !insecure:
		verify := ""
		if flag == "--listen" {
			verify = "verify the certificates of clients (--tls-client-ca), "
		}
		return cli.Usagef("%s %s lets other machines connect without authentication: "+
			"listen on 127.0.0.1 or [::1], %sor add --insecure-listen", flag, *addr, verify)
	case o.clustered() && advertised == "" && (len(tcp.IP) == 0 || tcp.IP.IsUnspecified()):
		return cli.Usagef("%s %s is not an address that others can connect to: add --%sadvertise HOST:PORT", flag, *addr,
			strings.TrimSuffix(strings.TrimPrefix(flag, "--"), "listen"))
	}
	*addr = tcp.String()
	return nil
}
