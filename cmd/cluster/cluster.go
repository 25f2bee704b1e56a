package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"distmsg/internal/proc"
)

// cluster is the running processes.
type cluster struct {
	redis  *proc.Redis
	keeper *proc.ZooKeeper
	nodes  []*proc.Relay

	mu  sync.Mutex
	out io.Writer // guarded by mu
}

// backAfter is how long a dead process stays down, so that the user can see how the others react.
const backAfter = 5 * time.Second

func (c *cluster) start(ctx context.Context, o options) (err error) {
	c.say("building relay, starting redis-server, ZooKeeper and %d nodes", o.nodes)
	if c.redis, err = proc.StartRedis(ctx, proc.RedisOptions{Port: o.redisPort}); err != nil {
		return explain(err, "--redis-port", fmt.Sprintf("port %d is", o.redisPort))
	}
	if c.keeper, err = proc.StartZooKeeper(ctx, proc.ZooKeeperOptions{Port: o.keeperPort, Tick: 2 * time.Second}); err != nil {
		return explain(err, "--zookeeper-port", fmt.Sprintf("port %d is", o.keeperPort))
	}
	secret := "DISTMSG_CLUSTER_SECRET=" + rand.Text()
	for i := range o.nodes {
		port := 0
		if o.port != 0 {
			port = o.port + 10*i
		}
		var log io.Writer
		if o.logs {
			log = &nodeLog{c: c, node: nodeID(i)}
		}
		node, err := proc.StartRelay(ctx, proc.RelayOptions{
			Port: port,
			Env:  []string{secret},
			Log:  log,
			Flags: append([]string{"--node-id", nodeID(i), "--peer-listen", "{peer-addr}",
				"--registry", c.redis.URL(), "--discovery", c.discovery()}, o.relayFlags...),
		})
		if err != nil {
			return explain(err, "--port", fmt.Sprintf("port %d, or one of the two after it, is", port))
		}
		c.nodes = append(c.nodes, node)
	}
	return nil
}

func nodeID(i int) string { return fmt.Sprintf("n%d", i+1) }

func (c *cluster) discovery() string { return "zk://" + c.keeper.Addr + "/distmsg" }

// explain adds what to do about a port that is in use.
func explain(err error, flag, taken string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s in use, perhaps by another cluster: end that, or choose another with %s", taken, flag)
	}
	return err
}

// greet prints where everything listens, and what to type next.
func (c *cluster) greet() {
	c.say("redis      %-22s pid %d", c.redis.Addr, c.redis.PID())
	c.say("zookeeper  %-22s pid %d", c.keeper.Addr, c.keeper.PID())
	for i, node := range c.nodes {
		c.say("%-9s  %-22s pid %-7d http://%s/metrics", nodeID(i), node.Addr, node.PID(), node.AdminAddr)
	}
	first, last := c.nodes[0], c.nodes[len(c.nodes)-1]
	c.say(`
In another shell:

  # load for ten seconds, each message from one node to another; the report says what became of every one
  go run ./cmd/loadtest --discovery %[1]s --cross 1

  # a node's metrics, and its health
  curl -s http://%[2]s/metrics | grep ^distmsg_
  curl -s http://%[2]s/healthz

  # kill a node, with or without load, and see how the others react; it restarts after %[3]v
  kill -9 %[4]d; sleep 1; curl -s http://%[2]s/healthz

Ctrl-C ends all.
`, c.discovery(), first.AdminAddr, backAfter, last.PID())
}

// watch restarts processes that die, until ctx ends.
func (c *cluster) watch(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { c.watchOne(ctx, "redis", c.redis.Process) })
	watching.Go(func() { c.watchOne(ctx, "zookeeper", c.keeper.Process) })
	for i, node := range c.nodes {
		watching.Go(func() { c.watchOne(ctx, nodeID(i), node.Process) })
	}
}

func (c *cluster) watchOne(ctx context.Context, name string, p *proc.Process) {
	for {
		select {
		case <-p.Done():
			c.say("%s, pid %d, has died; it restarts in %v", name, p.PID(), backAfter)
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(backAfter):
		case <-ctx.Done():
			return
		}
		if err := p.Restart(ctx); err != nil {
			if ctx.Err() == nil {
				c.say("%s: %v", name, err)
			}
			continue
		}
		c.say("%s is back, pid %d", name, p.PID())
	}
}

// stop drains all nodes at once.
func (c *cluster) stop() error {
	ended := make(chan error, len(c.nodes))
	for _, node := range c.nodes {
		go func() { ended <- node.Stop() }()
	}
	var errs []error
	for range c.nodes {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// close ends all processes, and removes their files.
func (c *cluster) close() {
	for _, node := range c.nodes {
		node.Close()
	}
	if c.keeper != nil {
		c.keeper.Close()
	}
	if c.redis != nil {
		c.redis.Close()
	}
}

// nodeLog prints a node's log, line by line.
type nodeLog struct {
	c    *cluster
	node string
	rest []byte // the beginning of a line
}

// Write never fails. Only the goroutine that copies the node's output calls it.
func (l *nodeLog) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.c.say("%s  %s", l.node, line)
		l.rest = append([]byte(nil), rest...)
	}
}

func (c *cluster) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, format+"\n", args...)
}
