package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"distmsg/internal/proc"
	"distmsg/loadtest"
)

// cluster starts two nodes with one event loop each, which share the CPU of the servers, and the
// Redis that they need. Each message goes from one node to the other. The CPU of Redis does not
// count: messages do not pass through it.
func (s *stable) cluster(ctx context.Context, load loadtest.Config) (*server, error) {
	registry, err := proc.StartRedis(ctx, proc.RedisOptions{Program: s.programs.Redis, CPUs: s.cpus})
	if err != nil {
		return nil, err
	}
	run := &server{load: load, close: registry.Close}
	fail := func(err error) (*server, error) {
		run.close()
		return nil, err
	}
	if err := os.WriteFile(s.file("secret"), []byte("the secret of a cluster that lives for seconds"), 0o600); err != nil {
		return fail(err)
	}
	names, ports := [2]string{"a", "b"}, [2]int{}
	for i := range ports {
		first, release, err := proc.ReserveRow(3)
		if err != nil {
			return fail(err)
		}
		ports[i] = first
		run.alsoClose(release)
	}
	run.load.Driver, run.load.Cross = loadtest.DriverRelay, new(1.0)
	var nodes [2]*proc.Relay
	for i, name := range names {
		other := 1 - i
		peer := fmt.Sprintf("%s=127.0.0.1:%d/127.0.0.1:%d", names[other], ports[other], ports[other]+2)
		nodes[i], err = proc.StartRelay(ctx, proc.RelayOptions{Program: s.programs.Relay, CPUs: s.cpus, Port: ports[i], Flags: []string{"--loops=1", "--node-id", name,
			"--peer-listen", "{peer-addr}", "--peers", peer, "--registry", registry.URL(), "--cluster-secret-file", s.file("secret")}})
		if err != nil {
			return fail(err)
		}
		run.alsoClose(nodes[i].Close)
		run.load.Nodes = append(run.load.Nodes, nodes[i].Addr)
	}
	linked, cancel := context.WithTimeoutCause(ctx, linkedWithin, errNoLink)
	defer cancel()
	for _, n := range nodes {
		if err := n.WaitMetric(linked, "distmsg_links", 1); err != nil {
			return fail(err)
		}
	}
	run.pid, run.load.MoreServerPIDs = nodes[0].PID(), []int{nodes[1].PID()}
	return run, nil
}

// linkedWithin bounds how long two nodes may take to connect to each other.
const linkedWithin = 30 * time.Second

var errNoLink = errors.New("the two nodes have no link")
