package attack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/internal/proc"
)

// Target is what an attack knows about its victims.
type Target struct {
	// the addresses of the nodes, in order; there are no peers if there is one node
	Clients, Peers, Admins []string
	// what looks like an innocent's token and is none; empty if the nodes ask for no token
	WrongToken string
	Scale      float64 // scales the numbers of an attack; 1 is the full attack
	Duration   time.Duration

	tally sync.Map // of *atomic.Int64 by name: what the attackers did and heard
}

// n scales a number of an attack to at least 1.
func (t *Target) n(full int) int { return max(1, int(float64(full)*t.Scale)) }

// count adds to what the attack reports.
func (t *Target) count(name string, n int) {
	counter, _ := t.tally.LoadOrStore(name, new(atomic.Int64))
	counter.(*atomic.Int64).Add(int64(n))
}

// counts returns all counts.
func (t *Target) counts() map[string]int64 {
	all := make(map[string]int64)
	t.tally.Range(func(name, n any) bool {
		all[name.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	return all
}

// each runs n attackers at a time until all have ended. It counts attackers that fail, because
// nodes are right to refuse and to close.
func (t *Target) each(ctx context.Context, n int, attacker func(i int) error) {
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() {
			if err := attacker(i); err != nil && ctx.Err() == nil {
				t.count("ended: "+why(err), 1)
			}
		})
	}
	work.Wait()
}

// why returns in a few words why a connection ended.
func why(err error) string {
	if network, ok := errors.AsType[*net.OpError](err); ok {
		err = network.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err.Error()
}

// drain reads from a connection on a goroutine of its own.
func (t *Target) drain(ctx context.Context, w *wire) {
	go t.each(ctx, 1, func(int) error { return t.skip(w) })
}

// skip reads from a connection until it ends, and counts how sends ended.
func (t *Target) skip(w *wire) error {
	for {
		kind, body, err := w.next()
		if err != nil {
			return err
		}
		var one codec.Outcome
		switch kind {
		case codec.KindOutcome:
			if codec.DecodeOutcome(body, &one) == nil {
				t.count("heard "+one.Code.String(), 1)
			}
		case codec.KindOutcomes:
			all, err := codec.DecodeOutcomes(body)
			if err != nil {
				return err
			}
			for one, ok := all.Next(); ok; one, ok = all.Next() {
				t.count("heard "+one.Code.String(), 1)
			}
		}
	}
}

const (
	targetVariable = "DISTMSG_ATTACK" // environment: the attack's name and its target
	tallyLine      = "attack: "       // before the tally in what an attacker prints
	// from the end of an attack's duration until its process is killed
	overtime   = 10 * time.Second
	politeness = "19" // the nice value of the attackers
)

// order is the instruction for the attackers' process.
type order struct {
	Attacks []string
	Target  *Target
}

// Attacker is the attackers' process.
type Attacker struct{ process *proc.Process }

// StartAttacker starts all attacks at once in one process of their own. The process runs this
// program again, whose main function must call [Serve] first.
func StartAttacker(ctx context.Context, target *Target, attacks ...string) (*Attacker, error) {
	text, err := json.Marshal(order{attacks, target})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	process, err := proc.Start(ctx, proc.Command{
		Path: "nice", Args: []string{"-n", politeness, self}, Env: []string{targetVariable + "=" + string(text)},
	})
	return &Attacker{process}, err
}

// Wait waits for the end of the attack and returns what the attackers counted. An attack that does
// not end soon after its duration is killed.
func (a *Attacker) Wait(d time.Duration) (counts map[string]int64, err error) {
	timer := time.NewTimer(d + overtime)
	defer timer.Stop()
	select {
	case <-a.process.Done():
	case <-timer.C:
	}
	a.process.Kill()
	_, tally, found := strings.Cut(a.process.Output(), tallyLine)
	if !found {
		return nil, fmt.Errorf("the attackers' process did not end in time, or not well: %s", a.process.Output())
	}
	err = json.NewDecoder(strings.NewReader(tally)).Decode(&counts)
	return counts, err
}

// Serve is the main function of the attackers' process: it runs the attacks that its environment
// names, and ends the process. In every other process it returns at once.
func Serve() {
	text, ok := os.LookupEnv(targetVariable)
	if !ok {
		return
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Println("bad order:", err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Target.Duration)
	defer cancel()
	var work sync.WaitGroup
	for _, name := range o.Attacks {
		a, err := Find(name)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		work.Go(func() { a.run(ctx, o.Target) })
	}
	work.Wait()
	tally, err := json.Marshal(o.Target.counts())
	fmt.Println(tallyLine+string(tally), err)
	os.Exit(0)
}
