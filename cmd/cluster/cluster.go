package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"distmsg/internal/localcluster"
	"distmsg/internal/proc"
)

// cluster is the running processes, and what the user reads about them.
type cluster struct {
	*localcluster.Cluster

	mu  sync.Mutex
	out io.Writer // guarded by mu
}

// backAfter is how long a dead process stays down, so that the user can see how the others react.
const backAfter = 5 * time.Second

func (c *cluster) start(ctx context.Context, o options) (err error) {
	c.say("building relay, starting redis-server, ZooKeeper and %d nodes", o.nodes)
	options := localcluster.Options{Nodes: o.nodes, Port: o.port, RedisPort: o.redisPort, KeeperPort: o.keeperPort,
		Tick: 2 * time.Second, Flags: o.relayFlags}
	if o.logs {
		options.Log = func(node string) io.Writer { return &nodeLog{c: c, node: node} }
	}
	c.Cluster, err = localcluster.Start(ctx, options)
	return explain(err)
}

// explain adds what to do about a port that is in use.
func explain(err error) error {
	failed, ok := errors.AsType[*localcluster.StartError](err)
	if !ok || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	flag, taken := "--port", fmt.Sprintf("port %d, or one of the two after it, is", failed.Port)
	switch failed.Process {
	case localcluster.Redis:
		flag, taken = "--redis-port", fmt.Sprintf("port %d is", failed.Port)
	case localcluster.ZooKeeper:
		flag, taken = "--zookeeper-port", fmt.Sprintf("port %d is", failed.Port)
	}
	return fmt.Errorf("%s in use, perhaps by another cluster: end that, or choose another with %s", taken, flag)
}

// greet prints where everything listens, and what to type next.
func (c *cluster) greet() {
	c.say("redis      %-22s pid %d", c.Redis.Addr, c.Redis.PID())
	c.say("zookeeper  %-22s pid %d", c.ZooKeeper.Addr, c.ZooKeeper.PID())
	for i, node := range c.Nodes {
		c.say("%-9s  %-22s pid %-7d http://%s/metrics", localcluster.NodeName(i+1), node.Addr, node.PID(), node.AdminAddr)
	}
	first, last := c.Nodes[0], c.Nodes[len(c.Nodes)-1]
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
`, c.Discovery(), first.AdminAddr, backAfter, last.PID())
}

// watch restarts processes that die, until ctx ends.
func (c *cluster) watch(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { c.watchOne(ctx, "redis", c.Redis.Process) })
	watching.Go(func() { c.watchOne(ctx, "zookeeper", c.ZooKeeper.Process) })
	for i, node := range c.Nodes {
		watching.Go(func() { c.watchOne(ctx, localcluster.NodeName(i+1), node.Process) })
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
