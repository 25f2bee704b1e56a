package dashboard_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/discovery"
	"distmsg/engine"
	"distmsg/internal/admin"
	"distmsg/routing"
)

const patience = 30 * time.Second

// list is the membership of a test's cluster. It keeps the record of a node that is killed.
type list struct {
	mu      sync.Mutex
	records []discovery.Record
	changed chan struct{}
}

func (l *list) Announce(_ context.Context, r discovery.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := []discovery.Record{r}
	for _, other := range l.records {
		if other.ID != r.ID {
			kept = append(kept, other)
		}
	}
	l.records = kept
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// Withdraw does nothing, so a node that ends looks like one that was killed.
func (l *list) Withdraw(context.Context) error { return nil }

func (l *list) Watch(ctx context.Context, f func([]discovery.Record)) {
	for ctx.Err() == nil {
		l.mu.Lock()
		records, changed := l.records, l.changed
		l.mu.Unlock()
		f(records)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// cluster is three nodes in this process.
type cluster struct {
	t     *testing.T
	nodes []*engine.Engine
	kill  []func()
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	members := &list{changed: make(chan struct{})}
	registry := routing.NewMemory(routing.MemoryConfig{})
	for i := range 3 {
		e, err := engine.New(engine.Config{
			NodeID: fmt.Sprintf("n%d", i), Addr: "127.0.0.1:0", PeerAddr: "127.0.0.1:0", Loops: 1, Registry: registry,
			Membership: members, Secret: []byte("signs all resume secrets"), ClusterSecret: []byte("known to all the nodes"),
			Logger: slog.New(slog.DiscardHandler), IdentityLimits: engine.Limits{IDs: 4},
			Hooks: engine.Hooks{Authenticate: func(_ context.Context, l engine.Login) (engine.Identity, error) {
				return engine.Identity{Name: string(l.Credentials)}, nil
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		kill := sync.OnceFunc(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(kill)
		select {
		case <-e.Ready():
		case err := <-ended:
			t.Fatal(err)
		}
		c.nodes, c.kill = append(c.nodes, e), append(c.kill, kill)
	}
	return c
}

// serve serves the admin port of a node, and returns the URL of its page.
func (c *cluster) serve(node int, access admin.Access) string {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	e := c.nodes[node]
	server := admin.Server{Handler: admin.Handler(e, admin.Options{}), API: admin.NewAPI(e.Operator(), access, log), Logger: log}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	c.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			c.t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/"
}

// join opens a session of an identity at a node, with IDs.
func (c *cluster) join(node int, identity string, ids ...string) *client.Session {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	s, err := client.Dial(ctx, client.Config{
		Nodes: []string{c.nodes[node].Addr().String()}, Credentials: []byte(identity), Logger: slog.New(slog.DiscardHandler),
		Handler: func(context.Context, *client.Delivery) {},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = s.Close(context.Background()) })
	if err := s.Bind(ctx, ids...); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// bind binds IDs, and tries again until the test ends if that is more than is allowed.
func (c *cluster) bind(s *client.Session, ids ...string) {
	c.meanwhile(func(ctx context.Context) { _ = s.Bind(ctx, ids...) })
}

// send sends from one ID to others, one message after the other.
func (c *cluster) send(s *client.Session, from string, to ...string) {
	i := 0
	c.meanwhile(func(ctx context.Context) {
		_, _ = s.Send(ctx, client.Message{From: from, To: to[i%len(to)], Payload: []byte("hello")})
		i++
	})
}

// meanwhile does something again and again, until the test ends.
func (c *cluster) meanwhile(do func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var doing sync.WaitGroup
	doing.Go(func() {
		for ctx.Err() == nil {
			do(ctx)
		}
	})
	c.t.Cleanup(func() { cancel(); doing.Wait() })
}
