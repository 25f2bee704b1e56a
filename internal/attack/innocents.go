package attack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/internal/faults"
	"distmsg/loadtest"
)

// The number of innocents, and their operations per second in total. There are 50 connections
// besides those of opHello.
const (
	loadConns = 28
	loadRate  = 500
	talkers   = 10
	sendRate  = 250
	binders   = 6
	bindRate  = 20
	lookers   = 6
	lookRate  = 20
	helloRate = 10
)

const (
	opTimeout   = 5 * time.Second // for each operation of an innocent
	waitForLoad = 20 * time.Second
)

// Innocents are clients that do normal operations at fixed rates.
type Innocents struct {
	addrs   []string // the addresses of their nodes, used in turn
	access  Access
	token   []byte // nil: the nodes ask for none
	talkers []*client.Session
	binders []*client.Session
	lookers []*client.Session
	phase   atomic.Int32
	felt    [phases]Felt
	dropped atomic.Int64 // connections of sessions
	closing atomic.Bool
	work    sync.WaitGroup
	stop    context.CancelFunc // ends all except the load

	snapshot func() loadtest.Snapshot // of the load; nil if it has not begun
	before   map[string]uint64        // the load's outcomes when the phase began
	until    chan struct{}            // closed to end the load
	loaded   chan struct{}            // closed when the load has ended
	report   *loadtest.Report         // set before loaded is closed
	failed   error                    // set before loaded is closed
}

// StartInnocents connects innocents to nodes and returns when all of them are active. Close ends
// them.
func StartInnocents(ctx context.Context, addrs []string, access Access) (*Innocents, error) {
	token, err := access.credentials()
	if err != nil {
		return nil, err
	}
	in := &Innocents{addrs: addrs, access: access, token: token, until: make(chan struct{}), loaded: make(chan struct{})}
	ctx, in.stop = context.WithCancel(ctx)
	err = errors.Join(
		in.startLoad(ctx),
		in.connect(ctx, &in.talkers, "talker", talkers),
		in.connect(ctx, &in.binders, "binder", binders),
		in.connect(ctx, &in.lookers, "looker", lookers),
	)
	if err != nil {
		in.Close()
		return nil, err
	}
	in.every(ctx, sendRate, in.talk)
	in.every(ctx, bindRate, in.bind)
	in.every(ctx, lookRate, in.look)
	in.every(ctx, helloRate, in.hello)
	return in, nil
}

// connect opens n sessions that hold one ID each.
func (in *Innocents) connect(ctx context.Context, to *[]*client.Session, name string, n int) error {
	for i := range n {
		session, err := client.Dial(ctx, client.Config{
			Nodes: in.addrs[i%len(in.addrs):][:1], TLS: in.access.TLS, Credentials: in.token, Logger: slog.New(slog.DiscardHandler),
			Handler: func(context.Context, *client.Delivery) {},
			OnState: func(s client.State) {
				if s.Err != nil && !in.closing.Load() {
					in.dropped.Add(1)
				}
			},
		})
		if err != nil {
			return fmt.Errorf("innocent %s %d: %w", name, i, err)
		}
		*to = append(*to, session)
		if err := session.Bind(ctx, fmt.Sprintf("%s-%d", name, i)); err != nil {
			return fmt.Errorf("innocent %s %d: %w", name, i, err)
		}
	}
	return nil
}

// startLoad starts the load test and waits until its messages flow.
func (in *Innocents) startLoad(ctx context.Context) error {
	// until ends the load, so that its ledger is complete
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	started := make(chan func() loadtest.Snapshot, 1)
	go func() {
		defer close(in.loaded)
		defer cancel()
		in.report, in.failed = loadtest.Run(ctx, loadtest.Config{
			Nodes: in.addrs, TLS: in.access.TLS, CredentialsFile: in.access.TokenFile,
			Conns: loadConns, Rate: loadRate, Warmup: -1, Duration: time.Hour, Until: in.until,
			Started: func(snapshot func() loadtest.Snapshot) { started <- snapshot },
		})
	}()
	timer := time.NewTimer(waitForLoad)
	defer timer.Stop()
	select {
	case in.snapshot = <-started:
		in.before = in.snapshot().Outcomes
		return nil
	case <-in.loaded:
		return fmt.Errorf("the load test ended at once: %w", in.failed)
	case <-timer.C:
		cancel()
		return fmt.Errorf("the load test has not begun after %v", waitForLoad)
	}
}

// every calls do rate times a second, each time on a goroutine of its own, until ctx ends. An
// operation counts in the phase in which it begins.
func (in *Innocents) every(ctx context.Context, rate int, do func(ctx context.Context, f *Felt, n int)) {
	in.work.Go(func() {
		began := time.Now()
		for n := 0; ; n++ {
			due := began.Add(time.Duration(n) * time.Second / time.Duration(rate))
			if !faults.Pause(ctx, time.Until(due)) {
				return
			}
			f := &in.felt[in.phase.Load()]
			in.work.Go(func() {
				// Do not use ctx: its end would become an outcome.
				op, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
				defer cancel()
				do(op, f, n)
			})
		}
	})
}

// note measures an operation of an innocent.
func (f *Felt) note(op string, do func() error) bool {
	began := time.Now()
	err := do()
	f.add(op, word(err), time.Since(began))
	return err == nil
}

// word returns a word for an error. It is empty for success.
func word(err error) string {
	if err == nil {
		return ""
	}
	if outcome, ok := errors.AsType[*client.Error](err); ok {
		return outcome.Code.String()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return err.Error()
}

// talk sends to a neighbour, at another node if there are several.
func (in *Innocents) talk(ctx context.Context, f *Felt, n int) {
	from, to := n%talkers, (n+1)%talkers
	f.note(opSend, func() error {
		_, err := in.talkers[from].Send(ctx, client.Message{From: fmt.Sprintf("talker-%d", from), To: fmt.Sprintf("talker-%d", to)})
		return err
	})
}

// bind binds a new ID, sends the first message to it from another node, and unbinds it.
func (in *Innocents) bind(ctx context.Context, f *Felt, n int) {
	id, b, s := fmt.Sprintf("fresh-%d", n), n%binders, (n+1)%binders
	if !f.note(opBind, func() error { return in.binders[b].Bind(ctx, id) }) {
		return
	}
	f.note(opFirst, func() error {
		_, err := in.binders[s].Send(ctx, client.Message{From: fmt.Sprintf("binder-%d", s), To: id})
		return err
	})
	f.note(opBind, func() error { return in.binders[b].Unbind(ctx, id) })
}

// look looks up a bound ID.
func (in *Innocents) look(ctx context.Context, f *Felt, n int) {
	f.note(opLook, func() error {
		found, err := in.lookers[n%lookers].Lookup(ctx, fmt.Sprintf("talker-%d", (n+1)%talkers))
		if err == nil && found[0].Code != codec.CodeOK {
			err = errors.New(found[0].Code.String())
		}
		return err
	})
}

// hello opens a session and ends it.
func (in *Innocents) hello(ctx context.Context, f *Felt, n int) {
	f.note(opHello, func() error {
		w, err := hello(ctx, in.addrs[n%len(in.addrs)], in.access.TLS, codec.Hello{Credentials: in.token})
		if err != nil {
			return errors.New("refused")
		}
		defer w.nc.Close()
		return w.write(codec.AppendBye(nil))
	})
}

// Begin begins a phase.
func (in *Innocents) Begin(p Phase) {
	in.endPhase()
	in.phase.Store(int32(p))
}

// endPhase records how the load's messages have ended since the phase began.
func (in *Innocents) endPhase() {
	now, since := in.snapshot().Outcomes, make(map[string]uint64)
	for word, n := range now {
		since[word] = n - in.before[word]
	}
	in.felt[in.phase.Load()].addLoad(since)
	in.before = now
}

// Close ends the innocents, and returns when their operations have ended.
func (in *Innocents) Close() {
	if in.closing.Swap(true) {
		return
	}
	in.stop()
	in.work.Wait()
	if in.snapshot != nil {
		in.endPhase()
	}
	close(in.until)
	<-in.loaded
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	for _, session := range slices.Concat(in.talkers, in.binders, in.lookers) {
		in.work.Go(func() { _ = session.Close(ctx) })
	}
	in.work.Wait()
}
