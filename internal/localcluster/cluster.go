// Package localcluster runs a whole cluster on this machine, for an ordinary user: redis-server,
// ZooKeeper and relay nodes, on loopback. cmd/cluster is for people who try it, and loadtest
// cluster injects faults into it.
//
// With [Options].Cuttable, all that nodes say to each other, to Redis and to ZooKeeper passes this
// process, which can cut the paths between them ([Cluster.Cut]). Without root there is no other
// way.
//
// Every process ends with this one, in whatever way this one ends.
package localcluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"distmsg/internal/proc"
)

// Options says what a cluster consists of.
type Options struct {
	Nodes int // at least 1
	// The first node has this port for clients, and the next two for HTTP and for other nodes. The
	// ports of each further node are higher by 10. Zero: free ones. RedisPort and KeeperPort are
	// those of the servers.
	Port, RedisPort, KeeperPort int
	Tick                        time.Duration // see proc.ZooKeeperOptions
	Flags                       []string      // more flags of each node
	Program                     string        // see proc.RelayOptions
	// Log receives what a node writes to stdout and stderr. Nil: see proc.Process.Output.
	Log      func(node string) io.Writer
	Cuttable bool // the paths between nodes and servers can be cut
}

// Cluster is the running processes. Any goroutine may call its methods, but calls that start or end
// the same process must not overlap.
type Cluster struct {
	Redis     *proc.Redis
	ZooKeeper *proc.ZooKeeper
	Nodes     []*proc.Relay // named n1, n2, …

	paths *paths // nil: they cannot be cut
}

// The names of the servers.
const (
	Redis     = "redis"
	ZooKeeper = "zookeeper"
)

// NodeName returns the name of a node. Nodes count from 1.
func NodeName(i int) string { return fmt.Sprintf("n%d", i) }

// StartError says which process did not start: redis, zookeeper, or the name of a node.
type StartError struct {
	Process string
	Port    int // the one that Options ask for; 0: any
	Err     error
}

// Error says what went wrong.
func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// settleTimeout bounds how long nodes may take to link to each other.
const settleTimeout = 2 * time.Minute

// Start starts a cluster. The nodes are ready then, but they may not have links to each other yet.
// If Start fails, nothing is left running. Its errors about processes are *StartError.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{}
	if err := c.start(ctx, o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o Options) (err error) {
	if o.Cuttable {
		c.paths = newPaths()
	}
	if c.Redis, err = proc.StartRedis(ctx, proc.RedisOptions{Port: o.RedisPort}); err != nil {
		return &StartError{Redis, o.RedisPort, err}
	}
	if c.ZooKeeper, err = proc.StartZooKeeper(ctx, proc.ZooKeeperOptions{Port: o.KeeperPort, Tick: o.Tick}); err != nil {
		return &StartError{ZooKeeper, o.KeeperPort, err}
	}
	secret := "DISTMSG_CLUSTER_SECRET=" + rand.Text()
	for i := range o.Nodes {
		name, port := NodeName(i+1), 0
		if o.Port != 0 {
			port = o.Port + 10*i
		}
		options := proc.RelayOptions{Port: port, Program: o.Program, Env: []string{secret}}
		if o.Log != nil {
			options.Log = o.Log(name)
		}
		peers, err := c.flags(&options, name)
		if err != nil {
			return &StartError{name, port, err}
		}
		options.Flags = append(options.Flags, o.Flags...)
		node, err := proc.StartRelay(ctx, options)
		if err != nil {
			return &StartError{name, port, err}
		}
		c.Nodes = append(c.Nodes, node)
		if peers != nil {
			peers.lead(node.PeerAddr)
		}
	}
	return nil
}

// flags sets the flags that name a node and its servers. If paths can be cut, the node reaches its
// servers through this process, and the others reach the node through the door that flags returns.
func (c *Cluster) flags(o *proc.RelayOptions, name string) (peers *door, err error) {
	redis, keeper := c.Redis.Addr, c.ZooKeeper.Addr
	o.Flags = []string{"--node-id", name, "--peer-listen", "{peer-addr}"}
	if c.paths != nil {
		if redis, err = c.paths.between(name, Redis, redis); err != nil {
			return nil, err
		}
		if keeper, err = c.paths.between(name, ZooKeeper, keeper); err != nil {
			return nil, err
		}
		if peers, err = c.paths.peersOf(name); err != nil {
			return nil, err
		}
		o.Flags = append(o.Flags, "--peer-advertise", peers.addr())
	}
	o.Flags = append(o.Flags, "--registry", "redis://"+redis, "--discovery", discovery(keeper))
	return peers, nil
}

func discovery(keeper string) string { return "zk://" + keeper + "/distmsg" }

// Discovery returns the URL of the list of nodes.
func (c *Cluster) Discovery() string { return discovery(c.ZooKeeper.Addr) }

// Addrs returns the addresses of the nodes for clients.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, node := range c.Nodes {
		addrs = append(addrs, node.Addr)
	}
	return addrs
}

// Process returns the process with a name, or nil if there is none.
func (c *Cluster) Process(name string) *proc.Process {
	switch name {
	case Redis:
		return c.Redis.Process
	case ZooKeeper:
		return c.ZooKeeper.Process
	}
	for i, node := range c.Nodes {
		if NodeName(i+1) == name {
			return node.Process
		}
	}
	return nil
}

// WaitLinked waits until each node has a link to every other node, for two minutes at most.
func (c *Cluster) WaitLinked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, node := range c.Nodes {
		if err := node.WaitMetric(ctx, "distmsg_links", float64(len(c.Nodes)-1)); err != nil {
			return err
		}
	}
	return nil
}

// Cut cuts the paths between processes of different sides, which it names. Bytes on these paths
// wait, and connections stay open, as if a network lost all packets. It replaces the cuts before.
// It needs Options.Cuttable.
func (c *Cluster) Cut(sides ...[]string) { c.paths.cut(sides) }

// Heal mends all paths.
func (c *Cluster) Heal() {
	if c.paths != nil {
		c.paths.cut(nil)
	}
}

// Mend lets everything that is stopped or cut go on. Processes that have ended stay so.
func (c *Cluster) Mend() {
	c.Heal()
	_ = c.Redis.Resume() // an error means that it has ended
	_ = c.ZooKeeper.Resume()
	for _, node := range c.Nodes {
		_ = node.Resume()
	}
}

// Stop drains all nodes at once, and waits until they have ended.
func (c *Cluster) Stop() error {
	ended := make(chan error, len(c.Nodes))
	for _, node := range c.Nodes {
		go func() { ended <- node.Stop() }()
	}
	var errs []error
	for range c.Nodes {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// Close kills all processes, and removes their files.
func (c *Cluster) Close() {
	for _, node := range c.Nodes {
		node.Close()
	}
	if c.ZooKeeper != nil {
		c.ZooKeeper.Close()
	}
	if c.Redis != nil {
		c.Redis.Close()
	}
	if c.paths != nil {
		c.paths.close()
	}
}
