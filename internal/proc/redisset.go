package proc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// RedisCluster is a Redis Cluster of masters without replicas.
type RedisCluster struct {
	Nodes []*Redis
}

// StartRedisCluster starts a Redis Cluster of n masters and waits until all of them report that it
// works.
func StartRedisCluster(ctx context.Context, n int) (*RedisCluster, error) {
	c := &RedisCluster{}
	for range n {
		node, err := startClusterNode(ctx)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.Nodes = append(c.Nodes, node)
	}
	if err := c.join(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("redis cluster: %w", err)
	}
	return c, nil
}

func startClusterNode(ctx context.Context) (*Redis, error) {
	place, err := newPlace(nil, 0, 2, "")
	if err != nil {
		return nil, err
	}
	return startRedis(ctx, place, RedisOptions{Args: []string{
		"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(place.numbers[1]), "--cluster-node-timeout", "2000",
	}})
}

// join gives each node its share of the slots and makes the nodes meet.
func (c *RedisCluster) join(ctx context.Context) error {
	const slots = 16384
	host, port, _ := strings.Cut(c.Nodes[0].Addr, ":")
	bus, err := c.Nodes[0].Do(ctx, "CONFIG", "GET", "cluster-port")
	if err != nil {
		return err
	}
	_, bus, _ = strings.Cut(bus, "\n")
	for i, node := range c.Nodes {
		first, last := i*slots/len(c.Nodes), (i+1)*slots/len(c.Nodes)-1
		for _, command := range [][]string{
			{"CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)},
			{"CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i + 1)},
			{"CLUSTER", "MEET", host, port, bus},
		} {
			if i == 0 && command[1] == "MEET" {
				continue
			}
			if _, err := node.Do(ctx, command...); err != nil {
				return fmt.Errorf("%v: %w", command, err)
			}
		}
	}
	known := fmt.Sprintf("cluster_known_nodes:%d\r", len(c.Nodes))
	for _, node := range c.Nodes {
		if err := node.waitFor(ctx, []string{"CLUSTER", "INFO"}, "cluster_state:ok", known); err != nil {
			return err
		}
	}
	return nil
}

// URL returns the cluster's URL for routing/redis.
func (c *RedisCluster) URL() string { return "redis-cluster://" + addrs(c.Nodes) }

// Close kills all nodes.
func (c *RedisCluster) Close() { closeAll(c.Nodes) }

// RedisSentinels is a master with one replica, watched by sentinels.
type RedisSentinels struct {
	Master, Replica *Redis // as they were at the start
	Sentinels       []*Redis
	Name            string // of the master, for the sentinels
}

// StartRedisSentinels starts a master, a replica and n sentinels, and waits until they all know
// each other. The sentinels declare the master dead after a second without an answer.
func StartRedisSentinels(ctx context.Context, n int) (*RedisSentinels, error) {
	s := &RedisSentinels{Name: "distmsg"}
	if err := s.start(ctx, n); err != nil {
		s.Close()
		return nil, fmt.Errorf("redis sentinels: %w", err)
	}
	return s, nil
}

func (s *RedisSentinels) start(ctx context.Context, n int) (err error) {
	if s.Master, err = StartRedis(ctx, RedisOptions{}); err != nil {
		return err
	}
	host, port, _ := strings.Cut(s.Master.Addr, ":")
	replica := RedisOptions{Args: []string{"--replicaof", host, port, "--repl-ping-replica-period", "1"}}
	if s.Replica, err = StartRedis(ctx, replica); err != nil {
		return err
	}
	if err := s.Replica.waitFor(ctx, []string{"INFO", "replication"}, "master_link_status:up"); err != nil {
		return err
	}
	for range n {
		sentinel, err := s.startSentinel(ctx, host, port, n/2+1)
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		others := fmt.Sprintf("num-other-sentinels\n%d", n-1)
		if err := sentinel.waitFor(ctx, []string{"SENTINEL", "MASTER", s.Name}, "num-slaves\n1", others); err != nil {
			return err
		}
	}
	return nil
}

func (s *RedisSentinels) startSentinel(ctx context.Context, host, port string, quorum int) (*Redis, error) {
	place, err := newPlace(nil, 0, 1, "")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(place.dir, "sentinel.conf") // the sentinel rewrites this file
	text := fmt.Sprintf("sentinel monitor %[1]s %s %s %d\nsentinel down-after-milliseconds %[1]s 1000\nsentinel failover-timeout %[1]s 3000\n",
		s.Name, host, port, quorum)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		place.leave()
		return nil, err
	}
	r := &Redis{Addr: place.addr(0), place: place}
	r.Process, err = Start(ctx, Command{
		Path:  "redis-server",
		Args:  []string{config, "--sentinel", "--port", strconv.Itoa(place.numbers[0]), "--bind", place.host.IP(), "--dir", place.dir},
		Dir:   place.dir,
		Ready: func(ctx context.Context, _ *Process) error { return r.ping(ctx) },
	})
	if err != nil {
		place.leave()
		return nil, err
	}
	return r, nil
}

// URL returns the URL of the sentinels and their master for routing/redis.
func (s *RedisSentinels) URL() string {
	return "redis-sentinel://" + addrs(s.Sentinels) + "/" + s.Name
}

// Close kills them all.
func (s *RedisSentinels) Close() {
	closeAll(s.Sentinels)
	closeAll([]*Redis{s.Replica, s.Master})
}

// waitFor runs a command repeatedly until its reply contains all the words.
func (r *Redis) waitFor(ctx context.Context, command []string, words ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		reply, err := r.Do(ctx, command...)
		if err == nil && containsAll(reply, words) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%v does not say %q: %w\n%s", command, words, err, reply)
		case <-poll.C:
		}
	}
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

func addrs(servers []*Redis) string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = s.Addr
	}
	return strings.Join(all, ",")
}

func closeAll(servers []*Redis) {
	for _, s := range servers {
		if s != nil {
			s.Close()
		}
	}
}
