package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	"distmsg/loadtest"
)

// Load is a load test that runs until it is stopped.
type Load struct {
	stop   func()
	done   chan struct{}
	report *loadtest.Report // set before done is closed
	err    error            // set before done is closed
}

// The load is small, so that two CPUs are enough for faults, servers and nodes.
const (
	loadConns   = 24
	loadIDs     = 5         // of each connection
	loadRate    = 600       // messages a second in total
	loadLongest = time.Hour // it is stopped long before this
)

// StartLoad starts a load with sessions of the SDK at random nodes, and waits until the nodes have
// accepted the first messages.
func StartLoad(ctx context.Context, c *Cluster) (*Load, error) {
	return startLoad(ctx, c, loadtest.Config{Driver: loadtest.DriverSDK, Conns: loadConns, IDsPerConn: loadIDs, Rate: loadRate})
}

// StartCrossing starts a load in which each connection always has messages in flight, each of them
// to another node.
func StartCrossing(ctx context.Context, c *Cluster, driver loadtest.Driver) (*Load, error) {
	all := 1.0
	return startLoad(ctx, c, loadtest.Config{Driver: driver, Conns: loadConns, IDsPerConn: loadIDs, Window: 10, Cross: &all})
}

func startLoad(ctx context.Context, c *Cluster, cfg loadtest.Config) (*Load, error) {
	until := make(chan struct{})
	if cfg.CredentialsFile == "" {
		cfg.CredentialsFile = c.login
	}
	cfg.Nodes, cfg.TLS, cfg.Warmup, cfg.Duration, cfg.Until = c.Addrs(), c.tls, -1, loadLongest, until
	l := &Load{stop: sync.OnceFunc(func() { close(until) }), done: make(chan struct{})}
	before := c.sends(ctx)
	go func() {
		defer close(l.done)
		l.report, l.err = loadtest.Run(ctx, cfg)
	}()
	deadline := time.Now().Add(settleTimeout)
	for c.sends(ctx) < before+loadRate {
		select {
		case <-l.done:
			_, err := l.Stop()
			return nil, fmt.Errorf("the load test ended at once: %v", err) // which may be nil
		default:
		}
		if time.Now().After(deadline) || !Pause(ctx, pollEvery) {
			l.Stop()
			return nil, fmt.Errorf("the load test has not begun to send after %v", settleTimeout)
		}
	}
	return l, nil
}

// Stop ends the load, lets what is in flight end, and returns what the ledger found.
func (l *Load) Stop() (*loadtest.Report, error) {
	l.stop()
	<-l.done
	return l.report, l.err
}

// sends returns how many messages the nodes have accepted from clients. A node that does not answer
// counts as 0.
func (c *Cluster) sends(ctx context.Context) (sum float64) {
	for _, node := range c.Nodes {
		n, _ := node.Metric(ctx, "distmsg_sends_total")
		sum += n
	}
	return sum
}
