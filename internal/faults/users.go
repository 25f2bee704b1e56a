package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/client"
	"distmsg/internal/proc"
)

// Users are sessions that began at one node, each with IDs. They accept every message or, if
// UsersConfig.Silent is set, none.
type Users struct {
	IDs []string // of all the sessions

	sessions []*client.Session
	kicks    atomic.Int64
	held     atomic.Int64
	release  chan struct{}
	once     sync.Once
}

// UsersConfig says who the users are.
type UsersConfig struct {
	Name     string // the prefix of their IDs
	Sessions int
	PerUser  int        // IDs of each session
	Silent   bool       // handlers hold messages until Close
	Host     *proc.Host // the host of their app servers
}

// Connect attaches sessions to the node at addr and binds their IDs. When that node dies, they move
// to others.
func Connect(ctx context.Context, addr string, cfg UsersConfig) (*Users, error) {
	u := &Users{release: make(chan struct{})}
	for i := range cfg.Sessions {
		if err := u.connect(ctx, addr, cfg, i); err != nil {
			u.Close()
			return nil, fmt.Errorf("session %d at %s: %w", i, addr, err)
		}
	}
	return u, nil
}

func (u *Users) connect(ctx context.Context, addr string, cfg UsersConfig, i int) error {
	handler := func(context.Context, *client.Delivery) {}
	if cfg.Silent {
		handler = func(context.Context, *client.Delivery) {
			u.held.Add(1)
			<-u.release
		}
	}
	session, err := client.Dial(ctx, client.Config{
		Nodes: []string{addr}, Handler: handler, Logger: slog.New(slog.DiscardHandler), Dialer: cfg.Host.Dial,
		OnKick: func(client.Kick) { u.kicks.Add(1) },
	})
	if err != nil {
		return err
	}
	u.sessions = append(u.sessions, session)
	ids := make([]string, cfg.PerUser)
	for k := range ids {
		ids[k] = fmt.Sprintf("%s-%d-%d", cfg.Name, i, k)
	}
	u.IDs = append(u.IDs, ids...)
	return session.Bind(ctx, ids...)
}

// Kicks returns how many IDs the users have lost to others.
func (u *Users) Kicks() int { return int(u.kicks.Load()) }

// Close ends the sessions.
func (u *Users) Close() {
	u.once.Do(func() { close(u.release) })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var work sync.WaitGroup
	for _, session := range u.sessions {
		work.Go(func() { _ = session.Close(ctx) })
	}
	work.Wait()
}

// Send sends one message from the users' first session and returns its outcome as a word.
func (u *Users) Send(ctx context.Context, to string, ttl time.Duration) string {
	_, err := u.sessions[0].Send(ctx, client.Message{To: to, From: u.IDs[0], TTL: ttl})
	return word(err)
}

// SendEach sends one message to each ID, one after the other, and counts the outcomes.
func (u *Users) SendEach(ctx context.Context, ids []string) map[string]uint64 {
	var tally Tally
	for _, id := range ids {
		tally.Add(u.Send(ctx, id, sendTTL))
	}
	return tally.Counts()
}

// SendAll sends one message to all IDs in a multicast, and counts the outcomes.
func (u *Users) SendAll(ctx context.Context, ids []string) map[string]uint64 {
	var tally Tally
	results, err := u.sessions[0].Multicast(ctx, client.Message{From: u.IDs[0], TTL: sendTTL}, ids)
	if err != nil {
		tally.Add(err.Error())
	}
	for _, r := range results {
		tally.Add(word(r.Err))
	}
	return tally.Counts()
}

func word(err error) string {
	if err == nil {
		return "acked"
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code.String()
	}
	return err.Error()
}

// Tally counts outcomes. It may be used from any goroutine.
type Tally struct {
	mu     sync.Mutex
	counts map[string]uint64 // guarded by mu
}

// Add counts one outcome.
func (t *Tally) Add(word string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = make(map[string]uint64)
	}
	t.counts[word]++
}

// Counts returns what was counted.
func (t *Tally) Counts() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make(map[string]uint64)
	for word, n := range t.counts {
		counts[word] = n
	}
	return counts
}

const (
	reachWorkers = 128
	tryTTL       = time.Second           // for each of many tries
	tryPause     = 20 * time.Millisecond // between them
	everyTurn    = 50 * time.Millisecond // between two messages of Talk
	sendTTL      = 5 * time.Second
)

// Reach sends to the IDs until each has accepted a message, and counts the outcomes of the tries.
// An error says how many IDs have not accepted one.
func (u *Users) Reach(ctx context.Context, ids []string) (map[string]uint64, error) {
	var tally Tally
	var missing atomic.Int64
	var work sync.WaitGroup
	queue := make(chan string, len(ids))
	for _, id := range ids {
		queue <- id
	}
	close(queue)
	for range min(reachWorkers, len(ids)) {
		work.Go(func() {
			for id := range queue {
				if !u.reach(ctx, id, &tally) {
					missing.Add(1)
				}
			}
		})
	}
	work.Wait()
	if n := missing.Load(); n > 0 {
		return tally.Counts(), fmt.Errorf("%d of %d IDs could not be reached; tries ended: %s", n, len(ids), counts(tally.Counts()))
	}
	return tally.Counts(), nil
}

func (u *Users) reach(ctx context.Context, id string, tally *Tally) bool {
	for ctx.Err() == nil {
		outcome := u.Send(ctx, id, tryTTL)
		tally.Add(outcome)
		if outcome == "acked" {
			return true
		}
		Pause(ctx, tryPause)
	}
	return false
}

// Talk sends to the IDs, one after the other, repeatedly, until ctx ends, and counts the outcomes.
func (u *Users) Talk(ctx context.Context, ids []string, tally *Tally) {
	for i := 0; Pause(ctx, everyTurn); i++ {
		// Do not use ctx: its end would become an outcome.
		tally.Add(u.Send(context.WithoutCancel(ctx), ids[i%len(ids)], sendTTL))
	}
}

// Wait is a group of sends that wait for their outcomes.
type Wait struct {
	Tally
	work sync.WaitGroup
}

// SendToSilent sends n messages to users that hold them, and returns when they hold all. Each ID's
// handler holds one, so n is at most the number of their IDs.
func (u *Users) SendToSilent(ctx context.Context, silent *Users, n int) (*Wait, error) {
	w := &Wait{}
	held := silent.held.Load()
	for i := range n {
		w.work.Go(func() { w.Add(u.Send(ctx, silent.IDs[i%len(silent.IDs)], time.Minute)) })
	}
	arriving, cancel := context.WithTimeout(ctx, settleTimeout) // the sends outlive this context
	defer cancel()
	for silent.held.Load() < held+int64(n) {
		if !Pause(arriving, pollEvery) {
			return w, fmt.Errorf("%d of %d messages have come; others ended: %s", silent.held.Load()-held, n, counts(w.Counts()))
		}
	}
	return w, nil
}

// Heard waits until all sends have ended.
func (w *Wait) Heard() { w.work.Wait() }
