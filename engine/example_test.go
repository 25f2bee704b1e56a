package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"time"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine"
	"distmsg/routing"
)

// A program that embeds the engine, binds two IDs in its own process, and sends from one to the
// other.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	node, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()

	s, err := client.Dial(ctx, client.Config{ // it waits until the node is ready
		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(),
		Handler: func(_ context.Context, d *client.Delivery) { d.Reply([]byte("got " + string(d.Payload))) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Bind(ctx, "1001", "1002"); err != nil {
		log.Fatal(err)
	}
	reply, err := s.Send(ctx, client.Message{From: "1001", To: "1002", Payload: []byte("hello")})
	fmt.Println(string(reply.Payload), err)

	_, err = s.Send(ctx, client.Message{From: "1001", To: "1003", Payload: []byte("hello")})
	var failed *client.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Code, failed.Delivered(), failed.SafeToRetry(), failed.Temporary())
	}
	fmt.Println(s.Close(ctx))
	stop()
	fmt.Println(<-ended)
	// Output:
	// got hello <nil>
	// no_route no true false
	// <nil>
	// <nil>
}

// dial opens a session in the node's own process.
func dial(ctx context.Context, node *engine.Engine, identity string, handler client.Handler) *client.Session {
	s, err := client.Dial(ctx, client.Config{
		Nodes: []string{engine.InProcessAddr}, Dialer: node.DialerAs(engine.Identity{Name: identity}),
		Handler: handler, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	return s
}

// run runs a node until stop is called, which says how that went.
func run(cfg engine.Config) (node *engine.Engine, stop func() error) {
	node, stop = begin(cfg)
	<-node.Ready()
	return node, stop
}

// begin is run without waiting for the node.
func begin(cfg engine.Config) (node *engine.Engine, stop func() error) {
	node, err := engine.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := node.Run(ctx)
		if ctx.Err() == nil {
			log.Fatal(err) // it cannot start, or go on
		}
		ended <- err
	}()
	return node, func() error { cancel(); return <-ended }
}

// Hooks decide who may connect, which IDs an identity may bind, what may be sent and what
// delivered, and observe.
func ExampleHooks() {
	var lost []string
	node, stop := run(engine.Config{
		Addr: "none",
		Hooks: engine.Hooks{
			Bind: func(identity, id string) error {
				if identity != "chat" {
					return errors.New("only the chat servers hold users")
				}
				return nil
			},
			Send: func(_ string, m *codec.Send) codec.Code {
				if len(m.Payload) > 1000 {
					return codec.CodeDenied
				}
				return codec.CodeOK
			},
			Undeliverable: func(m *codec.Deliver, code codec.Code) { // on a loop: no more than this
				lost = append(lost, fmt.Sprintf("%s to %s: %s", m.From, m.To, code))
			},
		},
		Loops: 1, // so that lost needs no lock
	})
	ctx := context.Background()
	game := dial(ctx, node, "game", nil)
	fmt.Println(game.Bind(ctx, "1001"))
	chat := dial(ctx, node, "chat", nil)
	if err := chat.Bind(ctx, "1002"); err != nil {
		log.Fatal(err)
	}
	_, err := chat.Send(ctx, client.Message{From: "1002", To: "1001", Payload: make([]byte, 2000)})
	fmt.Println(errors.Is(err, client.ErrDenied))
	_, err = chat.Send(ctx, client.Message{From: "1002", To: "1001"})
	fmt.Println(errors.Is(err, client.ErrNoRoute))
	fmt.Println(game.Close(ctx), chat.Close(ctx))
	fmt.Println(stop())
	fmt.Println(lost)
	// Output:
	// client: bind 1001: denied: only the chat servers hold users
	// true
	// true
	// <nil> <nil>
	// <nil>
	// [1002 to 1001: denied 1002 to 1001: no_route]
}

// Two nodes that are told of each other and share a registry are one relay. In two processes, the
// registry is on Redis (routing/redis); with more nodes, or ones that come and go, the membership
// is in ZooKeeper (discovery/zookeeper).
func ExampleConfig_cluster() {
	registry := routing.NewMemory(routing.MemoryConfig{})
	peers := []discovery.Record{{ID: "n1", PeerAddr: freeAddr()}, {ID: "n2", PeerAddr: freeAddr()}}
	var nodes [2]*engine.Engine
	var stops [2]func() error
	for i, self := range peers {
		nodes[i], stops[i] = begin(engine.Config{
			NodeID: self.ID, Addr: "none", PeerAddr: self.PeerAddr,
			Registry: registry, Membership: discovery.Peers(peers...), ClusterSecret: []byte("at least sixteen bytes"),
		})
	}
	var sessions [2]*client.Session
	ctx := context.Background()
	for i, node := range nodes {
		linked(node)
		sessions[i] = dial(ctx, node, "", func(_ context.Context, d *client.Delivery) { d.Reply([]byte(node.NodeID() + " has " + d.To)) })
	}
	if err := errors.Join(sessions[0].Bind(ctx, "alice"), sessions[1].Bind(ctx, "bob")); err != nil {
		log.Fatal(err)
	}
	reply, err := sessions[0].Send(ctx, client.Message{From: "alice", To: "bob"})
	fmt.Println(string(reply.Payload), err)
	reply, err = sessions[1].Send(ctx, client.Message{From: "bob", To: "alice"})
	fmt.Println(string(reply.Payload), err)
	fmt.Println(sessions[0].Close(ctx), sessions[1].Close(ctx))
	for _, stop := range stops {
		fmt.Println(stop())
	}
	// Output:
	// n2 has bob <nil>
	// n1 has alice <nil>
	// <nil> <nil>
	// <nil>
	// <nil>
}

// linked waits for the other node. A node that starts waits for those that there are, but for no
// longer than two seconds.
func linked(node *engine.Engine) {
	for <-node.Ready(); node.Stats().Links == 0; {
		time.Sleep(10 * time.Millisecond)
	}
}

// freeAddr is an address to listen at.
func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A node that leaves lets what is under way come to its end first.
func ExampleEngine_Drain() {
	node, stop := run(engine.Config{Addr: "127.0.0.1:0"})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := dial(ctx, node, "", func(context.Context, *client.Delivery) {})
	if err := s.Bind(ctx, "a", "b"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(node.Drain(ctx)) // clients move to other nodes, if there are any
	_, err := s.Send(ctx, client.Message{From: "a", To: "b"})
	fmt.Println(errors.Is(err, client.ErrDraining), s.Close(ctx))
	fmt.Println(stop())
	// Output:
	// <nil>
	// true <nil>
	// <nil>
}
