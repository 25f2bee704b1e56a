// Package engine is a relay node as a library: it holds the connections of app servers, knows which
// client ID is bound where, and hands messages from one to the other with a truthful outcome.
//
// The zero Config is a node on 127.0.0.1:7400. New checks the configuration, Run serves until its
// context ends:
//
//	e, err := engine.New(engine.Config{Addr: "127.0.0.1:0"})
//	if err != nil {
//		return err
//	}
//	go func() { failed <- e.Run(ctx) }()
//	<-e.Ready()
//	log.Println("clients connect to", e.Addr())
//
// A program that holds end users itself binds their IDs in its own process, with the same outcomes,
// order and limits as an app server that connects over TCP:
//
//	s, err := e.OpenInProcess(ctx, engine.InProcessConfig{Handler: func(m *engine.Message) { … }})
//	err = s.Bind(ctx, "1001")
//	reply, err := s.Send(ctx, "1001", "1002", []byte("hello"))
//
// Hooks decide who may connect, bind and send. Stats is what there is to measure; package
// internal/admin of the relay command turns it into Prometheus metrics.
//
// # How it is built
//
// The files follow a message: acceptor.go takes connections, loop.go is an event loop and its end of
// iteration, dispatch.go turns bytes into frames, relay.go is the hot path, mailbox.go carries
// messages between loops, conn.go writes. session.go and binding.go are what happens off the loops, in the
// lanes of lane.go. docs/architecture.md tells why.
//
// Who owns what: a loop owns its connections, their buffers, its pending acks and its counters, and
// nobody else touches them. Everything else reaches a loop through its inbox. Locks are few and none
// is held while another is taken: inbox.mu, loop.pubMu, lane.mu, sharedBufs.mu, Engine.fenceMu, and an
// InProcess.mu, under which inbox.mu (by post) and sharedBufs.mu may be taken.
package engine
