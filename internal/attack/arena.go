package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/internal/faults"
	"distmsg/internal/proc"
	"distmsg/internal/usage"
)

// Arena is the nodes that are attacked, and the observations of their processes.
type Arena struct {
	Nodes []*proc.Relay
	Redis *proc.Redis // nil if there is one node, which keeps the bindings in its memory

	access  Access
	cluster *faults.Cluster // nil if there is one node

	mu    sync.Mutex
	notes []string // guarded by mu
}

// Access is how innocents get in where nodes use TLS and ask who clients are. The zero value is for
// nodes that do neither.
type Access struct {
	TLS       *tls.Config
	TokenFile string
	// WrongToken is what attackers try: the public part of the token, and a wrong secret.
	WrongToken string
}

// credentials returns what innocents show.
func (a Access) credentials() ([]byte, error) {
	if a.TokenFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(a.TokenFile)
	return bytes.TrimSpace(text), err
}

// Budget is the memory that a node may take.
const Budget = 1 << 30

// Apart divides the CPUs of this process into CPUs for the nodes and CPUs for all others, and moves
// this process to the latter, because nothing else should use the CPU of a node's machine. back
// moves it to where it was. If there is only one CPU, Apart moves nothing.
func Apart() (nodes proc.CPUs, back func() error, err error) {
	all, err := proc.OwnCPUs()
	if err != nil || len(all) < 2 {
		return nil, func() error { return nil }, err
	}
	half := len(all) / 2
	return all[:half], all.Stay, all[half:].Stay()
}

// StartArena starts n nodes with additional flags on the given CPUs; none means any. The flags must
// set up what access needs. If it fails, nothing is left running.
func StartArena(ctx context.Context, n int, cpus proc.CPUs, access Access, flags ...string) (*Arena, error) {
	flags = append([]string{fmt.Sprintf("--memory-budget=%d", Budget)}, flags...)
	if n == 1 {
		node, err := proc.StartRelay(ctx, proc.RelayOptions{CPUs: cpus, Flags: flags})
		if err != nil {
			return nil, err
		}
		return &Arena{Nodes: []*proc.Relay{node}, access: access}, nil
	}
	c, err := faults.Start(ctx, faults.Options{Nodes: n, CPUs: cpus, Flags: flags})
	if err != nil {
		return nil, err
	}
	return &Arena{Nodes: c.Nodes, Redis: c.Redis, access: access, cluster: c}, nil
}

// Close ends the nodes.
func (a *Arena) Close() {
	if a.cluster != nil {
		a.cluster.Close()
		return
	}
	a.Nodes[0].Close()
}

// note adds a note to the attack's row.
func (a *Arena) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notes = append(a.notes, fmt.Sprintf(format, args...))
}

// Target is the arena as attackers see it.
func (a *Arena) Target(scale float64, d time.Duration) *Target {
	t := &Target{Scale: scale, Duration: d, WrongToken: a.access.WrongToken}
	for _, node := range a.Nodes {
		t.Clients, t.Admins = append(t.Clients, node.Addr), append(t.Admins, node.AdminAddr)
		if len(a.Nodes) > 1 {
			t.Peers = append(t.Peers, node.PeerAddr)
		}
	}
	return t
}

// takeovers returns how often a session took an ID from another, at all running nodes.
func (a *Arena) takeovers(ctx context.Context) (sum float64) {
	for _, node := range a.Nodes {
		n, err := node.Metric(ctx, "distmsg_takeovers_total")
		if err != nil {
			a.note("no metrics: %v", err)
		}
		sum += n
	}
	return sum
}

// noteFaults records which error frames the nodes have sent.
func (a *Arena) noteFaults(ctx context.Context) {
	for fault := codec.FaultZeroLength; fault <= codec.LastFault; fault++ {
		sum := 0.0
		for _, node := range a.Nodes {
			n, err := node.Metric(ctx, fmt.Sprintf("distmsg_faults_total{fault=%q}", fault))
			if err != nil {
				a.note("no metrics: %v", err)
				return
			}
			sum += n
		}
		if sum > 0 {
			a.note("error frames %v %v", fault, sum)
		}
	}
}

// Fenced lists the nodes that concluded that they had been stopped, or that no longer run.
func (a *Arena) Fenced() (bad []string) {
	for i, node := range a.Nodes {
		select {
		case <-node.Done():
			bad = append(bad, fmt.Sprintf("n%d has ended", i+1))
		default:
			if strings.Contains(node.Output(), "the event loops were stopped") {
				bad = append(bad, fmt.Sprintf("n%d was fenced", i+1))
			}
		}
	}
	return bad
}

// Used is what a process used in some time.
type Used struct {
	RSS   uint64  // the maximum in bytes
	Cores float64 // CPU time divided by elapsed time
}

func (u Used) String() string { return fmt.Sprintf("%d MB, %.1f cores", u.RSS>>20, u.Cores) }

// watch samples processes until done is closed. It no longer samples a process that is restarted
// meanwhile.
func watch(done <-chan struct{}, pids []int) (all []Used) {
	began := time.Now()
	all = make([]Used, len(pids))
	first, last := make([]time.Duration, len(pids)), make([]time.Duration, len(pids))
	for i, pid := range pids {
		first[i], _ = usage.CPU(pid)
		last[i] = first[i]
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-tick.C:
		}
		for i, pid := range pids {
			if rss, err := usage.RSS(pid); err == nil {
				all[i].RSS = max(all[i].RSS, rss)
			}
			if cpu, err := usage.CPU(pid); err == nil {
				last[i] = cpu
			}
		}
	}
	for i := range all {
		all[i].Cores = (last[i] - first[i]).Seconds() / time.Since(began).Seconds()
	}
	return all
}

// watchAll samples the nodes and Redis, if there is one, until stop is called. stop returns the
// greatest memory and CPU of any node, and what Redis used.
func (a *Arena) watchAll() (stop func() (node, redis Used)) {
	var pids []int
	for _, node := range a.Nodes {
		pids = append(pids, node.PID())
	}
	if a.Redis != nil {
		pids = append(pids, a.Redis.PID())
	}
	done, result := make(chan struct{}), make(chan []Used, 1)
	go func() { result <- watch(done, pids) }()
	return func() (node, redis Used) {
		close(done)
		all := <-result
		for _, u := range all[:len(a.Nodes)] {
			node.RSS, node.Cores = max(node.RSS, u.RSS), max(node.Cores, u.Cores)
		}
		if a.Redis != nil {
			redis = all[len(a.Nodes)]
		}
		return node, redis
	}
}
