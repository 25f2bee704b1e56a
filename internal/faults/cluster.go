package faults

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"distmsg/internal/proc"
)

// Options says what a cluster consists of.
type Options struct {
	Nodes int // relays; at least 1
	// each relay is on a host of its own, so that it can be cut off, and so are the servers;
	// Cluster.AppHost exists
	Apart bool
	Flags []string    // more flags for every relay; see proc.RelayOptions
	Clock bool        // Redis sees Cluster.Clock
	DNS   bool        // the nodes find each other by Cluster.DNS, and there is no ZooKeeper
	TLS   *tls.Config // what clients use; nil: Flags set up no TLS for them
	Login string      // a file with what loads show to the nodes; empty: they ask for nothing

	CPUs proc.CPUs // on which of them the relays run; empty: where this process does
}

// Cluster is relays that share a Redis, and a ZooKeeper or a DNS. Its methods may be called from
// any goroutine; Close ends it.
type Cluster struct {
	Nodes     []*proc.Relay // named n1, n2, …
	Hosts     []*proc.Host  // the nodes' hosts; each nil unless Options.Apart
	AppHost   *proc.Host    // for app servers that a test cuts off; nil unless Options.Apart
	Redis     *proc.Redis
	ZooKeeper *proc.ZooKeeper // nil with Options.DNS
	DNS       *proc.DNS       // nil without Options.DNS
	Clock     *proc.Clock     // nil: Redis uses the machine's clock

	network *proc.Network // nil: everything is on this machine's own network
	tls     *tls.Config
	login   string
	secret  string
	flags   []string // of all nodes, besides those that name and place each node
}

const (
	settleTimeout = 30 * time.Second // for undisturbed nodes to link to each other
	pollEvery     = 10 * time.Millisecond
	logKept       = 6000 // bytes of a node's log in Logs
)

// Start starts a cluster and waits until each node has a link to every other node. If it fails,
// nothing is left running.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{secret: rand.Text(), flags: o.Flags, tls: o.TLS, login: o.Login}
	if err := c.start(ctx, o); err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs())
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o Options) (err error) {
	c.Hosts = make([]*proc.Host, o.Nodes)
	var servers *proc.Host
	if o.Apart {
		if c.network, err = proc.NewNetwork(ctx, o.Nodes+2); err != nil {
			return err
		}
		copy(c.Hosts, c.network.Hosts)
		servers, c.AppHost = c.network.Hosts[o.Nodes], c.network.Hosts[o.Nodes+1]
	}
	if o.Clock {
		if c.Clock, err = proc.NewClock(ctx); err != nil {
			return err
		}
	}
	if c.Redis, err = proc.StartRedis(ctx, proc.RedisOptions{Host: servers, Clock: c.Clock}); err != nil {
		return err
	}
	if o.DNS {
		c.DNS, err = proc.StartDNS()
	} else {
		c.ZooKeeper, err = proc.StartZooKeeper(ctx, proc.ZooKeeperOptions{Host: servers})
	}
	if err != nil {
		return err
	}
	for i, host := range c.Hosts {
		options := c.Relay(fmt.Sprintf("n%d", i+1), c.Redis)
		options.Host, options.CPUs = host, o.CPUs
		options.Flags = append(options.Flags, o.Flags...)
		node, err := proc.StartRelay(ctx, options)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, node)
		if o.DNS {
			c.NameNodes()
		}
	}
	return c.WaitLinked(ctx)
}

// Relay returns the options to start one more node of the cluster, with its bindings in registry.
func (c *Cluster) Relay(id string, registry *proc.Redis) proc.RelayOptions {
	return proc.RelayOptions{
		Env:   []string{"DISTMSG_CLUSTER_SECRET=" + c.secret},
		Flags: []string{"--node-id", id, "--peer-listen", "{peer-addr}", "--registry", registry.URL(), "--discovery", c.DiscoveryURL()},
	}
}

// DiscoveryURL returns the URL of the list of nodes.
func (c *Cluster) DiscoveryURL() string {
	if c.DNS != nil {
		return "dns://relay.test.?server=" + c.DNS.Addr + "&refresh=" + dnsRefresh.String()
	}
	return "zk://" + c.ZooKeeper.Addr + "/distmsg"
}

// dnsRefresh is how often the nodes look each other up.
const dnsRefresh = time.Second

// NameNodes makes DNS name the nodes, and further addresses.
func (c *Cluster) NameNodes(more ...netip.AddrPort) {
	zone := proc.Zone{Hosts: make(map[string][]netip.Addr), Services: make(map[string][]proc.Service)}
	for _, node := range c.Nodes {
		more = append(more, netip.MustParseAddrPort(node.PeerAddr))
	}
	for i, at := range more {
		host := fmt.Sprintf("h%d.relay.test.", i)
		zone.Hosts[host] = []netip.Addr{at.Addr()}
		zone.Services["relay.test."] = append(zone.Services["relay.test."], proc.Service{Host: host, Port: at.Port()})
	}
	c.DNS.Set(zone)
}

// Addrs returns the addresses of the nodes for clients.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, node := range c.Nodes {
		addrs = append(addrs, node.Addr)
	}
	return addrs
}

// WaitLinked waits until each node has a link to every other node, for 30 s at most.
func (c *Cluster) WaitLinked(ctx context.Context) error {
	return c.WaitMetric(ctx, "distmsg_links", float64(len(c.Nodes)-1), c.Nodes...)
}

// WaitMetric waits until a metric of each of the nodes has a value, for 30 s at most.
func (c *Cluster) WaitMetric(ctx context.Context, name string, want float64, nodes ...*proc.Relay) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, node := range nodes {
		if err := node.WaitMetric(ctx, name, want); err != nil {
			return err
		}
	}
	return nil
}

// LongestStall returns the longest stall of an event loop of any node in the middle of its work
// since the start.
func (c *Cluster) LongestStall(ctx context.Context) (longest time.Duration, err error) {
	for _, node := range c.Nodes {
		seconds, failed := node.Metric(ctx, "distmsg_loop_stall_longest_seconds")
		longest, err = max(longest, time.Duration(seconds*float64(time.Second))), errors.Join(err, failed)
	}
	return longest, err
}

// Registrations returns the sessions under which ZooKeeper lists nodes. A node whose session has
// expired gets another one. A dead node stays listed until its session expires.
func (c *Cluster) Registrations(ctx context.Context) ([]string, error) {
	dump, err := c.ZooKeeper.Ask(ctx, "dump")
	if err != nil {
		return nil, err
	}
	_, dump, found := strings.Cut(dump, "Sessions with Ephemerals")
	if !found {
		return nil, fmt.Errorf("ZooKeeper's dump does not list ephemerals: %q", dump)
	}
	dump, _, _ = strings.Cut(dump, "Connections dump")
	var sessions []string
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "0x") {
			sessions = append(sessions, strings.TrimSuffix(strings.TrimSpace(line), ":"))
		}
	}
	return sessions, nil
}

// Logs returns the ends of the nodes' logs.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for i, node := range c.Nodes {
		out := node.Output()
		fmt.Fprintf(&b, "--- n%d, %s ---\n%s\n", i+1, node.Addr, out[max(0, len(out)-logKept):])
	}
	return b.String()
}

// Close ends all processes, whatever state they are in.
func (c *Cluster) Close() {
	for _, node := range c.Nodes {
		node.Close()
	}
	if c.ZooKeeper != nil {
		c.ZooKeeper.Close()
	}
	if c.DNS != nil {
		c.DNS.Close()
	}
	if c.Redis != nil {
		c.Redis.Close()
	}
	if c.Clock != nil {
		c.Clock.Close()
	}
	if c.network != nil {
		c.network.Close()
	}
}

// Pause waits for d. It returns false if ctx ends first. Any goroutine may call it.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
