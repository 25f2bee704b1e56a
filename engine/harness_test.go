package engine

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"distmsg/engine/internal/directory"
)

// patience bounds every wait of these tests. On a busy machine no test may depend on a shorter one.
const patience = time.Minute

// node is an engine under test. Its cleanup stops it and checks its books.
type node struct {
	t testing.TB
	*Engine
	cancel context.CancelFunc
	done   chan error
	over   bool
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs an engine on a free port, with one loop unless cfg sets another number. change may
// change the engine before it runs.
func start(t testing.TB, cfg Config, change ...func(*Engine)) *node {
	t.Helper()
	setDefault(&cfg.Addr, "127.0.0.1:0")
	setDefault(&cfg.Loops, 1)
	setDefault(&cfg.CPUs, cfg.Loops) // tests hold several loops at the same time
	unhurried(&cfg)
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{t: t, Engine: e, cancel: cancel, done: make(chan error, 1)}
	go func() { n.done <- e.Run(ctx) }()
	select {
	case <-e.Ready():
	case err := <-n.done:
		t.Fatalf("Run: %v", err)
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	t.Cleanup(n.finish)
	return n
}

// unhurried gives what a test has no word on so much time that nobody is given up because the
// machine is busy.
func unhurried(cfg *Config) {
	if cfg.TakeoverInterval == 0 {
		setDefault(&cfg.TakeoverBurst, maxBurst)
	}
	if cfg.Heartbeat == 0 { // else three times that
		setDefault(&cfg.IdleTimeout, 5*patience)
	}
	if cfg.Membership == nil { // else it is as long that a node waits for one that does not answer
		setDefault(&cfg.HelloTimeout, patience)
	}
	if cfg.MaxTTL == 0 {
		setDefault(&cfg.DefaultTTL, patience)
	}
}

// finish checks that every send is accounted for, and that the engine stops.
func (n *node) finish() {
	n.t.Helper()
	if n.over {
		return
	}
	n.checkBooks()
	if err := n.stop(); err != nil {
		n.t.Errorf("Run: %v", err)
	}
	n.checkMemory()
}

// forgetParked counts what is parked as gone. The loop has stopped.
func (l *loop) forgetParked() {
	for _, q := range l.park.lines {
		for w := range q.all {
			if w.kind != waitReturned {
				l.park.unwaits(w)
			} else {
				l.memory.holds(-w.cost())
			}
		}
	}
}

// checkMemory checks that nothing is counted as held when the engine has stopped, but for messages
// that waited for the registry until then.
func (n *node) checkMemory() {
	n.t.Helper()
	var held int64
	for _, l := range n.loops {
		l.forgetParked()
		held += l.memory.held - l.memory.said
	}
	held += n.memory.held.Load()
	if held != 0 {
		n.t.Errorf("%d bytes are counted as held by connections, and there are none", held)
	}
}

func (n *node) stop() error {
	n.t.Helper()
	n.cancel()
	return n.ended()
}

// ended waits for the end of Run, whether or not anybody has asked for it.
func (n *node) ended() error {
	n.t.Helper()
	n.over = true
	defer n.cancel()
	select {
	case err := <-n.done:
		return err
	case <-time.After(patience):
		n.t.Fatal("Run does not return")
		return nil
	}
}

// checkBooks checks that each send is in exactly one counter once nothing is under way, as Stats
// promises (S3).
func (n *node) checkBooks() {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		s := n.counters()
		sum := s.Written - s.Received + s.Forwarded - s.Returned + s.Abandoned + uint64(s.Pending+s.Parked)
		for _, v := range s.Outcomes {
			sum += v
		}
		if s.Sends == sum {
			return
		}
		if time.Now().After(deadline) {
			n.t.Errorf("the books of %s do not balance: %+v", n.NodeID(), s)
			return
		}
	}
}

// tune gives an engine that does not run yet a directory with other settings.
func (e *Engine) tune(change func(*directory.Config)) {
	office := e.dir.Probe().Config()
	change(&office)
	e.dir = directory.New(office, hall{e}, porch{e})
}

// settle waits until what was under way between lanes and loops when it was called has arrived.
func (n *node) settle() {
	n.t.Helper()
	for range 2 { // loops give lanes work, and the other way round
		n.eventually("the lanes are idle", n.dir.Probe().Idle)
		n.settleLoops()
	}
}

// settleLoops is settle for a node whose lanes are blocked.
func (n *node) settleLoops() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 4 { // loops give each other work
		if _, ok := ask(ctx, n.Engine, func(*loop) bool { return true }); !ok {
			n.t.Fatal("the loops do not answer")
		}
	}
}

// counters are the engine's counters as of now.
func (n *node) counters() Stats {
	n.t.Helper()
	n.settle()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ask(ctx, n.Engine, func(l *loop) bool { l.publish(); return true })
	return n.Stats()
}

// eventually waits for a state that no frame reports.
func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for: %s; stats %+v", what, n.Stats())
		}
	}
}

const bystanderPace = 2 * time.Millisecond

// eachLoops runs a test with several numbers of event loops.
func eachLoops(t *testing.T, test func(t *testing.T, loops int), loops ...int) {
	if len(loops) == 0 {
		loops = []int{1, 2}
	}
	for _, n := range loops {
		t.Run(fmt.Sprintf("loops=%d", n), func(t *testing.T) { test(t, n) })
	}
}

// acrossLoops runs a test with the receiver on the sender's loop, and on another one.
func acrossLoops(t *testing.T, cfg Config, test func(t *testing.T, n *node, from, to *client)) {
	for name, loop := range map[string]int{"same loop": 0, "other loop": 1} {
		t.Run(name, func(t *testing.T) {
			cfg.Loops = 2
			setDefault(&cfg.DefaultTTL, time.Minute)
			n := start(t, cfg)
			test(t, n, n.joinOn(0, "from"), n.joinOn(loop, "to"))
		})
	}
}

// long marks a test that takes a second or more. go test -short, the first look, leaves it out.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes a second or more: run it without -short")
	}
}
