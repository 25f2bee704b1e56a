package docs

import (
	"context"
	"errors"
	"fmt"
	"log"

	"distmsg/client"
	"distmsg/engine"
)

// serve runs a node on a free port until stop is called.
func serve() (addr string, stop func()) {
	node, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	select {
	case <-node.Ready():
	case err := <-ended:
		log.Fatal(err)
	}
	return node.Addr().String(), func() { cancel(); <-ended }
}

func Example_client() {
	addr, stop := serve()
	defer stop()
	ctx := context.Background()

	session, err := client.Dial(ctx, client.Config{
		Nodes: []string{addr},
		Handler: func(ctx context.Context, d *client.Delivery) {
			d.Reply([]byte("hello, " + d.From)) // or d.Reject("busy"); or nothing: then it is acked
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close(ctx)

	if err := session.Bind(ctx, "alice", "bob"); err != nil { // two of our users
		log.Fatal(err)
	}
	reply, err := session.Send(ctx, client.Message{From: "alice", To: "bob", Payload: []byte("hello")})
	fmt.Printf("%s, %v\n", reply.Payload, err)

	_, err = session.Send(ctx, client.Message{From: "alice", To: "carol", Payload: []byte("hello")})
	if outcome := (*client.Error)(nil); errors.As(err, &outcome) {
		fmt.Println(outcome.Code, outcome.Delivered(), outcome.SafeToRetry(), outcome.Temporary())
	}

	// Output:
	// hello, alice, <nil>
	// no_route no true false
}

func Example_embed() {
	node, err := engine.New(engine.Config{Addr: "127.0.0.1:0"}) // any free port
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()

	clock, err := client.Dial(ctx, client.Config{
		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(), // in memory, without a socket
		Handler: func(ctx context.Context, d *client.Delivery) { d.Reply([]byte("tick")) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := clock.Bind(ctx, "clock"); err != nil { // the handler now gets its messages
		log.Fatal(err)
	}

	reply, err := clock.Send(ctx, client.Message{From: "clock", To: "clock"})
	fmt.Printf("%s, %v\n", reply.Payload, err)
	if err := clock.Close(ctx); err != nil {
		log.Fatal(err)
	}

	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}

	// Output: tick, <nil>
}
