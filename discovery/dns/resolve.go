package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"distmsg/discovery"
)

const (
	// maxAddrs bounds the addresses that are listed.
	maxAddrs = 4096
	// maxLookups bounds the hosts of SRV records that are looked up at once.
	maxLookups = 16
)

// errNothing means that DNS has answered, and knows no address.
var errNothing = errors.New("it names no address")

// lookups does the lookups. One goroutine at a time uses it.
type lookups struct {
	to       target
	resolver *net.Resolver
	hosts    map[string][]netip.Addr // the last addresses of each host that a SRV record names
}

// round looks everything up. Of SRV records, an error may come with a list: some hosts could not be
// looked up, and have the addresses that they had before.
func (l *lookups) round(ctx context.Context) (all []discovery.Record, skipped []string, err error) {
	if l.to.port == "" {
		all, err = l.services(ctx)
	} else {
		all, err = l.addresses(ctx)
	}
	slices.SortFunc(all, func(a, b discovery.Record) int {
		return cmp.Or(strings.Compare(a.PeerAddr, b.PeerAddr), strings.Compare(a.PeerName, b.PeerName))
	})
	all = slices.CompactFunc(all, func(a, b discovery.Record) bool { return a.PeerAddr == b.PeerAddr })
	all = slices.DeleteFunc(all, func(r discovery.Record) bool {
		wrong := discovery.CheckAddr(r.PeerAddr)
		if wrong != nil {
			skipped = append(skipped, fmt.Sprintf("%s %v", r.PeerAddr, wrong))
		}
		return wrong != nil
	})
	if n := len(all) - maxAddrs; n > 0 {
		all = all[:maxAddrs]
		skipped = append(skipped, fmt.Sprintf("%s names more than %d addresses: %d of them are ignored", l.to.name, maxAddrs, n))
	}
	if len(all) == 0 && err == nil {
		err = fmt.Errorf("%s: %w", l.to.name, errNothing)
	}
	return all, skipped, err
}

// addresses looks up A and AAAA records.
func (l *lookups) addresses(ctx context.Context) (all []discovery.Record, err error) {
	ips, err := l.lookup(ctx, l.to.name)
	for _, ip := range ips {
		all = append(all, record(l.to.name, ip, l.to.port))
	}
	return all, err
}

// services looks up SRV records, and the hosts that they name.
func (l *lookups) services(ctx context.Context) (all []discovery.Record, err error) {
	_, services, err := l.resolver.LookupSRV(ctx, "", "", l.to.name)
	if len(services) == 0 {
		return nil, l.explain(l.to.name, err)
	}
	type found struct {
		ips []netip.Addr
		err error
	}
	hosts := make(map[string]*found)
	for _, s := range services {
		if s.Target != "." { // it says that there is no such service
			hosts[s.Target] = new(found)
		}
	}
	places := make(chan struct{}, maxLookups)
	var running sync.WaitGroup
	for host, h := range hosts {
		places <- struct{}{}
		running.Go(func() {
			h.ips, h.err = l.lookup(ctx, host)
			<-places
		})
	}
	running.Wait()
	former := l.hosts
	l.hosts = make(map[string][]netip.Addr)
	for host, h := range hosts {
		if h.err != nil {
			h.ips, err = former[host], h.err
		}
		l.hosts[host] = h.ips
	}
	for _, s := range services {
		for _, ip := range l.hosts[s.Target] {
			all = append(all, record(s.Target, ip, strconv.Itoa(int(s.Port))))
		}
	}
	return all, err
}

// lookup looks up the addresses of a host.
func (l *lookups) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ips, err := l.resolver.LookupNetIP(ctx, "ip", host)
	return ips, l.explain(host, err)
}

// explain returns one line that says why a name could not be looked up.
func (l *lookups) explain(name string, err error) error {
	if err == nil {
		return nil
	}
	server := cmp.Or(l.to.server, "the DNS server")
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed) && failed.IsNotFound:
		return fmt.Errorf("%s: %w", name, errNothing)
	case errors.As(err, &failed) && failed.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer from %s in time", name, server)
	case failed != nil: // its text names a server that was not asked if the URL names another
		return fmt.Errorf("%s: %s: %s", name, server, failed.Err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// record is that of the nodes at an address of a host.
func record(host string, ip netip.Addr, port string) discovery.Record {
	r := discovery.Record{PeerAddr: net.JoinHostPort(ip.Unmap().String(), port)}
	if _, err := netip.ParseAddr(host); err != nil {
		r.PeerName = strings.TrimSuffix(host, ".")
	}
	return r
}
