// Command clock is a node for app servers, with a user "clock" in the same process who answers each
// message with the time. It runs until Ctrl-C.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"distmsg/client"
	"distmsg/engine"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: clock ADDRESS, for example clock 127.0.0.1:7400")
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	node, err := engine.New(engine.Config{Addr: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	select {
	case <-node.Ready():
	case err := <-ended:
		log.Fatal(err) // it could not start: the address is in use, for example
	}

	session, err := client.Dial(ctx, client.Config{
		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(), // in memory, without a socket
		Handler: func(ctx context.Context, d *client.Delivery) {
			d.Reply([]byte(time.Now().Format(time.TimeOnly)))
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := session.Bind(ctx, "clock"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("app servers connect to", node.Addr())

	select {
	case <-interrupted.Done():
	case err := <-ended:
		log.Fatal(err) // the node could not continue
	}
	session.Close(ctx) // first the session, then the node
	end()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
}
